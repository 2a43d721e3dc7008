//! Servers of other families than those that all other tests run on: each is started as a value, walked through a suite, and
//! tallied in one line. `make test-servers` runs all.
//!
//! To add one: an entry of [`FAMILIES`]. Its walk starts the server (a [`Process`](crate::process::Process) that ends when
//! it is dropped, on a free port), and says of each step how it went. Every kind of server has a suite of its own:
//! [`imap_suite`] for IMAP, [`smtp_suite`] for SMTP, [`authorization_suite`] for authorization servers.

mod authorization_servers;
mod authorization_suite;
mod https_front;
mod imap_servers;
mod imap_suite;
mod other_client;
mod proxy;
mod smtp_servers;
mod smtp_suite;

use std::fmt;

use crate::{Error, Result};

/// What is walked through.
pub struct Family {
    pub name: &'static str,
    /// `imap`, `smtp`, `authorization`.
    pub kind: &'static str,
    walk: fn(&mut Tally) -> Result<()>,
}

pub const FAMILIES: &[Family] = &[
    Family { name: "Dovecot", kind: "imap", walk: |tally| imap_suite::walk(imap_servers::dovecot, tally) },
    Family { name: "GNU mailutils", kind: "imap", walk: |tally| imap_suite::walk(imap_servers::mailutils, tally) },
    Family { name: "pymap", kind: "imap", walk: |tally| imap_suite::walk(imap_servers::pymap, tally) },
    Family { name: "hoodiecrow", kind: "imap", walk: |tally| imap_suite::walk(imap_servers::hoodiecrow, tally) },
    Family { name: "aiosmtpd", kind: "smtp", walk: |tally| smtp_suite::walk(smtp_servers::aiosmtpd, tally) },
    Family { name: "Exim", kind: "smtp", walk: |tally| smtp_suite::walk_as_root(smtp_servers::exim, tally) },
    Family { name: "OpenSMTPD", kind: "smtp", walk: |tally| smtp_suite::walk_as_root(smtp_servers::opensmtpd, tally) },
    Family {
        name: "django-oauth-toolkit",
        kind: "authorization",
        walk: |tally| authorization_suite::walk(authorization_servers::django_oauth_toolkit, tally),
    },
    Family {
        name: "Canaille",
        kind: "authorization",
        walk: |tally| authorization_suite::walk(authorization_servers::canaille, tally),
    },
    Family {
        name: "Glewlwyd",
        kind: "authorization",
        walk: |tally| authorization_suite::walk(authorization_servers::glewlwyd, tally),
    },
];

impl Family {
    /// Starts it and walks it.
    pub fn run(&self) -> Tally {
        let mut tally = Tally { name: self.name, ..Tally::default() };
        if let Err(error) = (self.walk)(&mut tally) {
            tally.failed.push(format!("the walk ended early: {error}"));
        }
        tally
    }
}

/// How a walk went.
#[derive(Default)]
pub struct Tally {
    name: &'static str,
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    /// How the product came in, where that is not as at a provider.
    pub notes: Vec<String>,
}

/// How a step ended that did not fail.
pub enum Step {
    Passed,
    /// The server cannot do this, for the reason given.
    Skipped(String),
}

impl Tally {
    /// One step. A failure is noted, and the walk goes on.
    pub fn step(&mut self, name: &str, step: impl FnOnce() -> Result<Step>) {
        match step() {
            Ok(Step::Passed) => self.passed += 1,
            Ok(Step::Skipped(why)) => self.skipped.push(format!("{name}: {why}")),
            Err(error) => self.failed.push(format!("{name}: {error}")),
        }
    }

    pub fn skip(&mut self, name: &str, why: &str) {
        self.skipped.push(format!("{name}: {why}"));
    }

    pub fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }
}

/// `NAME n/n`, and below it what failed, what was left out and why.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.passed + self.failed.len();
        write!(f, "{} {}/{all}", self.name, self.passed)?;
        for (word, lines) in [("failed", &self.failed), ("skipped", &self.skipped), ("note", &self.notes)] {
            for line in lines {
                write!(f, "\n  {word}: {line}")?;
            }
        }
        Ok(())
    }
}

/// Fails with what was expected and what was found.
pub(crate) fn same<T: PartialEq + fmt::Debug>(what: &str, found: T, expected: T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let cut = |value: &T| format!("{value:?}").chars().take(400).collect::<String>();
    Err(Error::new(format!("{what}: {} instead of {}", cut(&found), cut(&expected))))
}
