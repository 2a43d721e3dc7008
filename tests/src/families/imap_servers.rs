//! IMAP servers with one user and a password, on a free port, in one folder, as an ordinary user.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Result,
    identity::Identity,
    process::{self, Process},
    sources::root,
};

pub const USER: &str = "alice@example.test";
pub const PASSWORD: &str = "pw";
/// Of that password, in crypt(3).
const CRYPTED: &str = "$1$abcdefgh$IQtUouv7y7Q9dRWkQEPCc.";
pub const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Ends when dropped.
pub struct Server {
    pub port: u16,
    pub process: Process,
}

pub fn dovecot(folder: &Path) -> Result<Server> {
    let identity = Identity::of_servers()?;
    let Identity { user, group, uid, gid, .. } = &identity;
    let (port, base) = (free_port()?, folder.display());
    for sub in ["run", "lib", "home"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    fs::write(
        folder.join("dovecot.conf"),
        format!(
            "base_dir = {base}/run
state_dir = {base}/lib
instance_name = families
log_path = {base}/dovecot.log
protocols = imap
listen = 127.0.0.1
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
first_valid_gid = 1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
mail_fsync = never
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={base}/home
}}
mail_location = maildir:~/Maildir
namespace inbox {{
  inbox = yes
  separator = /
}}
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"
        ),
    )?;
    identity.give(folder)?;
    let mut command = identity.command(&process::installed(&["/usr/sbin/dovecot"])?);
    command.arg("-F").arg("-c").arg(folder.join("dovecot.conf"));
    started("Dovecot", &command, folder, port)
}

pub fn mailutils(folder: &Path) -> Result<Server> {
    let identity = Identity::of_servers()?;
    let Identity { uid, gid, .. } = &identity;
    let (port, base) = (free_port()?, folder.display());
    for sub in ["passwd", "home"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    let entry = format!("alice:{CRYPTED}:{uid}:{gid}:alice:{base}/home:/bin/sh\n");
    fs::write(folder.join("passwd/example.test"), entry)?;
    fs::write(
        folder.join("imap4d.conf"),
        format!(
            "auth {{ authorization virtdomain; authentication generic; }}
virtdomain {{ passwd-dir {base}/passwd; }}
mailbox {{ mailbox-pattern \"maildir:{base}/home/INBOX\"; mailbox-type maildir; }}
logging {{ syslog no; }}
server 127.0.0.1:{port} {{ single-process no; }}
"
        ),
    )?;
    identity.give(folder)?;
    // It changes to the user of the mailbox by itself.
    let mut command = Command::new(process::installed(&["/usr/sbin/imap4d"])?);
    command.args(["--foreground", "--daemon", "--config-file"]).arg(folder.join("imap4d.conf"));
    started("imap4d", &command, folder, port)
}

pub fn pymap(folder: &Path) -> Result<Server> {
    let port = free_port()?;
    let program = installed(".venv/bin/pymap")?;
    let mut command = Command::new(program);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--no-tls"]);
    command.args(["dict", "--demo-user", USER, "--demo-password", PASSWORD]);
    started("pymap", &command, folder, port)
}

pub fn hoodiecrow(folder: &Path) -> Result<Server> {
    let port = free_port()?;
    installed("node_modules/hoodiecrow-imap")?;
    let mut command = Command::new(process::on_path("node")?);
    command.arg(ours().join("hoodiecrow.cjs")).args([&port.to_string(), USER, PASSWORD]);
    started("hoodiecrow", &command, folder, port)
}

pub fn ours() -> PathBuf {
    root().join("tests/families")
}

pub fn installed(path: &str) -> Result<PathBuf> {
    let path = ours().join(path);
    match path.exists() {
        true => Ok(path),
        false => Err(crate::Error::new(format!("{} is missing. Run tests/install.sh once.", path.display()))),
    }
}

fn started(name: &str, command: &Command, folder: &Path, port: u16) -> Result<Server> {
    let process = Process::start(name, command, &folder.join(format!("{name}.out")))?;
    process.wait_until(START_TIMEOUT, || TcpStream::connect(("127.0.0.1", port)).ok())?;
    Ok(Server { port, process })
}

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
