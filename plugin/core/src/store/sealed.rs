//! Sealing: what the database file shows of a record is its place and its length, nothing else.
//!
//! A sealed record is `format (1 byte) | nonce (24) | ciphertext | tag (16)`, XChaCha20-Poly1305 under the store's
//! key. The associated data name format, table, id and version, so that a record that was copied to another place, or
//! an older one put back under a newer version, does not open. Not detected: a whole row, or a whole file, restored
//! from an older backup; nothing inside the file could tell.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    path::Path,
};

use base64::{Engine, engine::general_purpose};
use chacha20poly1305::{AeadInPlace, KeyInit, XChaCha20Poly1305, XNonce};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    error::{Error, Fault, Kind, Result},
    limits, machine,
};

const KEY_LEN: usize = 32;
const FORMAT: u8 = 1;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// The key of a store, and the keys that came before it. No `Debug`, no way back to the bytes; wiped when dropped.
#[derive(Clone)]
pub struct SealingKey {
    key: KeyBytes,
    /// Open what they sealed; seal nothing any more.
    previous: Vec<KeyBytes>,
}

type KeyBytes = Zeroizing<[u8; KEY_LEN]>;

/// Where a record stands; part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub table: &'a str,
    pub id: &'a str,
    pub version: u64,
}

/// Where each store keeps a known text, sealed: it tells a wrong key from a damaged record.
pub(super) const KEY_CHECK: Place<'static> = Place { table: "meta", id: "key_check", version: 0 };
const KEY_CHECK_TEXT: &[u8] = b"this store opens with this key";

/// Why a record did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Shorter than nonce and tag.
    Truncated,
    /// Written by a version of this library that this one does not know.
    UnknownFormat(u8),
    /// The tag does not fit: damaged, moved here from another place, an older version, or another key.
    Rejected,
}

