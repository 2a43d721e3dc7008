//! Checked loading: a file that is not ours, or not ours of this major, is one sentence and never undefined behaviour.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use abi_stable::{
    library::{LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModule, lib_header_from_path},
    sabi_types::VersionNumber,
    std_types::{ROption, RStr},
};
use serde_json::Value;

use crate::{
    elf,
    error::Error,
    handles::{Plugin, answer, checked},
    health::{HEALTH_EXTENSION, HealthCallback, HealthTable},
    parts::{PARTS_EXTENSION, PartsTable},
    root::{Extension, LogCallback, OauthMailModuleRef},
};

/// A loaded library. It is never unloaded: threads and thread-locals of it may outlive any handle, so closing the
/// accounts is what ends its work, and the code stays mapped until the process ends.
#[derive(Clone, Copy)]
pub struct Library {
    root: OauthMailModuleRef,
    version: VersionNumber,
}

impl Library {
    /// Loads `path` and checks that the layout of everything that crosses is the one this package was built with.
    ///
    /// Two different files can be loaded side by side. Loading runs the file's initialisers: load only what you trust.
    ///
    /// # Errors
    /// One sentence that names the file: not found, not a library, not this library, or an incompatible version.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let path = match path.metadata() {
            // Without a slash, dlopen would search the system's directories instead of the working directory.
            Ok(meta) if meta.is_file() => {
                path.canonicalize().map_err(|error| LoadError::not_a_library(path, &error.to_string()))?
            }
            Ok(_) => return Err(LoadError::not_a_library(path, "it is not a file")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(LoadError::not_found(path)),
            Err(error) => return Err(LoadError::not_a_library(path, &error.to_string())),
        };
        if elf::is_cut_short(&path) {
            return Err(LoadError::not_a_library(&path, "the file is cut short; install it anew"));
        }
        pin(&path)?;
        let header = lib_header_from_path(&path).map_err(|error| LoadError::from_abi(&path, &error, None))?;
        // Any abi_stable library has the header; the name says whose it is.
        if header.root_mod_consts().base_name() != OauthMailModuleRef::BASE_NAME {
            return Err(LoadError::not_ours(&path));
        }
        let version = VersionNumber::new(header.version_strings()).unwrap_or(VERSION_ZERO);
        let root = header
            .init_root_module::<OauthMailModuleRef>()
            .map_err(|error| LoadError::from_abi(&path, &error, Some(version)))?;
        Ok(Self { root, version })
    }

    /// Version of the ABI package that the library was built with, `major.minor.patch`.
    pub fn abi_version(&self) -> String {
        self.version.to_string()
    }

    /// Name, version, protocols, grants, schemas, presets, extensions.
    pub fn describe(&self) -> Value {
        serde_json::from_str(&self.root.describe()()).unwrap_or_default()
    }

    /// Makes a plugin from `{"store":"sqlite:PATH","key":{…},"private_networks":"allow"/"deny"}`.
    ///
    /// `log` receives level, mailbox (empty for the plugin itself) and a redacted line, from any thread; it is dropped
    /// after the last account of this plugin.
    ///
    /// # Errors
    /// `Settings` for a wrong configuration; what the store says when it cannot be opened.
    pub fn plugin(
        &self,
        config: &Value,
        log: impl Fn(Level, &str, &str) + Send + Sync + 'static,
    ) -> Result<Plugin, Error> {
        let object = checked(self.root.plugin_new()(config.to_string().as_str().into(), log_callback(log)))?;
        Ok(Plugin { object })
    }

    /// As [`Library::plugin`], and `watcher` is called with mailbox and health once per change: `{"state":"ok"/"expiring"/
    /// "degraded"/"back_off"/"admin_needed"/"misconfigured"/"consent_needed","direction","why","remedy","who","what","when",
    /// "field",…}`. A mailbox begins as `ok`. On a thread of the library, before the hook that noticed the change
    /// returns; a callback that hangs keeps no caller. It may ask the same account for its status.
    ///
    /// # Errors
    /// As [`Library::plugin`]; `Unsupported` by a library that is older than this ability.
    pub fn watched_plugin(
        &self,
        config: &Value,
        log: impl Fn(Level, &str, &str) + Send + Sync + 'static,
        watcher: impl Fn(&str, &Value) + Send + Sync + 'static,
    ) -> Result<Plugin, Error> {
        let Some(extension) = self.extension(HEALTH_EXTENSION) else {
            return Err(Error::unsupported("This library cannot tell of the health of mailboxes: it is too old."));
        };
        // SAFETY: the id says what it points to, and the library is never unloaded.
        let table = unsafe { &*extension.table.cast::<HealthTable>() };
        let config = config.to_string();
        let object =
            checked((table.plugin_new)(config.as_str().into(), log_callback(log), HealthCallback::new(watcher)))?;
        Ok(Plugin { object })
    }

    /// The facts of one raw message, as `fetch_batch` gives them, without what settings decide: `disposition`,
    /// `received_at`, `sender_verdict`.
    ///
    /// # Errors
    /// `Unsupported` by a library that is older than this ability.
    pub fn facts(&self, raw: &[u8]) -> Result<Value, Error> {
        answer((self.parts()?.facts)(raw.into()))
    }

    /// The decoded octets of the attachment that the facts of the same `raw` list with this `part_index`.
    ///
    /// # Errors
    /// `Misuse` when there is no such part; `Unsupported` by a library that is older than this ability.
    pub fn attachment(&self, raw: &[u8], part_index: u32) -> Result<Vec<u8>, Error> {
        checked((self.parts()?.attachment)(raw.into(), part_index)).map(Into::into)
    }

    fn parts(&self) -> Result<&'static PartsTable, Error> {
        let Some(extension) = self.extension(PARTS_EXTENSION) else {
            return Err(Error::unsupported("This library cannot read a message again: it is too old."));
        };
        // SAFETY: the id says what it points to, and the library is never unloaded.
        Ok(unsafe { &*extension.table.cast::<PartsTable>() })
    }

    /// The table of a later ability, or `None` when this library does not have it.
    pub fn extension(&self, id: &str) -> Option<Extension> {
        match self.root.extension()(id.into()) {
            ROption::RSome(extension) if !extension.table.is_null() => Some(extension),
            _ => None,
        }
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Library({})", self.version)
    }
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    fn from_number(number: u32) -> Self {
        match number {
            0 | 1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// Why a file was not loaded, in one sentence.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    sentence: String,
}

impl LoadError {
    /// The file that was asked for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn not_found(path: &Path) -> Self {
        Self::new(path, format!("There is no file {}.", path.display()))
    }

    fn not_a_library(path: &Path, reason: &str) -> Self {
        Self::new(path, format!("{} cannot be loaded as a library: {}.", path.display(), one_line(reason)))
    }

    fn not_ours(path: &Path) -> Self {
        Self::new(path, format!("{} is a library, but not oauth-mail.", path.display()))
    }

    fn incompatible(path: &Path, found: VersionNumber, expected: VersionNumber) -> Self {
        let (age, advice) =
            if (found.major, found.minor, found.patch) > (expected.major, expected.minor, expected.patch) {
                ("newer", "update the host or install the matching library")
            } else {
                ("older", "install the matching library")
            };
        Self::new(
            path,
            format!("{} has the {age} interface {found}, and this host needs {expected}: {advice}.", path.display()),
        )
    }

    fn from_abi(path: &Path, error: &LibraryError, found: Option<VersionNumber>) -> Self {
        let expected = VersionNumber::new(OauthMailModuleRef::VERSION_STRINGS).unwrap_or(VERSION_ZERO);
        match error {
            LibraryError::OpenError { err, .. } => Self::not_a_library(path, &err.to_string()),
            LibraryError::GetSymbolError { .. } => Self::not_ours(path),
            LibraryError::IncompatibleVersionNumber { actual_version, .. } => {
                Self::incompatible(path, *actual_version, expected)
            }
            LibraryError::AbiInstability(_) => {
                let found = found.unwrap_or(VERSION_ZERO);
                if (found.major, found.minor, found.patch) == (expected.major, expected.minor, expected.patch) {
                    return Self::new(
                        path,
                        format!(
                            "{} says interface {found}, as this host does, but its layout differs: it is another \
                             library or an unofficial build.",
                            path.display()
                        ),
                    );
                }
                Self::incompatible(path, found, expected)
            }
            LibraryError::InvalidAbiHeader(found) => Self::new(
                path,
                format!(
                    "{} was built with abi_stable {}.{}, which this host cannot read: install the matching library.",
                    path.display(),
                    found.abi_major,
                    found.abi_minor
                ),
            ),
            other => Self::not_a_library(path, &other.to_string()),
        }
    }

    fn new(path: &Path, sentence: String) -> Self {
        Self { path: path.to_owned(), sentence }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for LoadError {}

const VERSION_ZERO: VersionNumber = VersionNumber { major: 0, minor: 0, patch: 0 };

type Sink = Box<dyn Fn(Level, &str, &str) + Send + Sync>;

/// Opens the file for good, and looks whether it is ours before anything of it is read as a header.
fn pin(path: &Path) -> Result<(), LoadError> {
    // SAFETY: initialisers of the file run here, as `Library::load` says; nothing can be checked before that.
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|error| LoadError::not_a_library(path, &reason_of(path, &error)))?;
    // SAFETY: the symbol is looked up and not used; its type does not matter.
    let ours = unsafe { library.get::<*const ()>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) }.is_ok();
    // Closing it would run finalisers with threads of it possibly alive: even a foreign library stays.
    std::mem::forget(library);
    if ours { Ok(()) } else { Err(LoadError::not_ours(path)) }
}

