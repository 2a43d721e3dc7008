//! UID FETCH and UID SEARCH over ranges of UIDs, asked until every range is answered.
//!
//! A server may carry a command out for a part of the messages and say so in the code of its OK
//! (RFC 9738, RFC 9394). An answer is complete only for what it covers; the rest is asked for again.

use super::{
    answer::{self, Fetched, Limit},
    conn::{Conn, Failure},
    framer::{Budget, Frame},
    sets::{self, Ranges},
};
use crate::error::{About, Error, Kind, Result};

/// Each FETCH answer to `items` for these UIDs, and its frame.
///
/// # Errors
/// `ServerMisbehaved` for a UID beyond 32 bits, and when the server stops again and again at one place.
pub fn fetch(
    conn: &mut Conn,
    ranges: Ranges,
    items: &str,
    each: &mut dyn FnMut(Fetched, &mut Frame) -> Result<()>,
) -> Result<(), Failure> {
    until_answered(ranges, |set| {
        conn.bulk(&format!("UID FETCH {set} ({items})"), Budget::CONTROL, &mut |frame| {
            match answer::fetched(&frame.line) {
                Some(found) => each(found, frame),
                // Only what cannot be read is looked at again: this is said of every message.
                None => match answer::oversized_uid(&frame.line) {
                    Some(uid) => Err(oversized(&uid)),
                    None => Ok(()),
                },
            }
        })
    })
}

fn oversized(uid: &str) -> Error {
    Error::new(Kind::ServerMisbehaved, format!("The mail server gives a message the UID {uid}."))
        .with_about(About::Folder)
        .remedy("UIDs have 32 bits (RFC 9051). Ask the server's administrator to renumber the folder.")
}

/// The UIDs in these ranges that are there, ascending.
///
/// # Errors
/// As [`fetch`].
pub fn uids(conn: &mut Conn, ranges: Ranges) -> Result<Vec<u32>, Failure> {
    let (mut found, asked) = (Vec::new(), ranges.clone());
    fetch(conn, ranges, "UID", &mut |one, _| {
        found.push(one.uid);
        Ok(())
    })?;
    found.sort_unstable();
    found.dedup();
    found.retain(|uid| sets::contains(&asked, *uid));
    Ok(found)
}

/// The UIDs in these ranges that meet `criteria`, ascending. `None`: the server said OK and named no result.
///
/// # Errors
/// The server's refusals.
pub fn search(conn: &mut Conn, ranges: Ranges, criteria: &str) -> Result<Option<Vec<u32>>, Failure> {
    let (mut found, mut is_heard) = (Vec::new(), true);
    let asked = ranges.clone();
    until_answered(ranges, |set| {
        let mut heard = false;
        let limit = conn.bulk(&format!("UID SEARCH UID {set}{criteria}"), Budget::CONTROL, &mut |frame| {
            if let Some(uids) = answer::search(&frame.line) {
                heard = true;
                found.extend(uids);
            }
            Ok(())
        })?;
        is_heard &= heard;
        Ok(limit)
    })?;
    found.sort_unstable();
    found.dedup();
    found.retain(|uid| sets::contains(&asked, *uid));
    Ok(is_heard.then_some(found))
}

fn until_answered(ranges: Ranges, mut ask: impl FnMut(&str) -> Result<Option<Limit>, Failure>) -> Result<(), Failure> {
    let mut open = sets::pieces(&ranges);
    open.reverse();
    while let Some(piece) = open.pop() {
        let set = sets::text(&piece);
        let Some(limit) = ask(&set)? else { continue };
        let rest = match limit.below {
            // The highest are answered first; below this one nothing was looked at.
            Some(uid) => {
                let rest: Ranges = piece
                    .iter()
                    .filter(|(first, _)| *first < uid)
                    .map(|(first, last)| (*first, (*last).min(uid - 1)))
                    .collect();
                if rest == piece {
                    return Err(stops(&set));
                }
                vec![rest]
            }
            None => match halves(&piece) {
                Some((low, high)) => vec![low, high],
                None => return Err(stops(&set)),
            },
        };
        open.extend(rest.into_iter().filter(|rest| !rest.is_empty()));
    }
    Ok(())
}

fn stops(set: &str) -> Failure {
    Failure::Fatal(
        Error::new(
            Kind::ServerMisbehaved,
            format!("The mail server limits its answer about UID {set} and gives none."),
        )
        .with_about(About::Folder)
        .remedy("Ask the server's administrator about its limit for one command (RFC 9738)."),
    )
}

fn halves(piece: &[(u32, u32)]) -> Option<(Ranges, Ranges)> {
    match piece {
        [] => None,
        [(first, last)] if first == last => None,
        [(first, last)] => {
            let middle = first + (last - first) / 2;
            Some((vec![(*first, middle)], vec![(middle + 1, *last)]))
        }
        many => {
            let (low, high) = many.split_at(many.len() / 2);
            Some((low.to_vec(), high.to_vec()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers for at most `most` of the UIDs 1 to 20, the highest first.
    fn limited(most: usize, tells: bool) -> (Vec<u32>, usize) {
        let (mut found, mut asked) = (Vec::new(), 0);
        let answered = until_answered(vec![(1, 20)], |set| {
            asked += 1;
            let (first, last) = set.split_once(':').unwrap_or((set, set));
            let (first, last): (u32, u32) = (first.parse().unwrap(), last.parse().unwrap());
            let all: Vec<u32> = (first..=last).rev().collect();
            let answered = &all[..all.len().min(most)];
            if tells || all.len() <= most {
                found.extend(answered);
            }
            let below = answered.last().copied().filter(|_| tells);
            Ok((answered.len() < all.len()).then_some(Limit { below }))
        });
        assert!(answered.is_ok());
        found.sort_unstable();
        (found, asked)
    }

    #[test]
    fn a_limited_answer_is_asked_for_again_below_where_it_stopped() {
        for most in [1, 3, 5, 20, 100] {
            for tells in [true, false] {
                let (found, asked) = limited(most, tells);
                assert_eq!(found, (1..=20).collect::<Vec<_>>(), "{most} {tells}");
                assert!(asked <= 40, "{asked}");
            }
        }
    }

    #[test]
    fn a_server_that_stops_at_one_place_is_told() {
        assert!(until_answered(vec![(5, 9)], |_| Ok(Some(Limit { below: Some(10) }))).is_err());
        assert!(until_answered(vec![(5, 5)], |_| Ok(Some(Limit { below: None }))).is_err());
        assert!(until_answered(vec![(5, 9)], |_| Ok(Some(Limit { below: Some(5) }))).is_ok());
    }
}