impl SealingKey {
    /// The key as the plugin configuration names it, exactly one of:
    /// - `{"file": PATH}`: 32 raw bytes, or their base64 or hex text; on Unix readable by the owner only;
    /// - `{"env": NAME}`: base64 (or hex) in an environment variable;
    /// - `{"value": TEXT}`: base64 (or hex), for hosts that keep keys themselves.
    ///
    /// # Errors
    /// `Settings`, with the command that cures it where there is one.
    pub fn from_config(config: &Value) -> Result<Self> {
        let Some(object) = config.as_object() else {
            return Err(wrong("The store's key must be an object.")
                .remedy(r#"Write {"file": "PATH"}, {"env": "NAME"} or {"value": "BASE64"}."#));
        };
        let mut entries = object.iter();
        match (entries.next().map(|(name, value)| (name.as_str(), value.as_str())), entries.next()) {
            (Some(("file", Some(path))), None) => Self::from_file(Path::new(path)),
            (Some(("env", Some(name))), None) => Self::from_env(name),
            (Some(("value", Some(text))), None) => {
                Self::from_text(text).ok_or_else(|| wrong("The store's key value is not 32 bytes in base64."))
            }
            _ => Err(wrong("The store's key must name exactly one source, as a text.")
                .remedy(r#"Write {"file": "PATH"}, {"env": "NAME"} or {"value": "BASE64"}."#)),
        }
    }

    /// Reads the key file, and creates it first (random key, mode 0600, durable) when there is none. Of any number of
    /// processes that do so at once, one key wins and all get it.
    ///
    /// # Errors
    /// `Settings` when the file cannot be created or is not a proper key file; `Internal` without random numbers.
    pub fn generate_file(path: &Path) -> Result<Self> {
        match path.try_exists() {
            Ok(true) => return Self::from_file(path),
            Ok(false) => {}
            Err(error) => return Err(cannot_create(path, error)),
        }
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random(&mut key[..])?;
        let mut text = Zeroizing::new(general_purpose::STANDARD.encode(&key[..]));
        text.push('\n');
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // tempfile creates with 0600; linking it into place makes a half-written key impossible.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| cannot_create(path, error))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.as_file().sync_all())
            .map_err(|error| cannot_create(path, error))?;
        match file.persist_noclobber(path) {
            Ok(_) => {
                #[cfg(unix)]
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| cannot_create(path, error))?;
            }
            Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => {}
            Err(refused) => return Err(cannot_create(path, refused.error)),
        }
        Self::from_file(path)
    }

    /// A key that lives only in this process: for `sqlite::memory:`.
    ///
    /// # Errors
    /// `Internal` when the system has no random numbers.
    pub fn generate() -> Result<Self> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random(&mut key[..])?;
        Ok(Self::of(key))
    }

    /// Also opens what `previous` sealed. What is written from now on is sealed with this key only.
    pub fn with_previous(mut self, previous: impl IntoIterator<Item = Self>) -> Self {
        for older in previous {
            self.previous.push(older.key);
            self.previous.extend(older.previous);
        }
        self
    }

    pub fn has_previous(&self) -> bool {
        !self.previous.is_empty()
    }

    /// Seals `sealed` anew when a previous key sealed it; `None`: the present key did.
    ///
    /// # Errors
    /// `Internal`: none of the keys opens it.
    pub(super) fn reseal(&self, place: Place<'_>, sealed: &[u8]) -> Result<Option<Vec<u8>>> {
        if open_with(&self.key, place, sealed).is_ok() {
            return Ok(None);
        }
        let plain = self.open(place, sealed).map_err(|broken| broken.into_error(place))?;
        self.seal(place, &plain).map(Some)
    }

    pub(super) fn seal_check(&self) -> Result<Vec<u8>> {
        self.seal(KEY_CHECK, KEY_CHECK_TEXT)
    }

    /// `store`: how the store is called in the sentence.
    ///
    /// # Errors
    /// `Settings`: the store was made with another key. `Internal`: its check is damaged.
    pub(super) fn check(&self, sealed: Option<&[u8]>, store: &str) -> Result<()> {
        match sealed.map(|sealed| self.open(KEY_CHECK, sealed)) {
            Some(Ok(text)) if *text == KEY_CHECK_TEXT => Ok(()),
            Some(Err(Broken::Rejected)) => Err(super::fault(format!(
                "The store {store} was made with another key than the one given."
            ))
            .remedy(
                "Give the key that it was made with (after a change of keys, under previous_keys until the new one is \
                 everywhere); if it is lost, name a new store and give consent again.",
            )),
            _ => Err(Error::new(Kind::Internal, format!("The store {store} is damaged: its key check is missing."))
                .remedy("Restore it from a backup, or name a new store and give consent again.")),
        }
    }

    fn of(key: KeyBytes) -> Self {
        Self { key, previous: Vec::new() }
    }

    /// Seals `plain` for `place`.
    ///
    /// # Errors
    /// `Internal` when the system has no random numbers.
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + TAG_LEN);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = cipher(&self.key)
            .encrypt_in_place_detached(
                XNonce::from_slice(&nonce),
                &associated_data(place),
                &mut sealed[1 + NONCE_LEN..],
            )
            .map_err(|_| Error::new(Kind::Internal, "A record is too large to be sealed."))?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens what [`SealingKey::seal`] made for the same place, under this key or a previous one.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> std::result::Result<Zeroizing<Vec<u8>>, Broken> {
        let mut outcome = open_with(&self.key, place, sealed);
        for key in &self.previous {
            if !matches!(outcome, Err(Broken::Rejected)) {
                break;
            }
            outcome = open_with(key, place, sealed);
        }
        outcome
    }

    fn from_file(path: &Path) -> Result<Self> {
        let unreadable = |error: std::io::Error| {
            if let Some(lack) = machine::Lack::of(&error) {
                let doing = format!("The key file {} cannot be read.", path.display());
                return lack.error(&doing).source_error(error);
            }
            let missing = error.kind() == ErrorKind::NotFound;
            let error = wrong(format!("The key file {} cannot be read.", path.display())).source_error(error);
            match missing {
                true => error.remedy(format!(
                    "Create it once and keep it with your backups: (umask 077; openssl rand -base64 32 > {}).",
                    path.display()
                )),
                false => error.remedy("Make it readable for the user this program runs as."),
            }
        };
        let file = File::open(path).map_err(unreadable)?;
        check_private(path, &file)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(limits::STORE_KEY_TEXT_MAX as usize + 1));
        file.take(limits::STORE_KEY_TEXT_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if let Ok(raw) = <[u8; KEY_LEN]>::try_from(bytes.as_slice()) {
            return Ok(Self::of(Zeroizing::new(raw)));
        }
        std::str::from_utf8(&bytes).ok().and_then(Self::from_text).ok_or_else(|| {
            wrong(format!(
                "The key file {} does not hold a key: 32 bytes, or their base64 or hex text.",
                path.display()
            ))
            .remedy("Name the right file; a store can only be opened with the key it was made with.")
        })
    }

    fn from_env(name: &str) -> Result<Self> {
        let text = std::env::var(name)
            .map(Zeroizing::new)
            .map_err(|_| wrong(format!("The environment variable {name}, which holds the store's key, is not set.")))?;
        Self::from_text(&text)
            .ok_or_else(|| wrong(format!("The environment variable {name} does not hold 32 bytes in base64.")))
    }

    fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut key = Zeroizing::new([0; KEY_LEN]);
        if text.len() == 2 * KEY_LEN && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            }
            return Some(Self::of(key));
        }
        let engine = match text.contains(['-', '_']) {
            true => general_purpose::URL_SAFE_NO_PAD,
            false => general_purpose::STANDARD_NO_PAD,
        };
        let mut decoded = engine.decode(text.trim_end_matches('=')).ok()?;
        let fits = decoded.len() == KEY_LEN;
        if fits {
            key.copy_from_slice(&decoded);
        }
        decoded.zeroize();
        fits.then(|| Self::of(key))
    }
}

