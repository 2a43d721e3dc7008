//! Dates (RFC 5322 section 3.3, its obsolete forms, asctime and RFC 3339) as mailers write them.

use time::{Date, Month, PrimitiveDateTime, Time};

/// A moment, with the sender's offset from UTC where one is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    local: PrimitiveDateTime,
    offset_minutes: Option<i32>,
}

impl Moment {
    /// `None` for what is not a date, and for days that no month has.
    pub fn read(value: &str) -> Option<Self> {
        let plain = without_comments(value);
        let mut words = Words::default();
        for word in plain.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty()) {
            words.take(word)?;
        }
        words.moment()
    }

    pub fn to_timestamp(self) -> i64 {
        self.local.assume_utc().unix_timestamp() - i64::from(self.offset_minutes.unwrap_or_default()) * 60
    }

    /// `-00:00` where the offset is not known (RFC 3339 section 4.3).
    pub fn to_rfc3339(self) -> String {
        let (date, clock) = (self.local.date(), self.local.time());
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        let (hour, minute, second) = (clock.hour(), clock.minute(), clock.second());
        let zone = match self.offset_minutes {
            None => "-00:00".to_owned(),
            Some(0) => "Z".to_owned(),
            Some(minutes) => {
                let sign = if minutes < 0 { '-' } else { '+' };
                format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
            }
        };
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{zone}")
    }
}

#[derive(Default)]
struct Words {
    year: Option<i32>,
    month: Option<Month>,
    day: Option<u8>,
    /// Hour, minute, second.
    clock: Option<[u8; 3]>,
    zone: Option<i32>,
    has_zone: bool,
    afternoon: Option<bool>,
}

impl Words {
    /// `None` when a second word says something else than the first.
    fn take(&mut self, word: &str) -> Option<()> {
        if let Some((date, rest)) = iso_date(word) {
            (self.year, self.month, self.day) = date;
            return rest
                .split(['T', 't'])
                .filter(|rest| !rest.is_empty())
                .try_for_each(|rest| self.clock_and_zone(rest));
        }
        // `06-Oct-2022`
        let parts: Vec<&str> = word.splitn(4, '-').collect();
        if let [day, month, year] = parts[..]
            && month.starts_with(|c: char| c.is_ascii_alphabetic())
        {
            return [day, month, year].into_iter().try_for_each(|part| self.take(part));
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            if self.clock.is_none() && word.contains([':', '.']) {
                return self.clock_and_zone(word);
            }
            return self.number(word.trim_end_matches('.'));
        }
        if word.starts_with(['+', '-']) {
            if self.clock.is_some() && !self.has_zone {
                self.set_zone(word);
            }
            return Some(());
        }
        let lower = word.to_ascii_lowercase();
        if let Some(month) = month(&lower)
            && self.month.is_none()
        {
            self.month = Some(month);
        } else if self.clock.is_some() {
            match lower.as_str() {
                "am" | "pm" => self.afternoon = Some(lower == "pm"),
                _ if !self.has_zone => self.set_zone(word),
                _ => {}
            }
        }
        Some(())
    }

    fn number(&mut self, word: &str) -> Option<()> {
        let number: i32 = word.parse().ok()?;
        if self.day.is_none() && word.len() <= 2 {
            self.day = u8::try_from(number).ok();
        } else if self.year.is_none() {
            // RFC 5322 section 4.3.
            self.year = Some(match (word.len(), number) {
                (..=2, ..50) => number + 2000,
                (..=3, _) => number + 1900,
                _ => number,
            });
        }
        Some(())
    }

    fn clock_and_zone(&mut self, word: &str) -> Option<()> {
        let end = word.find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.'))).unwrap_or(word.len());
        let (clock, zone) = word.split_at(end);
        let separator = if clock.contains(':') { ':' } else { '.' };
        let mut parts = clock.split(separator);
        let mut number = || parts.next().map(|part| part.split('.').next().unwrap_or_default().parse::<u8>());
        let (hour, minute, second) = (number()?.ok()?, number()?.ok()?, number().unwrap_or(Ok(0)).ok()?);
        self.clock = Some([hour, minute, second]);
        if !zone.is_empty() {
            self.set_zone(zone);
        }
        Some(())
    }

    fn set_zone(&mut self, word: &str) {
        self.has_zone = true;
        self.zone = offset(word);
    }

    fn moment(self) -> Option<Moment> {
        let date = Date::from_calendar_date(self.year?, self.month?, self.day?).ok()?;
        // RFC 3339 has no room for others.
        let date = Some(date).filter(|date| (1..9999).contains(&date.year()))?;
        let [hour, minute, second] = self.clock.unwrap_or_default();
        let hour = match (self.afternoon, hour) {
            (Some(true), 1..12) => hour + 12,
            (Some(false), 12) => 0,
            _ => hour,
        };
        // Midnight at a day's end, and the leap second, are the moment after it: not every reader takes them.
        let (clock, over) = match (hour, minute, second) {
            (24, 0, 0) => (Time::MIDNIGHT, time::Duration::DAY),
            (_, _, 60) => (Time::from_hms(hour, minute, 59).ok()?, time::Duration::SECOND),
            _ => (Time::from_hms(hour, minute, second).ok()?, time::Duration::ZERO),
        };
        let local = PrimitiveDateTime::new(date, clock).checked_add(over)?;
        Some(Moment { local, offset_minutes: self.zone })
    }
}

type YearMonthDay = (Option<i32>, Option<Month>, Option<u8>);

