//! When messages were received: INTERNALDATE, and the dates of SEARCH.

use time::{Date, OffsetDateTime, macros::format_description};

use super::{ask, conn::Conn, sets};
use crate::{clock::UnixSeconds, error::Result};

/// Those of `uids` whose INTERNALDATE is `moment` or later, or cannot be read.
pub fn received_since(conn: &mut Conn, uids: &[u32], moment: UnixSeconds) -> Result<Vec<u32>> {
    let mut sorted = uids.to_vec();
    sorted.sort_unstable();
    let dates = dates(conn, &sorted)?;
    let is_wanted = |at: &Option<UnixSeconds>| at.is_none_or(|at| at >= moment);
    Ok(dates.into_iter().filter(|(_, at)| is_wanted(at)).map(|(uid, _)| uid).collect())
}

/// INTERNALDATE of each that is there; `None` where it cannot be read. `uids` ascend.
pub fn dates(conn: &mut Conn, uids: &[u32]) -> Result<Vec<(u32, Option<UnixSeconds>)>> {
    let mut dates = Vec::new();
    ask::fetch(conn, sets::ranges(uids), "UID INTERNALDATE", &mut |found, _| {
        if uids.binary_search(&found.uid).is_ok() {
            dates.push((found.uid, found.internal_date.as_deref().and_then(internal_date)));
        }
        Ok(())
    })
    .map_err(|failure| failure.into_error("tell when mail was received"))?;
    Ok(dates)
}

/// `17-Jul-1996 02:44:25 -0700`, the day padded with a space or a zero.
pub fn internal_date(text: &str) -> Option<UnixSeconds> {
    let format = format_description!(
        "[day padding:none]-[month repr:short]-[year] [hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
    );
    let text = text.trim();
    let text = text.strip_prefix('0').unwrap_or(text);
    OffsetDateTime::parse(text, format).ok().map(OffsetDateTime::unix_timestamp)
}

pub fn search_date(date: Date) -> String {
    let format = format_description!("[day padding:none]-[month repr:short]-[year]");
    date.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_dates_of_real_servers_are_read() {
        for (text, expected) in [
            ("17-Jul-1996 02:44:25 -0700", Some(837_596_665)),
            (" 7-Jul-1996 02:44:25 +0000", Some(836_707_465)),
            ("07-Jul-1996 02:44:25 +0000", Some(836_707_465)),
            ("yesterday", None),
        ] {
            assert_eq!(internal_date(text), expected, "{text}");
        }
        assert_eq!(search_date(Date::from_calendar_date(2026, time::Month::March, 4).unwrap()), "4-Mar-2026");
    }
}
