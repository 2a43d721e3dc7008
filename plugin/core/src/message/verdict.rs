//! What the receiving server found out about the sender: SPF, DKIM, DMARC and ARC from Authentication-Results (RFC 8601) of a
//! server that the settings trust, with alignment to From.

use serde::Serialize;

use super::{
    facts::Facts,
    field::{Name, Section, verbatim},
};

/// In `trusted_authserv_ids`: a server that writes no authserv-id, as Exchange Online does.
pub const NO_AUTHSERV_ID: &str = "-";

/// `pass` only when what passed belongs to the domain of From.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    /// Neither shown nor refuted.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SenderVerdict {
    pub verdict: Verdict,
    /// Who says so; `null` where the server writes none.
    pub authserv_id: Option<String>,
    /// Domain of From; `null` when From does not name exactly one.
    pub from_domain: Option<String>,
    pub results: Vec<MethodResult>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MethodResult {
    /// `spf`, `dkim`, `dmarc`, `arc`, `compauth`.
    pub method: String,
    /// As the server wrote it, lower-case: `pass`, `fail`, `softfail`, `none`, …
    pub result: String,
    /// Whom it is about: smtp.mailfrom, header.d, header.from.
    pub domain: Option<String>,
    /// That domain and the one of From belong to one organization.
    pub aligned: bool,
}

/// `None`: no trusted server says anything.
pub fn sender_verdict(raw: &[u8], facts: &Facts, trusted: &[String]) -> Option<SenderVerdict> {
    if trusted.is_empty() {
        return None;
    }
    let root = Section::read(raw, 0, |_| false);
    let from_domain = match &facts.from[..] {
        [one] => one.address.rsplit_once('@').map(|(_, domain)| domain.trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    };
    let mut authserv_id: Option<Option<String>> = None;
    let mut results = Vec::new();
    // From the top: what stands below somebody else's field, or below the hop that handed the message to the trusted server,
    // may have come with the message.
    for (name, value) in root.trace() {
        if name == Name::Received {
            if authserv_id.is_some() {
                break;
            }
            continue;
        }
        let (id, found) = results_of(&verbatim(value));
        let is_trusted = trusted.iter().any(|one| one.eq_ignore_ascii_case(id.as_deref().unwrap_or(NO_AUTHSERV_ID)));
        if !is_trusted || authserv_id.as_ref().is_some_and(|before| *before != id) {
            break;
        }
        authserv_id = Some(id);
        results.extend(found);
        if results.len() > RESULTS_MAX {
            break;
        }
    }
    let authserv_id = authserv_id?;
    for one in &mut results {
        one.aligned = matches!((&one.domain, &from_domain), (Some(domain), Some(from)) if is_aligned(domain, from));
    }
    let verdict = judged(&results, from_domain.as_deref());
    Some(SenderVerdict { verdict, authserv_id, from_domain, results })
}

/// Results that are read.
const RESULTS_MAX: usize = 50;

fn judged(results: &[MethodResult], from: Option<&str>) -> Verdict {
    let Some(from) = from else { return Verdict::Unknown };
    // RFC 7489 section 3: DMARC is SPF or DKIM, aligned. It is about From, or about nothing.
    let dmarc = results.iter().find(|one| one.method == "dmarc");
    let about_from = |one: &MethodResult| one.domain.as_deref().is_none_or(|domain| domain == from);
    match dmarc.map(|one| (one.result.as_str(), about_from(one))) {
        Some(("pass", true)) => return Verdict::Pass,
        Some(("fail", _)) => return Verdict::Fail,
        Some(("pass", false)) => return Verdict::Unknown,
        _ => {}
    }
    let aligned = |method: &str| results.iter().any(|one| one.method == method && one.result == "pass" && one.aligned);
    if aligned("dkim") || aligned("spf") {
        return Verdict::Pass;
    }
    let is_refuted = |one: &MethodResult| one.method == "spf" && one.result == "fail" && one.aligned;
    if results.iter().any(is_refuted) { Verdict::Fail } else { Verdict::Unknown }
}

/// Without a list of public suffixes: the same domain, or one below the other where the upper one is a person's or
/// organization's. Siblings are not aligned.
fn is_aligned(one: &str, other: &str) -> bool {
    let (upper, lower) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    if upper == lower {
        return true;
    }
    let is_below = lower.strip_suffix(upper).is_some_and(|rest| rest.ends_with('.'));
    is_below && !is_suffix(upper)
}

/// `com`, `co.uk`, `com.au`: nobody's own domain.
fn is_suffix(domain: &str) -> bool {
    const SECOND: [&str; 18] = [
        "co",
        "com",
        "org",
        "net",
        "ac",
        "gov",
        "edu",
        "or",
        "ne",
        "go",
        "gob",
        "ltd",
        "plc",
        "me",
        "nom",
        "mil",
        "gv",
        "onmicrosoft",
    ];
    match domain.split_once('.') {
        None => true,
        Some((second, top)) => {
            !top.contains('.') && SECOND.contains(&second) && (top.len() == 2 || second == "onmicrosoft")
        }
    }
}

/// RFC 8601 section 2.2.
fn results_of(value: &str) -> (Option<String>, Vec<MethodResult>) {
    let plain = without_comments(value);
    let mut parts = split_outside_quotes(&plain, ';');
    let first = parts.next().unwrap_or_default();
    let id = if first.contains('=') {
        None
    } else {
        first.split_whitespace().next().map(|id| id.trim_matches('"').to_ascii_lowercase())
    };
    let rest = if first.contains('=') { Some(first) } else { None };
    let mut results = Vec::new();
    for part in rest.into_iter().chain(parts) {
        let mut words = split_outside_quotes(part, ' ').map(str::trim).filter(|word| !word.is_empty());
        let Some((method, result)) = words.next().and_then(|word| word.split_once('=')) else { continue };
        let method = method.split('/').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !["spf", "dkim", "dmarc", "arc", "compauth"].contains(&method.as_str()) {
            continue;
        }
        let properties: Vec<(String, &str)> = words
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches('"')))
            .collect();
        let wanted: &[&str] = match method.as_str() {
            "spf" => &["smtp.mailfrom", "smtp.mail", "smtp.helo"],
            "dkim" => &["header.d", "header.i"],
            "dmarc" => &["header.from"],
            _ => &[],
        };
        let found =
            wanted.iter().find_map(|name| properties.iter().find(|(it, _)| it == name).map(|(_, value)| *value));
        let domain = found.map(|value| {
            value.rsplit('@').next().unwrap_or_default().trim_matches(['<', '>', '.']).to_ascii_lowercase()
        });
        let domain = domain.filter(|domain| domain.contains('.'));
        results.push(MethodResult { method, result: result.trim().to_ascii_lowercase(), domain, aligned: false });
        if results.len() >= RESULTS_MAX {
            break;
        }
    }
    (id, results)
}