/// `2022-10-06` and what follows it.
fn iso_date(word: &str) -> Option<(YearMonthDay, &str)> {
    let date = word.get(..10)?;
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    Some(((year.parse().ok(), Some(month), day.parse().ok()), &word[10..]))
}

fn month(lower: &str) -> Option<Month> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let at = MONTHS.iter().position(|name| lower.starts_with(name))?;
    Month::try_from(at as u8 + 1).ok()
}

/// Minutes east of UTC. RFC 5322 section 4.3: what is not known is `-0000`.
fn offset(zone: &str) -> Option<i32> {
    let upper = zone.trim_matches(['(', ')']).to_ascii_uppercase();
    let named = NAMES.iter().find(|(name, _)| *name == upper).map(|(_, minutes)| *minutes);
    if named.is_some() {
        return named;
    }
    // `GMT+2`
    let numeric = upper.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let sign = match numeric.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = match numeric[1..].split_once(':') {
        Some((hours, minutes)) => (hours.parse().ok()?, minutes.parse().ok()?),
        None => {
            let digits = &numeric[1..];
            let number: i32 = digits.parse().ok()?;
            if digits.len() <= 2 { (number, 0) } else { (number / 100, number % 100) }
        }
    };
    // RFC 5322 section 3.3: `-0000` says that the offset is not known.
    if sign < 0 && hours == 0 && minutes == 0 {
        return None;
    }
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// RFC 5322 section 4.3, and names that mailers write and that mean one offset only.
const NAMES: [(&str, i32); 33] = [
    ("UT", 0),
    ("GMT", 0),
    ("UTC", 0),
    ("Z", 0),
    ("WET", 0),
    ("WEST", 60),
    ("BST", 60),
    ("CET", 60),
    ("MET", 60),
    ("MEZ", 60),
    ("CEST", 120),
    ("MEST", 120),
    ("MESZ", 120),
    ("EET", 120),
    ("SAST", 120),
    ("EEST", 180),
    ("MSK", 180),
    ("JST", 540),
    ("KST", 540),
    ("AEST", 600),
    ("AEDT", 660),
    ("NZST", 720),
    ("NZDT", 780),
    ("EST", -300),
    ("EDT", -240),
    ("CST", -360),
    ("CDT", -300),
    ("MST", -420),
    ("MDT", -360),
    ("PST", -480),
    ("PDT", -420),
    ("HST", -600),
    ("AKST", -540),
];

fn without_comments(value: &str) -> String {
    let mut depth = 0usize;
    let kept = value.chars().filter(|c| {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                return false;
            }
            _ => {}
        }
        depth == 0
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_14_dates_as_mailers_write_them() {
        for (value, expected) in [
            ("Mon, 23 Nov 2026 11:00:00 +0100", "2026-11-23T11:00:00+01:00"),
            ("Thu, 6 Oct 2022 12:27:13", "2022-10-06T12:27:13-00:00"),
            ("Thu, 6 Oct 2022 12:27:13 -0000", "2022-10-06T12:27:13-00:00"),
            ("Thu, 06 Oct 22 12:27 GMT", "2022-10-06T12:27:00Z"),
            ("Tue Jul 24 18:55:07 2007", "2007-07-24T18:55:07-00:00"),
            ("Tue Jul 24 18:55:07 PDT 2007", "2007-07-24T18:55:07-07:00"),
            ("06-Oct-2022 12:27:13 +0200", "2022-10-06T12:27:13+02:00"),
            ("2022-10-06T12:27:13Z", "2022-10-06T12:27:13Z"),
            ("2022-10-06T12:27:13.123+02:00", "2022-10-06T12:27:13+02:00"),
            ("2022-10-06 12:27:13 +0200", "2022-10-06T12:27:13+02:00"),
            ("Thu, 6 Oct 2022 24:00:00 +0000", "2022-10-07T00:00:00Z"),
            ("Sat, 31 Dec 2016 23:59:60 +0000", "2017-01-01T00:00:00Z"),
            ("Thu, 6 Oct 2022 12.27.13 +0000", "2022-10-06T12:27:13Z"),
            ("Thu, 6 Oct 2022 12:27:13 CET", "2022-10-06T12:27:13+01:00"),
            ("Thu, 6 Oct 2022 12:27:13 +1", "2022-10-06T12:27:13+01:00"),
            ("Thu, 6 Oct 2022 12:27:13 +9900", "2022-10-06T12:27:13-00:00"),
            ("Thu, 6 Oct 2022 12:27:13 XYZ", "2022-10-06T12:27:13-00:00"),
            ("Thu, 6 Oct 2022 12:27:13 +0530 (IST)", "2022-10-06T12:27:13+05:30"),
            ("6 (x) Oct (y) 2022 1:02:03 PM +0000", "2022-10-06T13:02:03Z"),
        ] {
            let read = Moment::read(value).map(Moment::to_rfc3339);
            assert_eq!(read.as_deref(), Some(expected), "{value}");
        }
        for value in [
            "Wed, 30 Feb 2022 12:00:00 +0000",
            "31 Feb 2026",
            "yesterday",
            "",
            "1 Jan 99999 00:00:00 +0000",
            "1 Jan 2022 25:00:00",
        ] {
            assert_eq!(Moment::read(value), None, "{value}");
        }
        let moment = Moment::read("Mon, 23 Nov 2026 11:00:00 +0100").unwrap();
        assert_eq!(moment.to_timestamp(), 1_795_428_000);
    }
}
