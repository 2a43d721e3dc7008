//! Another client of the same mailbox: Python's imaplib, in a process of its own for each visit.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{Error, Result, process, sources::root};

pub struct OtherClient {
    pub port: u16,
    pub user: String,
    pub password: String,
}

impl OtherClient {
    /// All operations over one connection; the answers in their order.
    pub fn visit(&self, operations: &[Value]) -> Result<Vec<Value>> {
        let mut command = Command::new(process::installed(&["/usr/bin/python3"])?);
        command.arg(root().join("tests/python/other_client.py")).arg(self.port.to_string());
        command.args([&self.user, &self.password]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Error::doing("starting Python"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(Value::from(operations.to_vec()).to_string().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::new(format!("imaplib: {}", said.trim().lines().last().unwrap_or_default())));
        }
        serde_json::from_slice(&output.stdout).map_err(Error::doing("what imaplib says"))
    }

    pub fn append(&self, folder: &str, messages: &[Vec<u8>]) -> Result<()> {
        let append = |raw: &Vec<u8>| json!(["append", folder, STANDARD.encode(raw)]);
        self.visit(&messages.iter().map(append).collect::<Vec<_>>()).map(drop)
    }

    /// Hash and flags of every message, as the server gives them to this client.
    pub fn read(&self, folder: &str) -> Result<Vec<(String, Vec<String>)>> {
        let answers = self.visit(&[json!(["read", folder])])?;
        serde_json::from_value(answers.into_iter().next().unwrap_or_default()).map_err(Error::doing("reading"))
    }

    pub fn hashes(&self, folder: &str) -> Result<Vec<String>> {
        let mut hashes: Vec<String> = self.read(folder)?.into_iter().map(|(hash, _)| hash).collect();
        hashes.sort();
        Ok(hashes)
    }
}
