//! Who the servers run as: ourselves, or `nobody` when we are root.

use std::{fs, os::unix::fs::chown, path::Path, process::Command};

use rustix::process::{getegid, geteuid};

use crate::{Error, Result};

#[derive(Clone, Debug)]
pub struct Identity {
    pub user: String,
    pub group: String,
    pub uid: u32,
    pub gid: u32,
    must_change: bool,
}

impl Identity {
    pub fn of_servers() -> Result<Self> {
        let (users, groups) = (Names::read("/etc/passwd")?, Names::read("/etc/group")?);
        if geteuid().is_root() {
            let (user, uid) = users.first_of(&["nobody"])?;
            let (group, gid) = groups.first_of(&["nogroup", "nobody"])?;
            return Ok(Self { user, group, uid, gid, must_change: true });
        }
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        Ok(Self { user: users.name_of(uid)?, group: groups.name_of(gid)?, uid, gid, must_change: false })
    }

    /// A user and a group that exist and are not this identity's: Postfix insists on having them.
    pub fn somebody_else(&self) -> Result<(String, String)> {
        let (users, groups) = (Names::read("/etc/passwd")?, Names::read("/etc/group")?);
        let user = users.other_than(&["nobody", "daemon", "bin"], &[self.uid])?;
        let user_id = users.first_of(&[user.as_str()])?.1;
        Ok((user, groups.other_than(&["news", "mail", "games"], &[self.gid, user_id])?))
    }

    /// A command that runs as this identity.
    pub fn command(&self, program: &Path) -> Command {
        if !self.must_change {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={}", self.uid), &format!("--regid={}", self.gid), "--clear-groups"])
            .arg(program);
        command
    }

    /// Gives a file, or a folder with all that is in it, to this identity.
    pub fn give(&self, path: &Path) -> Result<()> {
        if !self.must_change {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid))?;
        if path.symlink_metadata()?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.give(&entry?.path())?;
            }
        }
        Ok(())
    }
}

/// Names and numbers of passwd(5) or group(5): both have them in fields 1 and 3.
struct Names(Vec<(String, u32)>);

impl Names {
    fn read(file: &str) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(Error::doing(format_args!("reading {file}")))?;
        let parse = |line: &str| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
        };
        Ok(Self(text.lines().filter_map(parse).collect()))
    }

    fn first_of(&self, names: &[&str]) -> Result<(String, u32)> {
        let found = names.iter().find_map(|name| self.0.iter().find(|(one, _)| one == name));
        found.cloned().ok_or_else(|| Error::new(format!("This machine has none of the users or groups {names:?}.")))
    }

    fn name_of(&self, id: u32) -> Result<String> {
        let found = self.0.iter().find(|(_, one)| *one == id);
        found.map(|(name, _)| name.clone()).ok_or_else(|| Error::new(format!("The user or group {id} has no name.")))
    }

    fn other_than(&self, names: &[&str], ids: &[u32]) -> Result<String> {
        let fits = |name: &&&str| self.0.iter().any(|(one, id)| one == *name && *id != 0 && !ids.contains(id));
        let found = names.iter().find(fits);
        found.map(|name| (*name).to_owned()).ok_or_else(|| Error::new(format!("None of {names:?} can be used here.")))
    }
}
