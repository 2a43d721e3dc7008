//! For servers in a static, which nobody drops: their processes end with ours, and then their folder goes too.

use std::{
    mem,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use crate::{Error, Result, Servers};

/// Waits for the end of its standard input, then for the servers to end.
const JANITOR: &str = "read -r _; sleep 7; rm -rf \"$1\"";

pub fn remove_after_us(servers: &Servers) -> Result<()> {
    remove_folder_after_us(servers.dir())
}

pub fn remove_folder_after_us(folder: &Path) -> Result<()> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", JANITOR, "janitor"]).arg(folder).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Its end of the pipe stays open until this process ends, however it ends.
    mem::forget(command.spawn().map_err(Error::doing("starting the janitor"))?);
    Ok(())
}
