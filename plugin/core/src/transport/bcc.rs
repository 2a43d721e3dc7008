//! Exchange takes the recipients from the header: those that stand only in the envelope become Bcc, which it takes out.

use super::Envelope;
use crate::message::wire;

/// `raw`, with a Bcc field before it where the envelope names more recipients than To, Cc and Bcc.
pub fn with_bcc(envelope: &Envelope, raw: &[u8]) -> Vec<u8> {
    let (fields, _) = wire::fields(raw);
    let mut named = String::new();
    for field in &fields {
        if ["to", "cc", "bcc"].iter().any(|name| field.name.eq_ignore_ascii_case(name)) {
            named.push_str(&String::from_utf8_lossy(&raw[field.range.clone()]).to_lowercase());
        }
    }
    let hidden: Vec<&str> =
        envelope.to.iter().map(AsRef::<str>::as_ref).filter(|to| !stands_in(&named, &to.to_lowercase())).collect();
    if hidden.is_empty() {
        return raw.to_vec();
    }
    let mut out = format!("Bcc: {}\r\n", hidden.join(",\r\n ")).into_bytes();
    out.extend_from_slice(raw);
    out
}

/// As a whole address, not as the end of another one.
fn stands_in(fields: &str, address: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || "@.-_+!#$%&'*/=?^`{|}~".contains(c);
    fields
        .match_indices(address)
        .any(|(at, _)| !fields[..at].ends_with(part) && !fields[at + address.len()..].starts_with(part))
}