/// The loader's words without the path, which the sentence names already.
fn reason_of(path: &Path, error: &libloading::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text.replace(&format!("{}: ", path.display()), "")
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_end_matches('.').chars().take(300).collect()
}

fn log_callback(log: impl Fn(Level, &str, &str) + Send + Sync + 'static) -> LogCallback {
    let sink: Box<Sink> = Box::new(Box::new(log));
    LogCallback { call: log_call, release: log_release, userdata: Box::into_raw(sink).expose_provenance() }
}

extern "C" fn log_call(userdata: usize, level: u32, mailbox: RStr<'_>, line: RStr<'_>) {
    let sink = std::ptr::with_exposed_provenance::<Sink>(userdata);
    // SAFETY: `log_callback` made it from a Box, and the library calls no more once it called `log_release`.
    let sink = unsafe { &*sink };
    // Unwinding through `extern "C"` would abort the process for the sake of a log line.
    let _ = catch_unwind(AssertUnwindSafe(|| sink(Level::from_number(level), mailbox.as_str(), line.as_str())));
}

extern "C" fn log_release(userdata: usize) {
    let sink = std::ptr::with_exposed_provenance_mut::<Sink>(userdata);
    // SAFETY: made by `Box::into_raw` in `log_callback`, and released exactly once (see `OauthMailModule::plugin_new`).
    let sink = unsafe { Box::from_raw(sink) };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(sink)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named() {
        let error = Library::load("no/such/liboauth_mail.so").unwrap_err();
        assert_eq!(error.to_string(), "There is no file no/such/liboauth_mail.so.");
    }

    #[test]
    fn a_text_file_is_not_a_library() {
        let path = std::env::temp_dir().join(format!("oauth-mail-abi-{}.so", std::process::id()));
        std::fs::write(&path, "not ELF at all").unwrap();
        let sentence = Library::load(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(sentence.contains("cannot be loaded as a library"), "{sentence}");
        assert_eq!(sentence.matches(&*path.to_string_lossy()).count(), 1, "{sentence}");
        assert_eq!(sentence.lines().count(), 1);
    }

    #[test]
    fn a_directory_is_not_a_library() {
        let sentence = Library::load(std::env::temp_dir()).unwrap_err().to_string();
        assert!(sentence.contains("it is not a file"), "{sentence}");
    }

    #[test]
    fn a_panic_in_the_hosts_log_does_not_end_the_process() {
        let sink: Box<Sink> = Box::new(Box::new(|_, _, _| panic!("host bug")));
        let userdata = Box::into_raw(sink).expose_provenance();
        log_call(userdata, 1, "".into(), "line".into());
        log_release(userdata);
    }
}
