//! The limits of this machine: no file descriptor, thread, memory or disk space is left.
//!
//! Such a failure is of the moment and of the host, wherever it is met: it is no wrong setting, no
//! unknown name and no fault of a message. It is found by the system's error number, never by text.

use std::{error::Error as StdError, fs::File, io};

use crate::error::{About, Error, Kind, Who};

/// What there is no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// EMFILE: of this process.
    Files,
    /// ENFILE: of the whole machine.
    SystemFiles,
    /// EAGAIN, where a thread was to be started.
    Threads,
    /// ENOMEM.
    Memory,
    /// ENOSPC, EDQUOT.
    Disk,
}

impl Lack {
    /// Looks through the whole chain of causes.
    pub fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let io_error = error.downcast_ref::<io::Error>();
            if let Some(lack) = io_error.and_then(Self::of_io) {
                return Some(lack);
            }
            // `io::Error::source` skips the error that it wraps.
            let wrapped = io_error.and_then(io::Error::get_ref);
            next = wrapped.map(|e| e as &(dyn StdError + 'static)).or_else(|| error.source());
        }
        None
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        use rustix::io::Errno;
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::OutOfMemory, _) => Some(Self::Memory),
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => Some(Self::Disk),
            (_, Some(code)) if code == Errno::MFILE.raw_os_error() => Some(Self::Files),
            #[cfg(unix)]
            (_, Some(code)) if code == Errno::NFILE.raw_os_error() => Some(Self::SystemFiles),
            _ => None,
        }
    }

    /// Asks the system for a descriptor: some libraries (getaddrinfo, SQLite) do not say that there
    /// was none.
    pub fn of_now() -> Option<Self> {
        let nothing = if cfg!(windows) { "NUL" } else { "/dev/null" };
        File::open(nothing).err().as_ref().and_then(Self::of_io)
    }

    /// The failure for the host: `doing` says what could not be done, as a sentence.
    pub fn error(self, doing: &str) -> Error {
        let (why, remedy) = match self {
            Self::Files => (
                match file_limit() {
                    Some(limit) => format!("This process has no file descriptor left (limit {limit})."),
                    None => "This process has no file descriptor left.".to_owned(),
                },
                "Raise the limit of open files (systemd: LimitNOFILE; shell: ulimit -n), or open fewer mailboxes in \
                 one process.",
            ),
            Self::SystemFiles => (
                "This machine has no file descriptor left.".to_owned(),
                "End programs that keep too many files open, or raise the limit of the machine (fs.file-max).",
            ),
            Self::Threads => (
                match thread_limit() {
                    Some(limit) => format!("This process may start no more threads (limit {limit})."),
                    None => "This process may start no more threads.".to_owned(),
                },
                "Raise the limit of threads (systemd: TasksMax; shell: ulimit -u; containers: pids), or open fewer \
                 mailboxes in one process.",
            ),
            Self::Memory => (
                "This machine has no memory left for this process.".to_owned(),
                "Give the process more memory, or open fewer mailboxes in one process.",
            ),
            Self::Disk => (
                "The disk has no space left.".to_owned(),
                "Free space on the disk of the temporary folder and of the store.",
            ),
        };
        Error::new(Kind::Transient, format!("{doing} {why}"))
            .remedy(remedy)
            .who(Who::HelpdeskAdministrator)
            .with_about(About::Host)
    }
}

/// A failure of this machine where it is one, else what `otherwise` makes of it.
pub fn or_else<E>(doing: &str, error: E, otherwise: impl FnOnce(E) -> Error) -> Error
where
    E: StdError + Send + Sync + 'static,
{
    match Lack::of(&error) {
        Some(lack) => lack.error(doing).source_error(error),
        None => otherwise(error),
    }
}

/// As [`or_else`], for errors that do not say why: whether descriptors are left is asked now.
pub fn or_else_now<E>(doing: &str, error: E, otherwise: impl FnOnce(E) -> Error) -> Error
where
    E: StdError + Send + Sync + 'static,
{
    match Lack::of(&error).or_else(Lack::of_now) {
        Some(lack) => lack.error(doing).source_error(error),
        None => otherwise(error),
    }
}

/// A thread that could not be started.
pub fn no_thread(doing: &str, error: io::Error) -> Error {
    let lack = match error.kind() {
        io::ErrorKind::WouldBlock => Lack::Threads,
        _ => Lack::of(&error).unwrap_or(Lack::Threads),
    };
    lack.error(doing).source_error(error)
}

#[cfg(unix)]
fn file_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(unix)]
fn thread_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nproc).current
}

#[cfg(not(unix))]
fn file_limit() -> Option<u64> {
    None
}

#[cfg(not(unix))]
fn thread_limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_the_machine_is_a_transient_failure_that_names_the_limit() {
        for (code, expected) in
            [(24, Lack::Files), (23, Lack::SystemFiles), (12, Lack::Memory), (28, Lack::Disk), (122, Lack::Disk)]
        {
            // As libraries wrap it: an io::Error in an io::Error, below one of ours.
            let wrapped = io::Error::other(io::Error::from_raw_os_error(code));
            assert_eq!(Lack::of(&wrapped), Some(expected), "{code}");
            let error =
                or_else("The CA file cannot be read.", wrapped, |e| Error::new(Kind::Settings, "no").source_error(e));
            assert!(error.kind() == Kind::Transient && error.is_of_host(), "{code}");
            assert!(error.message().starts_with("The CA file cannot be read. Th"), "{error}");
        }
        let limit = file_limit().unwrap();
        assert!(Lack::Files.error("x.").message().contains(&format!("limit {limit}")));
        let error = no_thread("x.", io::Error::from_raw_os_error(11));
        assert!(error.message().contains("threads"), "{error}");
        // What a person must mend stays what it is.
        assert_eq!(Lack::of(&io::Error::from_raw_os_error(2)), None);
        assert_eq!(Lack::of_now(), None);
    }
}
