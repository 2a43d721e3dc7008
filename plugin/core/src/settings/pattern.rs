//! What a text field may hold. One regular expression per kind of text serves both the printed schema and the parser,
//! so that the two cannot disagree; only the wording of a fault is found by other means.
//!
//! The expressions stay inside what ECMA-262 (with the `u` flag), `regex-lite` and the schema validators share: no
//! look-around, no back references, ASCII classes only.

use std::sync::OnceLock;

use lettre::Address;
use regex_lite::Regex;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::Url;

use crate::{
    clock::UnixSeconds,
    limits::{SETTING_SCOPE_MAX, SETTING_TEXT_MAX, SETTING_URL_MAX},
};

/// Kinds of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One line of anything but control characters.
    Line,
    /// Host name (RFC 1123), IPv4 or IPv6 address; no scheme, no port.
    Host,
    /// Absolute https URL without user, password and fragment.
    HttpsUrl,
    /// As [`Pattern::HttpsUrl`]; plain http is allowed on the own machine only (RFC 8252 section 7.3).
    RedirectUrl,
    /// `local@domain`, dot-atom form (RFC 5321 4.1.2), the local part may be internationalised (RFC 6531).
    Email,
    /// An [`Pattern::Email`], or a domain: everybody there.
    Sender,
    /// Scope tokens separated by spaces (RFC 6749 section 3.3).
    Scope,
    /// Absolute path of a file.
    Path,
    /// Name of an environment variable.
    EnvironmentName,
    /// `now`, `all`, or an RFC 3339 date or date-time.
    Since,
    /// An RFC 3339 date or date-time.
    Moment,
    /// A subject tag: `{id}` once, something before it.
    SubjectTag,
    /// Name of a parameter of the authorize URL.
    ParameterName,
    /// `off`, `environment`, or an http URL of host and port alone.
    Proxy,
}

use Pattern::*;

const ALL: [Pattern; 14] = [
    Line,
    Host,
    HttpsUrl,
    RedirectUrl,
    Email,
    Sender,
    Scope,
    Path,
    EnvironmentName,
    Since,
    Moment,
    SubjectTag,
    ParameterName,
    Proxy,
];

