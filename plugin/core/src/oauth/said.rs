//! What an authorization server says when it refuses, in whatever shape: RFC 6749 5.2, and what real servers write in
//! its place. Only reads; answer.rs judges.

use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::{net::http::HttpAnswer, remedies};

/// Members that hold a code, most particular first.
const CODES: [&str; 9] =
    ["error", "errorCode", "error_code", "errorcode", "faultcode", "code", "status", "reason", "type"];
/// Members that hold a sentence.
const WORDS: [&str; 14] = [
    "error_description",
    "errorDescription",
    "errorSummary",
    "error_summary",
    "errorMessage",
    "error_message",
    "message",
    "msg",
    "detail",
    "description",
    "faultstring",
    "title",
    "reason",
    "error",
];
/// Members that hold an object with these, or a list of such objects.
const NESTS: [&str; 6] = ["error", "errors", "fault", "Fault", "detail", "response"];
const DEPTH: usize = 4;
/// Of a page or a text, characters: enough for its first sentence.
const TEXT_MAX: usize = 300;

#[derive(Debug, Default)]
pub(super) struct Said {
    pub code: Option<String>,
    pub description: Option<String>,
    /// Microsoft's `error_codes`.
    pub numbers: Vec<u32>,
    /// Microsoft's `suberror`, Google's `error_subtype`.
    pub details: Vec<String>,
    /// Name and value.
    pub ids: Vec<(&'static str, String)>,
    /// It is a JSON object, as all good answers are.
    pub is_object: bool,
    /// There is nothing in the body.
    pub is_silent: bool,
}

impl Said {
    pub fn read(answer: &HttpAnswer) -> Self {
        let body = String::from_utf8_lossy(&answer.body);
        let body = body.trim_start_matches('\u{feff}').trim();
        if body.is_empty() {
            return Self { is_silent: true, ..Self::default() };
        }
        match serde_json::from_str(body) {
            Ok(Value::Object(map)) => Self::of_object(&map, answer.is_success()),
            Ok(Value::Array(list)) => match list.first() {
                Some(Value::Object(map)) => Self { is_object: false, ..Self::of_object(map, answer.is_success()) },
                _ => Self::default(),
            },
            Ok(Value::String(text)) => Self { description: bounded(&text), ..Self::default() },
            Ok(_) => Self::default(),
            Err(_) => Self::of_text(body),
        }
    }

    fn of_object(map: &Map<String, Value>, is_success: bool) -> Self {
        // A good answer may have members of these names too; only what is named an error counts there.
        let code = match (is_success, map.get("access_token").and_then(Value::as_str)) {
            (true, Some(_)) => named(map, &CODES[..1]),
            (true, None) => find(map, &CODES[..4], 0),
            (false, _) => find(map, &CODES, 0),
        };
        // A type of problem is an address (RFC 9457 3.1.1), not a code.
        let code = code.filter(|code| !["http", "about:", "urn:"].iter().any(|start| code.starts_with(start)));
        let description = find(map, &WORDS, 0).filter(|text| Some(text) != code.as_ref());
        Self {
            description,
            numbers: numbers(map.get("error_codes")),
            details: ["suberror", "error_subtype"].into_iter().filter_map(|name| named(map, &[name])).collect(),
            ids: ["trace_id", "correlation_id", "request_id", "errorId", "timestamp"]
                .into_iter()
                .filter_map(|name| Some((name, named(map, &[name])?)))
                .collect(),
            code,
            is_object: true,
            is_silent: false,
        }
    }

    fn of_text(body: &str) -> Self {
        if body.starts_with("error=") || body.contains("&error=") {
            let field = |wanted: &str| {
                let mut pairs = form_urlencoded::parse(body.as_bytes());
                pairs.find_map(|(name, value)| (name == wanted && !value.is_empty()).then(|| value.into_owned()))
            };
            return Self { code: field("error"), description: field("error_description"), ..Self::default() };
        }
        if !body.starts_with('<') {
            return Self { description: bounded(body), ..Self::default() };
        }
        let is_page = body.get(..200).unwrap_or(body).to_ascii_lowercase().contains("<html");
        match roxmltree::Document::parse(body) {
            Ok(document) if !is_page => Self::of_xml(&document),
            _ => Self { description: page_words(body), ..Self::default() },
        }
    }

