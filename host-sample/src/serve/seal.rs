//! Sealing: what the database shows of a settings document is its place and its length.
//!
//! `nonce (24) | ciphertext | tag (16)`, XChaCha20-Poly1305. The key is derived from the key file, which the library's
//! store uses, too. The associated data name the place, so that a document that was copied elsewhere does not open.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, Result},
    host,
};

const NONCE_BYTES: usize = 24;
/// Another key than the library's, though from the same file.
const PURPOSE: &[u8] = b"oauth-mail host-sample settings 1\0";

#[derive(Clone)]
pub struct Seal(XChaCha20Poly1305);

impl Seal {
    /// From a key file: 32 bytes as base64, as the library reads it, too. Made first where there is none, mode 0600.
    pub fn from_file(path: &Path) -> Result<Self> {
        host::create_key(path)?;
        let failed = |why: String| Failure::settings(format!("The key file {} cannot be used: {why}.", path.display()));
        let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| failed(error.to_string()))?);
        let key = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| failed("it is no base64".into()))?);
        if key.len() != host::KEY_BYTES {
            return Err(failed(format!("it holds {} bytes instead of {}", key.len(), host::KEY_BYTES)));
        }
        Ok(Self::from_key(&key))
    }

    fn from_key(key: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(PURPOSE);
        digest.update(key);
        Self(XChaCha20Poly1305::new(&digest.finalize()))
    }

    pub fn seal(&self, place: &str, text: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| Failure::other(format!("No random bytes can be had: {error}.")))?;
        let sealed = self
            .0
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: text, aad: place.as_bytes() })
            .map_err(|_| Failure::other("A document could not be sealed."))?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let failed = || {
            Failure::settings(format!(
                "{place} of the database does not open with this key. Name the key file with which it was written: \
                 --key-file."
            ))
        };
        let (nonce, rest) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(failed)?;
        let text = self.0.decrypt(XNonce::from_slice(nonce), Payload { msg: rest, aad: place.as_bytes() });
        text.map(Zeroizing::new).map_err(|_| failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_opens_in_its_place_with_its_key_only() {
        let seal = Seal::from_key(&[7; 32]);
        let sealed = seal.seal("mailbox 1 incoming", b"{\"client_secret\":\"hunter2\"}").unwrap();
        assert!(!sealed.windows(7).any(|bytes| bytes == b"hunter2"));
        assert_eq!(&seal.open("mailbox 1 incoming", &sealed).unwrap()[..], b"{\"client_secret\":\"hunter2\"}");
        assert!(seal.open("mailbox 2 incoming", &sealed).is_err(), "copied to another mailbox");
        assert!(Seal::from_key(&[8; 32]).open("mailbox 1 incoming", &sealed).is_err(), "another key");
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(seal.open("mailbox 1 incoming", &damaged).is_err(), "byte {at}");
        }
        assert!(seal.open("mailbox 1 incoming", &sealed[..10]).is_err());
        assert_ne!(seal.seal("x", b"same").unwrap(), seal.seal("x", b"same").unwrap());
    }

    #[test]
    fn the_key_file_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.key");
        let sealed = Seal::from_file(&path).unwrap().seal("x", b"y").unwrap();
        assert_eq!(&Seal::from_file(&path).unwrap().open("x", &sealed).unwrap()[..], b"y");
        fs::write(&path, "c2hvcnQ=\n").unwrap();
        assert!(Seal::from_file(&path).err().unwrap().sentences()[0].contains("5 bytes"));
    }
}