fn cipher(key: &KeyBytes) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.as_slice().into())
}

fn open_with(key: &KeyBytes, place: Place<'_>, sealed: &[u8]) -> std::result::Result<Zeroizing<Vec<u8>>, Broken> {
    let (format, rest) = sealed.split_first().ok_or(Broken::Truncated)?;
    if *format != FORMAT {
        return Err(Broken::UnknownFormat(*format));
    }
    if rest.len() < NONCE_LEN + TAG_LEN {
        return Err(Broken::Truncated);
    }
    let (nonce, body) = rest.split_at(NONCE_LEN);
    let (ciphertext, tag) = body.split_at(body.len() - TAG_LEN);
    let mut plain = Zeroizing::new(ciphertext.to_vec());
    cipher(key)
        .decrypt_in_place_detached(XNonce::from_slice(nonce), &associated_data(place), &mut plain, tag.into())
        .map_err(|_| Broken::Rejected)?;
    Ok(plain)
}

impl Broken {
    /// The sentence for the log and the host. The key was proven right when the store was opened: another one is
    /// suspected last, for a node that was given its new key too late.
    pub fn into_error(self, place: Place<'_>) -> Error {
        let what = match self {
            Self::Truncated => "is truncated".to_owned(),
            Self::UnknownFormat(format) => {
                format!("has the unknown format {format}; a newer version of the library may have written it")
            }
            Self::Rejected => {
                "is damaged, or was put there from another place or time, or under another key".to_owned()
            }
        };
        Error::new(Kind::Internal, format!("The {} record of the store {what}.", place.table))
            .provider_code(format!("{} {} version {}", place.table, place.id, place.version))
            .remedy("Restore the store from a backup, or give consent again for the mailbox.")
    }
}

/// Injective: each text is preceded by its length.
fn associated_data(place: Place<'_>) -> Vec<u8> {
    let mut data = vec![FORMAT];
    for text in [place.table, place.id] {
        data.extend_from_slice(&(text.len() as u64).to_be_bytes());
        data.extend_from_slice(text.as_bytes());
    }
    data.extend_from_slice(&place.version.to_be_bytes());
    data
}

#[cfg(unix)]
fn check_private(path: &Path, file: &File) -> Result<()> {
    use std::os::unix::fs::MetadataExt;

    let mode = file.metadata().map_err(|error| wrong("The key file has no attributes.").source_error(error))?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(wrong(format!("The key file {} can be read by others (mode {:04o}).", path.display(), mode & 0o7777))
        .remedy(format!("Run: chmod 600 {}", path.display())))
}

#[cfg(not(unix))]
fn check_private(_: &Path, _: &File) -> Result<()> {
    Ok(())
}

fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::new(Kind::Internal, "The system gave no random numbers.").source_error(error.to_string())
    })
}

fn cannot_create(path: &Path, error: std::io::Error) -> Error {
    let doing = format!("The key file {} cannot be created.", path.display());
    machine::or_else(&doing, error, |error| uncreatable(path, error))
}