    fn of_xml(document: &roxmltree::Document<'_>) -> Self {
        let find = |names: &[&str]| {
            names.iter().find_map(|name| {
                let mut nodes = document
                    .descendants()
                    .filter(|node| node.is_element() && node.tag_name().name().eq_ignore_ascii_case(name));
                nodes.find_map(|node| node.text().map(str::trim).filter(|text| !text.is_empty()).and_then(bounded))
            })
        };
        Self { code: find(&CODES), description: find(&WORDS[..12]), ..Self::default() }
    }
}

/// The first of `names` that is a text, here or in what is nested here.
fn find(map: &Map<String, Value>, names: &[&str], depth: usize) -> Option<String> {
    if depth > DEPTH {
        return None;
    }
    // An object in the place of the code holds the particulars.
    let nested = || {
        NESTS.iter().find_map(|nest| match map.get(*nest)? {
            Value::Object(inner) => find(inner, names, depth + 1),
            Value::Array(list) => match list.first()? {
                Value::Object(inner) => find(inner, names, depth + 1),
                Value::String(text) => bounded(text),
                _ => None,
            },
            _ => None,
        })
    };
    named(map, names).or_else(nested)
}

fn named(map: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| map.get(*name)?.as_str().and_then(bounded))
}

fn bounded(text: &str) -> Option<String> {
    let text: String = text.trim().chars().take(2 * TEXT_MAX).collect();
    (!text.is_empty()).then_some(text)
}

/// However they are written: they only improve the wording.
fn numbers(value: Option<&Value>) -> Vec<u32> {
    let list = match value {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())?.try_into().ok();
    list.iter().filter_map(number).collect()
}

/// Title and first heading: a proxy's or a portal's page says there what it is.
fn page_words(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let element = |name: &str| {
        let start = lower.find(&format!("<{name}"))?;
        let open = start + lower[start..].find('>')? + 1;
        let close = open + lower[open..].find(&format!("</{name}"))?;
        let text = page.get(open..close)?.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
        let text = text.replace("&quot;", "\"").replace("&#39;", "'").replace("&nbsp;", " ");
        let words: Vec<_> = text.split_whitespace().collect();
        (!words.is_empty()).then(|| words.join(" ").chars().take(TEXT_MAX).collect::<String>())
    };
    match (element("title"), element("h1")) {
        (Some(title), Some(heading)) if title != heading => Some(format!("{title}: {heading}")),
        (title, heading) => title.or(heading),
    }
}

/// What a code means, judged by its words: `INVALID_REFRESH_TOKEN`, `TokenExpired` and `invalid-grant` are one thing. The
/// code itself when nothing is recognised.
pub(super) fn meaning(code: &str) -> String {
    let words = words_of(code);
    let has = |any: &[&str]| words.iter().any(|word| any.contains(&word.as_str()));
    let plain = words.join("_");
    if remedies::knows(&plain) {
        return plain;
    }
    // Of a device code, too, it says "expired", which has a sentence of its own.
    if has(&["expired"]) && has(&["code", "token"]) && !has(&["refresh"]) {
        return "expired_token".to_owned();
    }
    const NO_GOOD: [&str; 18] = [
        "invalid",
        "expired",
        "revoked",
        "unknown",
        "bad",
        "incorrect",
        "inactive",
        "used",
        "reused",
        "malformed",
        "wrong",
        "mismatch",
        "disabled",
        "deleted",
        "notfound",
        "missing",
        "rejected",
        "terminated",
    ];
    let is_no_good = has(&NO_GOOD) || (has(&["not"]) && has(&["found", "active", "valid", "recognized", "known"]));
    // These have another meaning with the same words.
    let is_other = has(&["scope", "request", "redirect", "uri", "type", "csrf", "nonce", "user", "resource", "target"]);
    if !is_no_good || is_other {
        return code.to_owned();
    }
    if has(&["client"]) {
        return "invalid_client".to_owned();
    }
    match has(&["token", "grant", "code", "session", "credentials", "authorization"]) && !has(&["assertion"]) {
        true => "invalid_grant".to_owned(),
        false => code.to_owned(),
    }
}

/// Does a sentence say of the refresh token, or of the grant it stands for, that it is no good? Evidence of the protocol,
/// like the code: many servers have nothing else.
pub(super) fn speaks_of_a_dead_grant(sentence: &str) -> bool {
    let sentence = sentence.to_lowercase();
    let names = |any: &[&str]| any.iter().any(|text| sentence.contains(text));
    names(&["token", "grant", "session", "sign-in", "consent", "authorization"])
        && names(&[
            "expired",
            "revoked",
            "invalid",
            "unknown",
            "not found",
            "no longer",
            "not valid",
            "not active",
            "inactive",
            "does not exist",
            "already used",
            "been used",
            "malformed",
        ])
        && !names(&["client_id", "client secret", "client_secret", "client auth", "client credential", "redirect"])
}

/// In lower case; `TokenExpired` is two words.
fn words_of(code: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in code.chars().take(100) {
        if !c.is_alphanumeric() || (was_lower && c.is_uppercase()) {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().into_iter().for_each(|word| word.extend(c.to_lowercase()));
        }
        was_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}