fn split_outside_quotes(text: &str, by: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c: char| {
        quoted ^= c == '"';
        !quoted && (c == by || (by == ' ' && c.is_whitespace()))
    })
}

/// Comments may hold anything, also what looks like a result; quotes hide parentheses.
fn without_comments(value: &str) -> String {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let mut kept = String::with_capacity(value.len());
    for c in value.chars() {
        if escaped {
            escaped = false;
        } else {
            match c {
                '\\' if quoted || depth > 0 => escaped = true,
                '"' if depth == 0 => quoted = !quoted,
                '(' if !quoted => depth += 1,
                ')' if !quoted && depth > 0 => {
                    depth -= 1;
                    kept.push(' ');
                    continue;
                }
                _ => {}
            }
        }
        if depth == 0 {
            kept.push(c);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::parse;

    fn of(headers: &str, trusted: &[&str]) -> Option<SenderVerdict> {
        let raw = format!("{headers}\nFrom: Ann <ann@example.com>\nSubject: x\n\nbody");
        let trusted: Vec<String> = trusted.iter().map(|id| (*id).to_owned()).collect();
        sender_verdict(raw.as_bytes(), &parse(raw.as_bytes()), &trusted)
    }

    fn verdict(headers: &str, trusted: &[&str]) -> Option<Verdict> {
        of(headers, trusted).map(|found| found.verdict)
    }

    const GOOGLE: &str = "Received: by 2002:a05:0:0:0:0 with SMTP id x\nReceived: from mail.example.com by mx.google.com\n\
        Authentication-Results: mx.google.com;\n dkim=pass header.i=@example.com header.s=s header.b=x;\n \
         spf=pass (google.com: domain of a@example.com designates 192.0.2.1 as permitted sender) smtp.mailfrom=a@bounce.example.com;\n \
         dmarc=pass (p=NONE sp=NONE dis=NONE) header.from=example.com\nReceived: from laptop by mail.example.com";
    const MICROSOFT: &str = "Received: from a by b.prod.outlook.com\n\
        Authentication-Results: spf=fail (sender IP is 192.0.2.1) smtp.mailfrom=example.com; dkim=none (message not signed)\n \
         header.d=none;dmarc=fail action=quarantine header.from=example.com;compauth=fail reason=000";

    #[test]
    fn results_of_google_and_microsoft_are_read() {
        let google = of(GOOGLE, &["mx.google.com"]).unwrap();
        assert_eq!((google.verdict, google.authserv_id.as_deref()), (Verdict::Pass, Some("mx.google.com")));
        let found: Vec<_> =
            google.results.iter().map(|one| (one.method.as_str(), one.result.as_str(), one.aligned)).collect();
        assert_eq!(found, [("dkim", "pass", true), ("spf", "pass", true), ("dmarc", "pass", true)]);
        let microsoft = of(MICROSOFT, &[NO_AUTHSERV_ID]).unwrap();
        assert_eq!((microsoft.verdict, microsoft.authserv_id), (Verdict::Fail, None));
        assert_eq!(microsoft.results.len(), 4);
        assert_eq!(microsoft.results[1].domain, None);
    }

    #[test]
    fn what_an_untrusted_server_says_or_what_stands_below_counts_for_nothing() {
        let trusted = &["mx.example.net"];
        let ours = "Authentication-Results: mx.example.net; spf=none smtp.mailfrom=example.com";
        let forged = "Authentication-Results: mx.example.net; dmarc=pass header.from=example.com";
        let received = "Received: from evil by mx.example.net";
        assert_eq!(verdict(&format!("{ours}\n{received}\n{forged}"), trusted), Some(Verdict::Unknown));
        assert_eq!(verdict(&format!("{received}\n{ours}\nReceived: x\n{forged}"), trusted), Some(Verdict::Unknown));
        assert_eq!(verdict(&format!("Authentication-Results: evil.test; dmarc=pass\n{forged}"), trusted), None);
        assert_eq!(verdict(forged, &[]), None);
        assert_eq!(verdict(&forged.replace("mx.example.net", "mx.example.net.evil.test"), trusted), None);
        let comment = "Authentication-Results: mx.example.net; spf=fail (x; dmarc=pass header.from=example.com) smtp.mailfrom=example.com";
        assert_eq!(verdict(comment, trusted), Some(Verdict::Fail));
        let quoted =
            "Authentication-Results: mx.example.net; spf=none reason=\"x; dmarc=pass header.from=example.com\"";
        assert_eq!(verdict(quoted, trusted), Some(Verdict::Unknown));
    }

    #[test]
    fn what_passed_must_belong_to_the_domain_of_from() {
        let trusted = &["mx.example.net"];
        for (results, expected) in [
            ("dkim=pass header.d=example.com", Verdict::Pass),
            ("dkim=pass header.d=mail.example.com", Verdict::Pass),
            ("dkim=pass header.d=example.com.evil.test", Verdict::Unknown),
            ("dkim=pass header.d=notexample.com", Verdict::Unknown),
            ("dkim=pass header.d=com", Verdict::Unknown),
            ("spf=pass smtp.mailfrom=bounce@other.test", Verdict::Unknown),
            ("spf=pass smtp.mailfrom=\"a;b\"@example.com", Verdict::Pass),
            ("dmarc=pass header.from=other.test", Verdict::Unknown),
            ("dmarc=fail header.from=example.com; dkim=pass header.d=example.com", Verdict::Fail),
            ("none", Verdict::Unknown),
        ] {
            let header = format!("Authentication-Results: mx.example.net 1; {results}");
            assert_eq!(verdict(&header, trusted), Some(expected), "{results}");
        }
        assert!(!is_aligned("co.uk", "example.co.uk") && !is_aligned("evil.onmicrosoft.com", "onmicrosoft.com"));
    }
}
