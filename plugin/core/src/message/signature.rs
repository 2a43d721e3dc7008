//! Message-IDs that prove themselves: what a reply refers to is ours only when we can have written it.
//!
//! ```text
//! <om2.RANDOM.REQUEST.TAG@domain>      RANDOM  80 bits, base32
//!                                      REQUEST the host's id of the request, or `-`
//!                                      TAG     the first 80 bits of HMAC-SHA-256 over what stands before it, base32
//! ```
//! Base32, because Python's email package writes an id of 78 characters and more as encoded words, until cpython PR 137201
//! is everywhere. Ids of before (`om1`, 96 bits and the tag in hex) are still known.
//!
//! Whoever answers such a message sends its Message-ID back in In-Reply-To and References (RFC 5322 section 3.6.4), and the
//! request with it. Who never got it cannot make one up: a foreigner has one chance in 2^80 per message, and a tag that is
//! wrong is told as forged. The domain is left out of the tag, because relays rewrite it; letter case does not count,
//! because some mailers change it.

use data_encoding::BASE32_NOPAD;
use lettre::Address;
use ring::hmac;

use super::address::parse_address;
use crate::{
    error::{Error, Kind, Result},
    hex,
    secret::Secret,
};

const NO_REQUEST: &str = "-";
const RANDOM_BYTES: usize = 10;
const TAG_BYTES: usize = 10;

/// How an id is written.
struct Form {
    mark: &'static str,
    /// Characters.
    random: usize,
    write: fn(&[u8]) -> String,
}

const NOW: Form = Form { mark: "om2", random: RANDOM_BYTES * 8 / 5, write: base32 };
const BEFORE: Form = Form { mark: "om1", random: 24, write: hex::hex };

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}
/// Longest id of a request that goes into a Message-ID, bytes.
pub const REQUEST_MAX: usize = 64;

pub struct Signer(hmac::Key);

/// Whose Message-ID it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Ours; with the request that it belongs to, as `send_message` was told.
    Ours {
        request_id: Option<String>,
    },
    /// It has our form and was not made with our key.
    Forged,
    Foreign,
}

impl Signer {
    /// # Errors
    /// `Internal` for a key that is no 256 bits in hex: the record was damaged.
    pub fn new(key: &Secret) -> Result<Self> {
        let bytes = key.expose().as_bytes();
        if bytes.len() != 2 * hmac::HMAC_SHA256.digest_algorithm().output_len() {
            return Err(Error::new(Kind::Internal, "The key that signs Message-IDs is damaged."));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// A fresh key, in hex.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub fn fresh_key() -> Result<Secret> {
        hex::random::<{ ring::digest::SHA256_OUTPUT_LEN }>().map(Secret::new)
    }

    /// A new Message-ID with its angle brackets, at the domain of `from`.
    ///
    /// # Errors
    /// `Misuse` for a request id that is empty, longer than [`REQUEST_MAX`], or not made of ASCII letters, digits, `-` and
    /// `_`, and when `from` cannot be used; `Internal` when the system has no randomness.
    pub fn message_id(&self, from: &Address, request_id: Option<&str>) -> Result<String> {
        if let Some(id) = request_id.filter(|id| !is_request_id(id)) {
            let message = format!("`request_id` has {} characters that cannot stand in a Message-ID.", id.len());
            return Err(Error::new(Kind::Misuse, message)
                .remedy(format!("Use 1 to {REQUEST_MAX} ASCII letters, digits, - and _.")));
        }
        let random = (NOW.write)(&hex::random_bytes::<RANDOM_BYTES>()?);
        let signed = format!("{}.{random}.{}", NOW.mark, request_id.unwrap_or(NO_REQUEST));
        let tag = self.tag(&signed, &NOW);
        Ok(format!("<{signed}.{tag}@{}>", parse_address(from.as_ref())?.domain()))
    }

    /// `id` with or without its angle brackets.
    pub fn origin(&self, id: &str) -> Origin {
        let id = id.trim().trim_start_matches('<').trim_end_matches('>');
        let Some((local, _)) = id.rsplit_once('@') else { return Origin::Foreign };
        let Some((signed, tag)) = local.rsplit_once('.') else { return Origin::Foreign };
        let parts: Vec<&str> = signed.split('.').collect();
        let [mark, random, request] = parts[..] else { return Origin::Foreign };
        let Some(form) = [NOW, BEFORE].into_iter().find(|form| mark.eq_ignore_ascii_case(form.mark)) else {
            return Origin::Foreign;
        };
        let expected = self.tag(signed, &form);
        if random.len() != form.random || tag.len() != expected.len() {
            return Origin::Foreign;
        }
        // Compared whole and in constant time, although nobody can measure it over mail.
        let differs = expected.bytes().zip(tag.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b.to_ascii_lowercase()));
        match differs {
            0 if request == NO_REQUEST => Origin::Ours { request_id: None },
            0 => Origin::Ours { request_id: Some(request.to_owned()) },
            _ => Origin::Forged,
        }
    }

