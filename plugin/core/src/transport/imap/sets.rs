//! Sets of UIDs (RFC 9051 section 9, sequence-set), as ranges and as they are written into commands.

use std::fmt::Write;

use crate::limits;

/// Ascending, apart from each other, both ends included.
pub type Ranges = Vec<(u32, u32)>;

/// Runs of UIDs (ascending) as ranges.
pub fn ranges(uids: &[u32]) -> Ranges {
    let mut ranges: Ranges = Vec::new();
    for &uid in uids {
        match ranges.last_mut() {
            Some((_, last)) if *last >= uid => {}
            Some((_, last)) if *last + 1 == uid => *last = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    ranges
}

/// Is `uid` in one of the ranges?
pub fn contains(ranges: &[(u32, u32)], uid: u32) -> bool {
    let at = ranges.partition_point(|(_, last)| *last < uid);
    ranges.get(at).is_some_and(|(first, _)| *first <= uid)
}

/// `1:3,7`
pub fn text(ranges: &[(u32, u32)]) -> String {
    let mut text = String::new();
    for &(first, last) in ranges {
        let comma = if text.is_empty() { "" } else { "," };
        // A String takes everything.
        let _ = match first == last {
            true => write!(text, "{comma}{first}"),
            false => write!(text, "{comma}{first}:{last}"),
        };
    }
    text
}

/// Ranges that fit one command each, with room for what else stands in it.
pub fn pieces(ranges: &[(u32, u32)]) -> Vec<Ranges> {
    let mut pieces: Vec<Ranges> = Vec::new();
    let mut len = 0;
    for &range in ranges {
        let width = width(range);
        match pieces.last_mut() {
            Some(piece) if len + width <= TEXT_MAX => {
                piece.push(range);
                len += width;
            }
            _ => {
                pieces.push(vec![range]);
                len = width;
            }
        }
    }
    pieces
}

/// Half of a command line.
pub const TEXT_MAX: usize = limits::IMAP_COMMAND_LINE_MAX / 2;

/// Bytes of a range in a set, with its comma.
pub fn width((first, last): (u32, u32)) -> usize {
    let digits = |number: u32| number.checked_ilog10().unwrap_or(0) as usize + 1;
    1 + digits(first) + if first == last { 0 } else { 1 + digits(last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_uids_are_ranges() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), [(1, 3), (7, 7), (9, 10)]);
        assert_eq!(text(&ranges(&[1, 2, 3, 7, 9, 10])), "1:3,7,9:10");
        assert_eq!(text(&ranges(&[u32::MAX - 1, u32::MAX])), "4294967294:4294967295");
        assert!(contains(&[(1, 3), (7, 7)], 7) && !contains(&[(1, 3), (7, 7)], 5));
        assert!(pieces(&[]).is_empty() && text(&[]).is_empty());
    }

    #[test]
    fn pieces_stay_short() {
        let many: Ranges = (1..9_000).map(|n| (n * 1_000, n * 1_000)).collect();
        let pieces = pieces(&many);
        assert!(pieces.len() > 10 && pieces.iter().all(|piece| text(piece).len() <= TEXT_MAX));
        assert_eq!(pieces.concat(), many);
        assert!(pieces.iter().all(|piece| text(piece).len() + 1 == piece.iter().copied().map(width).sum::<usize>()));
    }
}
