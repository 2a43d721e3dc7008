//! What providers' refusals mean and who must act: a table, `remedies.json`, and its lookup.
//!
//! What is done depends on the standard's `error` and on nothing else; numbers and descriptions only choose the
//! sentence (Microsoft asks for that in its reference of error codes). The `kind` of a row that is found by a number
//! says who usually must act; between settings and administrator it decides which of the two. An unknown code keeps the
//! general sentence of its `error`, and the code itself is always passed on verbatim.
//!
//! Sources: Microsoft Entra reference-error-codes; Google OAuth 2.0 and Gmail API error pages; Exchange Online SMTP and
//! limits pages; EWS ResponseCode; Microsoft Graph errors; RFC 6749 5.2, 8628 3.5, 5530.

pub mod ews_codes;
mod smtp;

use std::{sync::LazyLock, time::Duration};

use serde::Deserialize;

use self::smtp::SmtpMatch;
use crate::error::{Error, Kind, Who};

pub use self::smtp::Enhanced;

/// What one row says.
#[derive(Clone, Copy, Debug)]
pub struct Remedy {
    row: &'static Row,
    /// What the row was found by, for its link.
    code: Option<u32>,
}

impl Remedy {
    pub fn kind(self) -> Kind {
        self.row.kind
    }

    pub fn who(self) -> Who {
        self.row.who
    }

    /// What to do, with who does it; one sentence.
    pub fn sentence(self) -> &'static str {
        &self.row.sentence
    }

    /// What happened, said of `host`; `None`: that stands in the row of the `error` that came with it.
    pub fn what(self, host: &str) -> Option<String> {
        self.row.what.as_ref().map(|what| what.replace("{host}", host))
    }

    /// Pointer and label of the field of the form that is wrong.
    pub fn field(self) -> Option<(&'static str, &'static str)> {
        Some(match self.row.field? {
            Field::ClientId => ("/client_id", "Client ID"),
            Field::ClientSecret => ("/client_secret", "Client Secret"),
            Field::ClientCertificate => ("/advanced/client_certificate", "Client Certificate"),
            Field::AccessTokenUrl => ("/access_token_url", "Access Token URL"),
            Field::Scope => ("/scope", "Scope"),
            Field::RedirectUrl => ("/redirect_url", "Redirect URL"),
        })
    }

    /// Where the vendor says more.
    pub fn link(self) -> Option<String> {
        let link = self.row.link.as_ref()?;
        Some(match self.code {
            Some(code) => link.replace("{code}", &code.to_string()),
            None => link.clone(),
        })
    }

    /// Does the administrator act on the page where one consents for the organisation?
    pub fn needs_admin_consent(self) -> bool {
        self.row.admin_consent
    }

    /// An error of this kind, with this advice.
    pub fn error(self, message: impl Into<String>) -> Error {
        let mut error = Error::new(self.kind(), message).remedy(self.sentence()).who(self.who());
        if let Some(link) = self.link() {
            error = error.link(link);
        }
        if self.row.admin_consent {
            error = error.admin_consent();
        }
        match self.row.wait_seconds {
            Some(wait) => error.retry_after(Duration::from_secs(wait)),
            None => error,
        }
    }
}

/// By the `error` of an authorization server, whatever it is. `of_code`: the request redeemed an authorization code.
pub fn by_error(error: &str, of_code: bool) -> Option<Remedy> {
    let special = if of_code { find(|by| matches!(by, Match::ErrorOfCode(list) if has(list, error))) } else { None };
    let named = |error: &str| find(|by| matches!(by, Match::Error(list) if has(list, error)));
    special.or_else(|| named(error)).or_else(|| named("*"))
}

/// Does a row name this `error`?
pub fn knows(error: &str) -> bool {
    find(|by| matches!(by, Match::Error(list) | Match::ErrorOfCode(list) if has(list, error))).is_some()
}

/// By Microsoft's `suberror` or Google's `error_subtype`.
pub fn by_suberror(suberror: &str) -> Option<Remedy> {
    find(|by| matches!(by, Match::Suberror(list) if has(list, suberror)))
}

/// By Microsoft's number.
pub fn by_aadsts(number: u32) -> Option<Remedy> {
    find(|by| matches!(by, Match::Aadsts(list) if list.contains(&number)))
        .map(|remedy| Remedy { code: Some(number), ..remedy })
}

/// By the text of an SMTP reply, its enhanced status code included (RFC 2034). The first row whose parts all stand in it.
pub fn by_smtp(reply: &str) -> Option<Remedy> {
    let reply = reply.to_ascii_lowercase();
    find(|by| matches!(by, Match::Smtp(by) if by.fits(&reply)))
}

/// By the words of an IMAP status response.
pub fn by_imap(words: &str) -> Option<Remedy> {
    let words = words.to_ascii_uppercase();
    find(|by| matches!(by, Match::Imap(list) if list.iter().any(|text| words.contains(text.as_str()))))
}

/// By an EWS ResponseCode, or `HTTP 403` where there is none.
pub fn by_ews(code: &str) -> Option<Remedy> {
    find(|by| matches!(by, Match::Ews(list) if has(list, code)))
}

/// By the `code` of a Microsoft Graph error, or `HTTP 413`.
pub fn by_graph(code: &str) -> Option<Remedy> {
    find(|by| matches!(by, Match::Graph(list) if has(list, code)))
}

/// By the `reason` of a Gmail API error, or `HTTP 429`.
pub fn by_gmail(reason: &str) -> Option<Remedy> {
    find(|by| matches!(by, Match::Gmail(list) if has(list, reason)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// For whoever reads the table.
    #[serde(rename = "provider")]
    _provider: String,
    #[serde(rename = "match")]
    by: Match,
    kind: Kind,
    who: Who,
    field: Option<Field>,
    what: Option<String>,
    sentence: String,
    link: Option<String>,
    /// The administrator's link of these settings belongs to the remedy.
    #[serde(default)]
    admin_consent: bool,
    /// When it is worth another try: how long the limit lasts that was met, seconds.
    wait_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Match {
    Error(Vec<String>),
    /// Only of a request that redeemed an authorization code.
    ErrorOfCode(Vec<String>),
    Suberror(Vec<String>),
    Aadsts(Vec<u32>),
    Smtp(SmtpMatch),
    Imap(Vec<String>),
    Ews(Vec<String>),
    Graph(Vec<String>),
    Gmail(Vec<String>),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Field {
    ClientId,
    ClientSecret,
    ClientCertificate,
    AccessTokenUrl,
    Scope,
    RedirectUrl,
}

/// Read once. A table that cannot be read is empty, and the first test fails.
static ROWS: LazyLock<Vec<Row>> =
    LazyLock::new(|| serde_json::from_str(include_str!("remedies.json")).unwrap_or_default());

fn find(fits: impl Fn(&Match) -> bool) -> Option<Remedy> {
    ROWS.iter().find(|row| fits(&row.by)).map(|row| Remedy { row, code: None })
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == wanted)
}

#[cfg(test)]
mod tests;