macro_rules! label {
    () => {
        "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    };
}
// The last label is not all digits: what looks like an IPv4 address must be one.
macro_rules! last_label {
    () => {
        "(?:[A-Za-z_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?|[0-9]{1,31}[A-Za-z_](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9_])?)"
    };
}
macro_rules! name {
    () => {
        concat!("(?:", label!(), "\\.)*", last_label!())
    };
}
macro_rules! octet {
    () => {
        "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    };
}
macro_rules! ipv4 {
    () => {
        concat!(octet!(), "(?:\\.", octet!(), "){3}")
    };
}
// RFC 3986 IPv6address, alternative by alternative.
macro_rules! h16 {
    () => {
        "[0-9A-Fa-f]{1,4}"
    };
}
macro_rules! ls32 {
    () => {
        concat!("(?:", h16!(), ":", h16!(), "|", ipv4!(), ")")
    };
}
macro_rules! before {
    ($most:literal) => {
        concat!("(?:(?:", h16!(), ":){0,", $most, "}", h16!(), ")?::")
    };
}
macro_rules! groups {
    ($count:literal) => {
        concat!("(?:", h16!(), ":){", $count, "}")
    };
}
macro_rules! ipv6 {
    () => {
        concat!(
            "(?:",
            concat!(groups!("6"), ls32!(), "|::", groups!("5"), ls32!(), "|"),
            concat!("(?:", h16!(), ")?::", groups!("4"), ls32!(), "|"),
            concat!(before!("1"), groups!("3"), ls32!(), "|", before!("2"), groups!("2"), ls32!(), "|"),
            concat!(before!("3"), h16!(), ":", ls32!(), "|", before!("4"), ls32!(), "|"),
            concat!(before!("5"), h16!(), "|", before!("6")),
            ")"
        )
    };
}
// Inside a URL the IPv6 form stays rough: written out in each URL field it would bury the schema; the parser is exact.
macro_rules! url_host {
    () => {
        concat!("(?:", name!(), "|", ipv4!(), "|\\[[0-9A-Fa-f:.]{2,45}\\])")
    };
}
macro_rules! url_port {
    () => {
        "(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
    };
}
macro_rules! url_rest {
    () => {
        concat!(url_port!(), "(?:[/?][A-Za-z0-9._~:/?@!$&'()*+,;=%-]*)?")
    };
}
macro_rules! atom {
    () => {
        "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\u00A1-\\uFFEF-]+"
    };
}
macro_rules! date {
    () => {
        concat!(
            "(?:19|20)[0-9]{2}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|",
            "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-9]))"
        )
    };
}
macro_rules! time {
    () => {
        concat!(
            "T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?",
            "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
        )
    };
}

impl Pattern {
    /// The expression without anchors, as it stands in the schema (ECMA-262).
    pub fn expression(self) -> &'static str {
        match self {
            Line => "[^\\u0000-\\u001F\\u007F-\\u009F]+",
            Host => concat!("(?:", name!(), "|", ipv4!(), "|", ipv6!(), ")"),
            HttpsUrl => concat!("https://", url_host!(), url_rest!()),
            RedirectUrl => concat!(
                "(?:https://",
                url_host!(),
                "|http://(?:localhost|127(?:\\.",
                octet!(),
                "){3}|\\[::1\\]))",
                url_rest!()
            ),
            Email => concat!(atom!(), "(?:\\.", atom!(), ")*@", name!()),
            Sender => concat!("(?:", atom!(), "(?:\\.", atom!(), ")*@)?", name!()),
            Scope => " *[!#-\\[\\]-~]+(?: +[!#-\\[\\]-~]+)* *",
            Path => "/[^\\u0000-\\u001F\\u007F-\\u009F]+",
            EnvironmentName => "[A-Za-z_][A-Za-z0-9_]*",
            Since => concat!("(?:now|all|", date!(), "(?:", time!(), ")?)"),
            Moment => concat!(date!(), "(?:", time!(), ")?"),
            SubjectTag => "[^\\u0000-\\u001F\\u007F-\\u009F{}]+\\{id\\}[^\\u0000-\\u001F\\u007F-\\u009F{}]*",
            ParameterName => "[A-Za-z0-9_.-]+",
            Proxy => concat!("(?:off|environment|http://", url_host!(), url_port!(), "/?)"),
        }
    }

    /// The expression over the whole text; `or_empty` also lets the empty text through, which means "not set".
    pub fn anchored(self, or_empty: bool) -> String {
        let expression = self.expression();
        if or_empty { format!("^(?:{expression})?$") } else { format!("^(?:{expression})$") }
    }

    /// Longest text, characters.
    pub fn max_chars(self) -> usize {
        match self {
            HttpsUrl | RedirectUrl | Proxy => SETTING_URL_MAX,
            Scope => SETTING_SCOPE_MAX,
            Line | Path => SETTING_TEXT_MAX,
            // RFC 1035 2.3.4 and RFC 5321 4.5.3.1.3.
            Host => 253,
            Email | Sender => 254,
            EnvironmentName => 128,
            Since | Moment => 40,
            SubjectTag => 100,
            ParameterName => 64,
        }
    }

    /// What is wrong with a text, as the first half of a sentence; `None` when nothing is.
    pub fn wrong(self, text: &str) -> Option<String> {
        let max = self.max_chars();
        if text.chars().count() > max {
            return Some(format!("It is longer than {max} characters"));
        }
        if self.regex().is_some_and(|regex| regex.is_match(text)) && self.is_exact(text) {
            return None;
        }
        Some(self.diagnosis(text).to_owned())
    }

    /// The little that an expression cannot say: a day that no calendar has, a label of 64 characters, `https://[1]/`.
    fn is_exact(self, text: &str) -> bool {
        match self {
            HttpsUrl | RedirectUrl => Url::parse(text).is_ok_and(|url| url.host().is_some()),
            Proxy if text.starts_with("http://") => Url::parse(text).is_ok_and(|url| url.host().is_some()),
            Email => text.parse::<Address>().is_ok(),
            Sender => !text.contains('@') || text.parse::<Address>().is_ok(),
            Since => text == "now" || text == "all" || moment(text).is_some(),
            Moment => moment(text).is_some(),
            _ => true,
        }
    }

    fn regex(self) -> Option<&'static Regex> {
        static COMPILED: [OnceLock<Option<Regex>>; ALL.len()] = [const { OnceLock::new() }; ALL.len()];
        let slot = COMPILED.get(self as usize)?;
        slot.get_or_init(|| Regex::new(&self.anchored(false)).ok()).as_ref()
    }

    /// Words for a text that does not match. Never repeats the text: a secret may have been pasted into the wrong field.
    fn diagnosis(self, text: &str) -> &'static str {
        if text.chars().any(char::is_control) {
            return "It holds a line break or another control character";
        }
        match self {
            Line => "It is empty",
            Host if text.contains("://") || text.contains('/') => "It is a URL, not the name of a server",
            Host if text.contains('@') => "It is an email address, not the name of a server",
            Host if text.contains(char::is_whitespace) => "It holds a space",
            Host if text.matches(':').count() == 1 => "It names a port, which has a field of its own",
            Host if text.starts_with('[') => "It stands in brackets",
            Host => "It is neither the name of a server nor an IP address",
            HttpsUrl | RedirectUrl => url_diagnosis(self, text),
            Email if text.contains([',', ';']) => "It holds more than one address",
            Email if text.contains(['<', '>', '"']) => "It holds a display name",
            Email => "It is not an email address",
            Sender => "It is neither an email address nor a domain",
            Scope => "It holds a character that no scope has",
            Path => "It is not an absolute path",
            EnvironmentName => "It is not the name of an environment variable",
            Since => "It is neither \"now\" nor \"all\" nor a date",
            Moment => "It is not a date",
            SubjectTag if text.matches("{id}").count() != 1 => "It does not hold {id} exactly once",
            SubjectTag if text.starts_with("{id}") => "Nothing stands before {id}, so that any word would match",
            SubjectTag => "It holds braces other than those of {id}",
            Proxy if text.contains('@') => "It holds a user or a password, which have fields of their own",
            Proxy if text.starts_with("https://") => "It speaks to the proxy itself by TLS, which is not supported",
            Proxy => "It is neither off nor environment nor the http address of a proxy",
            ParameterName => "The name of a parameter holds a character other than letters, digits, _ . -",
        }
    }
}

