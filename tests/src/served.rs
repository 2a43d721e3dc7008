//! `host-sample serve` as a process.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{Error, Result, built};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ended with this value.
pub struct Served {
    /// Where the page is.
    pub url: String,
    child: Child,
}

impl Served {
    /// On a port that the system chose, with data and log below `folder`; the administrator is `admin`.
    ///
    /// # Errors
    /// What the log says when it does not start.
    pub fn start(folder: &Path, password: &str) -> Result<Self> {
        let log = folder.join("log");
        let mut child = Command::new(built::program("host-sample"))
            .args(["--json", "--log", "info", "serve", "--listen", "127.0.0.1:0", "--drain", "2", "--data"])
            .arg(folder.join("desk"))
            .env("HOST_SAMPLE_ADMIN_PASSWORD", password)
            .env_remove("OAUTH_MAIL_LIBRARY")
            .env_remove("HOST_SAMPLE_DATABASE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let (sender, said) = mpsc::channel();
        let stdout = child.stdout.take().map(BufReader::new);
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(BufRead::lines).map_while(std::result::Result::ok) {
                let document: Value = serde_json::from_str(&line).unwrap_or_default();
                if document["event"] == "serving" {
                    let _ = sender.send(document["url"].as_str().unwrap_or_default().to_owned());
                }
            }
        });
        let mut served = Self { url: String::new(), child };
        served.url = said
            .recv_timeout(PATIENCE)
            .map_err(|error| Error::new(format!("{error}: {}", fs::read_to_string(log).unwrap_or_default())))?;
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
