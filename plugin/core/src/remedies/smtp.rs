//! How a row is found by an SMTP reply: basic code, enhanced code, words.

use serde::Deserialize;

/// All that is named must fit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SmtpMatch {
    /// The enhanced status code (RFC 3463), as `5.7.139`.
    pub(super) code: Option<String>,
    /// A vendor's own text.
    pub(super) text: Option<String>,
    /// Words of no vendor in particular: one of each list must stand in it. They count only where no enhanced code says
    /// something else: [`Enhanced::is_plain`].
    #[serde(default)]
    pub(super) words: Vec<Vec<String>>,
}

impl SmtpMatch {
    /// `reply`: basic code and text, in lower case.
    pub(super) fn fits(&self, reply: &str) -> bool {
        let has = |text: &String| reply.contains(&text.to_ascii_lowercase());
        self.code.as_ref().is_none_or(|code| tokens(reply).any(|word| word == code))
            && self.text.as_ref().is_none_or(has)
            && (self.words.is_empty()
                || Enhanced::of(reply).is_none_or(Enhanced::is_plain)
                    && self.words.iter().all(|any| any.iter().any(has)))
    }
}

/// An enhanced status code without its class, which repeats the basic code's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced {
    pub subject: u16,
    pub detail: u16,
}

impl Enhanced {
    /// The first in a reply, also as `#5.1.0` or `(5.1.0)`.
    pub fn of(reply: &str) -> Option<Self> {
        tokens(reply).find_map(|word| {
            let mut parts = word.split('.');
            let (Some(class @ ("2" | "4" | "5")), Some(subject), Some(detail), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return None;
            };
            let number = |text: &str| text.parse().ok().filter(|_| text.len() <= 3);
            // The class is that of the basic code; an address or a version that looks like a code seldom has it.
            let of_class = reply.starts_with(class);
            Some(Self { subject: number(subject)?, detail: number(detail)? }).filter(|_| of_class)
        })
    }

    /// Says nothing of the recipient, the mailbox or the size, so that words may say more.
    fn is_plain(self) -> bool {
        self.detail == 0 || !matches!((self.subject, self.detail), (1, _) | (2, 1..=3) | (3, 4))
    }
}

fn tokens(reply: &str) -> impl Iterator<Item = &str> {
    let between = |c: char| c.is_ascii_whitespace() || matches!(c, '-' | '#' | '(' | ')' | '[' | ']' | ':' | ';' | ',');
    reply.split(between).map(|word| word.trim_end_matches('.')).filter(|word| !word.is_empty())
}