/// An RFC 3339 date (its first moment in UTC) or date-time.
pub(super) fn moment(text: &str) -> Option<UnixSeconds> {
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    OffsetDateTime::parse(&whole, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

fn url_diagnosis(pattern: Pattern, text: &str) -> &'static str {
    let after_scheme = text.split_once("://").map(|(_, rest)| rest);
    let authority = after_scheme.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    match () {
        () if text.contains(['{', '}']) => "It still holds a placeholder in braces",
        () if text.contains(char::is_whitespace) => "It holds a space",
        () if text.starts_with("http://") && pattern == RedirectUrl => {
            "It is not encrypted (http), which is allowed on localhost only"
        }
        () if text.starts_with("http://") => "It is not encrypted (http)",
        () if after_scheme.is_none() || !text.starts_with("https://") => "It does not begin with https://",
        () if authority.contains('@') => "It holds a user name or a password",
        () if text.contains('#') => "It holds a fragment (#)",
        () => "It is not a valid URL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_compiles_and_has_its_own_slot() {
        for (index, pattern) in ALL.into_iter().enumerate() {
            assert_eq!(pattern as usize, index);
            assert!(pattern.regex().is_some(), "{pattern:?}");
        }
    }

    #[track_caller]
    fn check(pattern: Pattern, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(pattern.wrong(text), None, "{text}");
        }
        for text in bad {
            assert!(pattern.wrong(text).is_some(), "{text}");
        }
    }

    #[test]
    fn a_port_or_scheme_in_the_server_name_is_noticed() {
        check(
            Host,
            &["imap.example.com", "localhost", "mail_server", "192.0.2.1", "::1", "2001:db8::25", "::ffff:192.0.2.1"],
            &[
                "imaps://x.example",
                "x.example:993",
                "999.1.1.1",
                "1.2.3",
                "[::1]",
                "-x.example",
                "x..y",
                "a b",
                ":::",
                "müller.de",
            ],
        );
    }

    #[test]
    fn ipv6_expression_and_rusts_parser_agree() {
        let groups = [
            "1:2:3:4:5:6:7:8",
            "::",
            "1::",
            "::8",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7",
            "1::2::3",
            "1:2:3:4:5:6:192.0.2.1",
            "::192.0.2.256",
            "1:2:3:4:5:6:7:8:9",
            "12345::",
            "g::",
            "1:2:3:4:5:6:7:192.0.2.1",
            "1:::2",
        ];
        for text in groups {
            assert_eq!(Host.wrong(text).is_none(), text.parse::<std::net::Ipv6Addr>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_url_that_could_leak_a_code_or_a_password_is_refused() {
        check(
            HttpsUrl,
            &[
                "https://idp.example/authorize?x=1",
                "https://127.0.0.1:8443/t",
                "https://[::1]:1/t",
                "https://idp.example",
            ],
            &[
                "http://idp.example/",
                "https://u:p@idp.example/",
                "https://idp.example/#x",
                "https://idp.example:0/",
                "https://idp.example:65536/",
                "https://login.example/{tenant}/token",
                "https:///x",
                "https://a b/",
                "ftp://x/",
            ],
        );
        check(
            RedirectUrl,
            &["http://127.0.0.1:8080/cb", "http://localhost/cb", "http://[::1]:9/cb", "https://desk.example/cb"],
            &[
                "http://desk.example/cb",
                "http://localhost.example/cb",
                "http://127.0.0.1.example/",
                "http://127.0.0.1@x.example/",
            ],
        );
    }

    #[test]
    fn a_header_cannot_be_smuggled_through_an_address() {
        check(
            Email,
            &["help@example.com", "a.b+c@mail.example", "пошта@example.com"],
            &[
                "Help <help@example.com>",
                "a@b, c@d.example",
                "a@b\r\nBcc: x@y.example",
                "@example.com",
                "a..b@example.com",
                "a@",
                "a b@c.example",
            ],
        );
    }

    #[test]
    fn a_tag_that_would_match_any_subject_is_refused() {
        check(SubjectTag, &["[Request ID: ##{id}##]", "Ticket#{id}"], &["{id}", "[{id}{id}]", "[#1#]", "[{id} {x}]"]);
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        check(
            Since,
            &["now", "all", "2026-11-23", "2026-11-23T10:00:00Z", "2026-11-23T10:00:00.5+05:30"],
            &["yesterday", "2026-13-01", "2026-04-31", "2026-11-23T10:00:00", "23.11.2026", "2026-11-23T24:00:00Z"],
        );
    }
}
