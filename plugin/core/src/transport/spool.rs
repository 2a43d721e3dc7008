//! The bytes of one message as they come: in memory up to `limits::SPOOL_THRESHOLD`, then in an unlinked temporary file.

use std::{
    fs::File,
    io::{self, Seek, Write},
};

use super::Raw;
use crate::{
    error::{About, Error, Kind, Result, Who},
    limits, machine, seam,
};

#[derive(Default)]
pub struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
    len: u64,
}

impl Spool {
    /// Memory and disk grow with the bytes that come, never with the number that was announced.
    ///
    /// # Errors
    /// `Transient` when there can be no temporary file.
    pub fn sized(announced: u64) -> Result<Self> {
        let mut spool = Self::default();
        if announced > limits::SPOOL_THRESHOLD as u64 {
            spool.file = Some(create()?);
        } else {
            spool.memory.reserve((announced as usize).min(limits::SPOOL_MEMORY_FIRST));
        }
        Ok(spool)
    }

    /// # Errors
    /// `TooLarge` beyond `limits::MESSAGE_MAX`; `Transient` when the temporary file takes no more.
    pub fn put(&mut self, part: &[u8]) -> Result<()> {
        self.len += part.len() as u64;
        if self.len > limits::MESSAGE_MAX {
            return Err(Error::new(Kind::TooLarge, format!("A message is larger than {} bytes.", limits::MESSAGE_MAX))
                .with_about(About::Item)
                .remedy("Move the message out of the fetched folder, or read it with another program."));
        }
        if self.file.is_none() && self.len > limits::SPOOL_THRESHOLD as u64 {
            self.file = Some(spill(&std::mem::take(&mut self.memory))?);
        }
        match &mut self.file {
            Some(file) => write(file, part),
            None => {
                self.memory.extend_from_slice(part);
                Ok(())
            }
        }
    }

    /// # Errors
    /// `Transient` when the temporary file cannot be read again.
    pub fn end(self) -> Result<Raw> {
        match self.file {
            Some(mut file) => {
                file.rewind().map_err(unreadable)?;
                Ok(Raw::Spool { file, len: self.len })
            }
            None => Ok(Raw::Memory(self.memory)),
        }
    }

    /// Everything in a file, however small: for whoever keeps many.
    ///
    /// # Errors
    /// As [`Spool::put`].
    pub fn of(bytes: &[u8]) -> Result<Raw> {
        Self { memory: Vec::new(), file: Some(spill(bytes)?), len: bytes.len() as u64 }.end()
    }
}

fn create() -> Result<File> {
    seam::step("spool.create").and_then(|()| tempfile::tempfile()).map_err(spool_error)
}

fn write(file: &mut File, part: &[u8]) -> Result<()> {
    seam::step("spool.write").and_then(|()| file.write_all(part)).map_err(spool_error)
}

fn spill(bytes: &[u8]) -> Result<File> {
    let mut file = create()?;
    write(&mut file, bytes)?;
    Ok(file)
}

/// A temporary file that was written cannot be read.
pub fn unreadable(e: io::Error) -> Error {
    let doing = "The temporary file of a large message could not be read.";
    machine::or_else(doing, e, |e| {
        Error::new(Kind::Transient, doing)
            .remedy("Check the temporary folder of this machine.")
            .with_about(About::Host)
            .who(Who::HelpdeskAdministrator)
            .source_error(e)
    })
}

fn spool_error(e: io::Error) -> Error {
    machine::or_else("A large message could not be written to a temporary file.", e, |e| {
        Error::new(Kind::Transient, "A large message could not be written to a temporary file.")
            .remedy("Check the free space and the rights of the temporary folder of this machine.")
            .who(Who::HelpdeskAdministrator)
            .with_about(About::Host)
            .source_error(e)
    })
}