fn uncreatable(path: &Path, error: std::io::Error) -> Error {
    wrong(format!("The key file {} cannot be created.", path.display()))
        .remedy("Make its folder exist and writable for the user this program runs as.")
        .source_error(error)
}

fn wrong(message: impl Into<String>) -> Error {
    Error::settings(vec![Fault { pointer: "/key".into(), label: "Store key".into(), message: message.into() }])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HERE: Place<'static> = Place { table: "grant", id: "a", version: 3 };

    fn message(config: Value) -> String {
        SealingKey::from_config(&config).err().unwrap().to_string()
    }

    #[test]
    fn a_record_opens_only_in_its_own_place_and_version() {
        let key = SealingKey::generate().unwrap();
        let sealed = key.seal(HERE, b"token").unwrap();
        assert_eq!(*key.open(HERE, &sealed).unwrap(), b"token");
        for elsewhere in [
            Place { table: "consent", ..HERE },
            Place { id: "b", ..HERE },
            Place { version: 4, ..HERE },
            Place { table: "gran", id: "ta", ..HERE },
        ] {
            assert_eq!(key.open(elsewhere, &sealed), Err(Broken::Rejected));
        }
        assert_eq!(SealingKey::generate().unwrap().open(HERE, &sealed), Err(Broken::Rejected));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let key = SealingKey::generate().unwrap();
        let sealed = key.seal(HERE, b"token").unwrap();
        for len in 0..sealed.len() {
            assert!(key.open(HERE, &sealed[..len]).is_err(), "cut at {len}");
        }
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(HERE, &changed).is_err(), "bit {bit}");
        }
        assert_eq!(key.open(HERE, &sealed[..20]), Err(Broken::Truncated));
        assert_eq!(key.open(HERE, &[9; 60]), Err(Broken::UnknownFormat(9)));
    }

    #[test]
    fn the_same_plaintext_never_looks_the_same() {
        let key = SealingKey::generate().unwrap();
        assert_ne!(key.seal(HERE, b"token").unwrap(), key.seal(HERE, b"token").unwrap());
    }

    #[test]
    fn all_spellings_of_one_key_are_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let raw: [u8; 32] = std::array::from_fn(|i| (i * 7) as u8 | 0x80);
        let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = general_purpose::STANDARD.encode(raw);
        let url_safe = general_purpose::URL_SAFE_NO_PAD.encode(raw);
        let sealed = SealingKey::of(Zeroizing::new(raw)).seal(HERE, b"x").unwrap();
        for text in [hex.as_str(), &hex.to_uppercase(), &base64, &url_safe, &format!(" {base64}\n")] {
            let key = SealingKey::from_config(&json!({"value": text})).unwrap_or_else(|_| panic!("{text}"));
            assert!(key.open(HERE, &sealed).is_ok());
        }
        for (index, content) in [raw.as_slice(), hex.as_bytes(), format!("{base64}\r\n").as_bytes()].iter().enumerate()
        {
            let path = folder.path().join(index.to_string());
            std::fs::write(&path, content).unwrap();
            restrict(&path, 0o600);
            assert!(SealingKey::from_config(&json!({"file": path})).unwrap().open(HERE, &sealed).is_ok());
        }
    }

    #[test]
    fn a_wrong_source_is_named_with_its_cure_and_without_its_value() {
        assert!(message(json!({"file": "/nonexistent/key"})).contains("openssl rand"));
        assert!(message(json!({"env": "OAUTH_MAIL_NO_SUCH_NAME"})).contains("OAUTH_MAIL_NO_SUCH_NAME"));
        assert!(message(json!({"env": "A", "value": "B"})).contains("exactly one"));
        assert!(message(json!("text")).contains("object"));
        assert!(!message(json!({"value": "hunter2hunter2"})).contains("hunter2"));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_can_read_is_refused_with_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        SealingKey::generate_file(&path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            restrict(&path, mode);
            assert!(message(json!({"file": path})).contains(&format!("chmod 600 {}", path.display())));
        }
    }

    #[test]
    fn processes_that_generate_at_once_get_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let keys: Vec<SealingKey> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| SealingKey::generate_file(&path).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| key.key == keys[0].key));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file stayed behind");
    }

    fn restrict(path: &Path, mode: u32) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        #[cfg(not(unix))]
        let _ = (path, mode);
    }
}