    /// Of something else than a Message-ID, so that no one can be taken for the other.
    pub fn digest(&self, what: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"digest\0");
        context.update(what);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn tag(&self, signed: &str, form: &Form) -> String {
        (form.write)(&hmac::sign(&self.0, signed.to_ascii_lowercase().as_bytes()).as_ref()[..TAG_BYTES])
    }
}

fn is_request_id(id: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=REQUEST_MAX).contains(&id.len()) && id != NO_REQUEST && id.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new(&Signer::fresh_key().unwrap()).unwrap()
    }

    fn from() -> Address {
        "desk@example.test".parse().unwrap()
    }

    #[test]
    fn an_id_proves_its_request_whoever_relayed_it() {
        let signer = signer();
        let id = signer.message_id(&from(), Some("INC-4711")).unwrap();
        assert!(id.starts_with("<om2.") && id.ends_with("@example.test>"), "{id}");
        let ours = Origin::Ours { request_id: Some("INC-4711".into()) };
        assert_eq!(signer.origin(&id), ours);
        assert_eq!(signer.origin(&id.replace("example.test", "relay.invalid")), ours);
        let lower = Origin::Ours { request_id: Some("inc-4711".into()) };
        assert_eq!(signer.origin(&id.to_ascii_lowercase()), lower);
        let plain = signer.message_id(&from(), None).unwrap();
        assert_eq!(signer.origin(&plain), Origin::Ours { request_id: None });
        assert_ne!(plain, signer.message_id(&from(), None).unwrap());
    }

    /// content.md 17 and 1: Python writes an id of 78 characters as encoded words.
    #[test]
    fn content_17_ids_are_short_and_those_of_before_are_known() {
        let signer = signer();
        let from: Address = "helpdesk@support.corporation.test".parse().unwrap();
        let id = signer.message_id(&from, Some("INC-4711")).unwrap();
        assert!(id.len() < 78, "{} {id}", id.len());
        let signed = "om1.c7dc51c3ff715b78e260ff5d.REQUEST-1";
        let before = format!("<{signed}.{}@a.test>", signer.tag(signed, &BEFORE));
        assert_eq!(before.len(), 1 + signed.len() + 1 + 20 + "@a.test>".len());
        assert_eq!(signer.origin(&before), Origin::Ours { request_id: Some("REQUEST-1".into()) });
        assert_eq!(signer.origin(&before.replace("REQUEST-1", "REQUEST-2")), Origin::Forged);
    }

    #[test]
    fn every_change_of_an_id_is_a_forgery() {
        let signer = signer();
        let id = signer.message_id(&from(), Some("7")).unwrap();
        let local = id.trim_start_matches('<').split('@').next().unwrap().to_owned();
        for at in 0..local.len() {
            let mut changed = local.clone().into_bytes();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            let changed = format!("<{}@example.test>", String::from_utf8(changed).unwrap());
            assert!(!matches!(signer.origin(&changed), Origin::Ours { .. }), "{changed}");
        }
        assert_eq!(signer.origin(&id.replace(".7.", ".8.")), Origin::Forged);
        assert_eq!(super::tests::signer().origin(&id), Origin::Forged, "another installation's key");
        for foreign in ["<a@b>", "<om1.x.y.z@b>", "<om2.x.y.z@b>", "", "om1", "<CAF=1.2.3.4@mail.gmail.com>"] {
            assert_eq!(signer.origin(foreign), Origin::Foreign, "{foreign}");
        }
    }

    #[test]
    fn a_request_id_that_would_break_the_field_is_refused() {
        for id in ["", "-", "a b", "a.b", "a@b", "a\r\nBcc: x", "ä", &"x".repeat(65)] {
            assert_eq!(signer().message_id(&from(), Some(id)).unwrap_err().kind(), Kind::Misuse, "{id:?}");
        }
    }
}
