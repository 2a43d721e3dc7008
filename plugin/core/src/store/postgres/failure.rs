//! What PostgreSQL's refusals mean.

use tokio_postgres::error::{DbError, SqlState};

use super::{super::fault, pool::is_gone};
use crate::{
    error::{About, Error, Kind},
    machine,
};

/// Why an operation did not succeed.
pub enum Trouble {
    Database(Box<tokio_postgres::Error>),
    /// The server speaks no TLS.
    NoTls(Box<tokio_postgres::Error>),
    /// Said already.
    Own(Error),
}

impl Trouble {
    /// `shown`: how the database is called in the sentence.
    pub fn into_error(self, shown: &str) -> Error {
        match self {
            Self::Own(error) => error,
            Self::Database(error) => database(*error, shown),
            Self::NoTls(error) => fault(format!("The store ({shown}) does not speak TLS."))
                .remedy(
                    "Switch TLS on there (ssl = on in postgresql.conf). For a database on this machine, add \
                     sslmode=disable to the URL or name its Unix socket.",
                )
                .source_error(*error),
        }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(Box::new(error))
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

pub fn unanswered(shown: &str) -> Error {
    transient(format!("The store ({shown}) gave no answer in time."))
}

fn database(error: tokio_postgres::Error, shown: &str) -> Error {
    if let Some(lack) = machine::Lack::of(&error) {
        return lack.error(&format!("The store ({shown}) cannot be reached.")).source_error(error);
    }
    let mapped = match error.as_db_error().map(DbError::code) {
        Some(code) => refused(code, shown).provider_code(code.code()),
        None if is_untrusted(&error) => fault(format!("The certificate of the store ({shown}) is not trusted."))
            .remedy(
                "Use the host name that stands in the certificate; for a private authority, name its PEM file in the \
                 URL: sslrootcert=FILE.",
            ),
        None if is_gone(&error) => transient(format!("The store ({shown}) cannot be reached.")),
        None => transient(format!("The store ({shown}) did not answer as PostgreSQL does.")),
    };
    mapped.source_error(error)
}

fn refused(code: &SqlState, shown: &str) -> Error {
    match code.code() {
        "28000" | "28P01" => fault(format!("The store ({shown}) refuses the user or the password."))
            .remedy("Correct the URL, or the variable PGPASSWORD; and see pg_hba.conf of the server."),
        "3D000" => {
            fault(format!("The store ({shown}): there is no such database.")).remedy("Create it, or correct the URL.")
        }
        "42501" => fault(format!("The store ({shown}) does not let this user create or use its tables.")).remedy(
            "Let the user create tables in the schema once (GRANT CREATE, USAGE ON SCHEMA …), or make it their owner.",
        ),
        "3F000" | "42P01" | "42703" => fault(format!("The tables of the store ({shown}) are gone or changed."))
            .remedy("Restore them from a backup, or let the library make them anew: start it again and give consent."),
        // Somebody reads what was meant for writing: a standby that took over, or still is one.
        "25006" => transient(format!("The store ({shown}) is read-only now.")),
        "57014" | "55P03" | "40001" | "40P01" => transient(format!("The store ({shown}) was too busy.")),
        // 08 connection, 53 resources, 57 shutdown, 58 system error, 26/25 session lost behind a pooler.
        other if ["08", "53", "57", "58", "26", "25"].contains(&other.get(..2).unwrap_or_default()) => {
            transient(format!("The store ({shown}) cannot serve now."))
        }
        _ => Error::new(Kind::Internal, format!("The store ({shown}) refused a command.")),
    }
}

fn transient(message: String) -> Error {
    Error::new(Kind::Transient, message)
        .remedy("It is tried again at the next call; if it keeps happening, check the database and the way to it.")
        .with_about(About::Host)
}

fn is_untrusted(error: &tokio_postgres::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // `io::Error::source` skips the error it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = wrapped.map(|error| error as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    false
}
