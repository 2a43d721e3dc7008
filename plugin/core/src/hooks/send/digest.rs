//! What a `send_message` request sends, as 256 bits: the same for the same content and envelope, whatever order its members
//! stand in, and whether an empty one is left out or not.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::Context;
use crate::{error::Result, hex::hex, settings::Sending};

/// Of the content and the envelope of a request. Secrets are none in it, but a digest of a short text can be guessed: it is
/// stored only after [`keyed`].
pub fn of_request(content: Vec<(&str, &Value)>, raw: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    let content = content.into_iter().filter(|(name, _)| !THREADING.contains(name)).collect();
    object(content, &mut digest);
    digest.update((raw.len() as u64).to_be_bytes());
    digest.update(raw);
    digest.finalize().into()
}

/// Where a message belongs, and not what it says: a reply that is tried again after the first reached the host's records
/// refers to that one, too.
const THREADING: [&str; 2] = ["in_reply_to", "references"];

/// With the sender's address and the store's own key. The name and the "Reply to" of the account are left out: whoever
/// changes them between two tries means the same message.
///
/// # Errors
/// Those of the store, until its key was read once.
pub fn keyed(context: &Context, sending: &Sending, of_request: &[u8; 32]) -> Result<String> {
    let signer = context.shared.signing.signer(&*context.store)?;
    let from: &str = sending.from.as_ref();
    Ok(hex(&signer.digest(&[b"send".as_slice(), of_request, from.to_lowercase().as_bytes()].concat())))
}

fn object(mut members: Vec<(&str, &Value)>, digest: &mut Sha256) {
    members.retain(|(_, value)| !is_nothing(value));
    members.sort_unstable_by_key(|(name, _)| *name);
    digest.update(b"{");
    for (name, member) in members {
        text(name, digest);
        value(member, digest);
    }
    digest.update(b"}");
}

fn value(of: &Value, digest: &mut Sha256) {
    match of {
        Value::Object(members) => object(members.iter().map(|(name, value)| (name.as_str(), value)).collect(), digest),
        Value::Array(list) => {
            digest.update(b"[");
            list.iter().for_each(|one| value(one, digest));
            digest.update(b"]");
        }
        Value::String(of) => text(of, digest),
        Value::Null | Value::Bool(_) | Value::Number(_) => text(&of.to_string(), digest),
    }
}

fn text(of: &str, digest: &mut Sha256) {
    digest.update(b"s");
    digest.update((of.len() as u64).to_be_bytes());
    digest.update(of.as_bytes());
}

/// As good as left out.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_message_has_the_same_digest_however_it_is_written() {
        let of = |value: Value, raw: &[u8]| {
            let members = value.as_object().unwrap();
            of_request(members.iter().map(|(name, value)| (name.as_str(), value)).collect(), raw)
        };
        let one = of(json!({"to": ["b@b.test"], "subject": "x", "cc": [], "html": null}), b"");
        assert_eq!(one, of(json!({"subject": "x", "to": ["b@b.test"]}), b""));
        for other in [
            json!({"to": ["c@b.test"], "subject": "x"}),
            json!({"to": ["b@b.test"], "subject": "y"}),
            json!({"to": ["b@b.test"], "subject": "x", "cc": ["b@b.test"]}),
            json!({"to": ["b@b.", "test"], "subject": "x"}),
        ] {
            assert_ne!(one, of(other, b""));
        }
        assert_ne!(of(json!({}), b"A: b"), of(json!({}), b"A: c"));
    }
}
