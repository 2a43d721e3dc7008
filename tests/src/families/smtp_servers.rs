//! SMTP servers that take mail of a submitting client and keep it as it came, on a free port, in one folder.
//!
//! Exim and OpenSMTPD exclude Postfix as Debian packages: `tests/install.sh --servers` unpacks them beside the tests. They want to
//! be root, and files in places of their own: each runs in a mount namespace where those places are its folder's.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    imap_servers::{START_TIMEOUT, free_port, installed, ours},
    proxy::Proxy,
};
use crate::{
    Error, Result,
    ca::Ca,
    identity::Identity,
    process::{self, Process},
};

/// Who has a mailbox.
pub const USERS: &str = "bob,carol,dave,jürgen";
/// Bytes of the largest message.
pub const LARGEST: usize = 3 << 20;

/// Ends when dropped.
pub struct SmtpServer {
    pub port: u16,
    /// TLS from the first byte; else STARTTLS.
    pub is_smtps: bool,
    /// Below it, for each user: a file for each message.
    pub mail: PathBuf,
    /// How the product comes in, where that is not as at a provider.
    pub note: Option<&'static str>,
    /// Says with 450 that `later@` is busy.
    pub puts_off: bool,
    _proxy: Option<Proxy>,
    processes: Vec<Process>,
}

impl SmtpServer {
    pub fn is_running(&self) -> bool {
        self.processes.iter().all(Process::is_running)
    }

    /// What has arrived for a user, in no order.
    pub fn arrived(&self, user: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for folder in [self.mail.join(user), self.mail.join(user).join("new")] {
            let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            found.extend(files.filter(|path| path.is_file() && path.extension().is_none_or(|end| end != "part")));
        }
        found
    }

    pub fn newest(&self, user: &str) -> Result<Vec<u8>> {
        let when = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
        let newest = self.arrived(user).into_iter().max_by_key(when);
        Ok(fs::read(newest.ok_or_else(|| Error::new("nothing arrived"))?)?)
    }
}

pub fn aiosmtpd(folder: &Path, ca: &Ca) -> Result<SmtpServer> {
    let port = free_port()?;
    let process = python(folder, port, Some(ca))?;
    Ok(SmtpServer {
        port,
        is_smtps: true,
        mail: folder.join("mail"),
        note: None,
        puts_off: true,
        _proxy: None,
        processes: vec![process],
    })
}

fn python(folder: &Path, port: u16, ca: Option<&Ca>) -> Result<Process> {
    let mut command = Command::new(installed(".venv/bin/python")?);
    command.arg(ours().join("aiosmtpd_server.py")).arg(port.to_string()).arg(folder.join("mail"));
    command.arg(USERS).arg((LARGEST).to_string());
    if let Some(ca) = ca {
        command.args([&ca.server_certificate, &ca.server_key]);
    }
    let process = Process::start("aiosmtpd", &command, &folder.join("aiosmtpd.out"))?;
    process.wait_until(START_TIMEOUT, || TcpStream::connect(("127.0.0.1", port)).ok())?;
    Ok(process)
}

/// With an authenticator of its own for XOAUTH2 and OAUTHBEARER: the driver `plaintext` takes any text.
pub fn exim(folder: &Path, ca: &Ca) -> Result<SmtpServer> {
    let identity = Identity::of_servers()?;
    let (port, base) = (free_port()?, folder.display().to_string());
    for sub in ["spool", "log", "mail"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    let (certificate, key) = readable(folder, ca)?;
    let users: String = USERS.split(',').map(|user| format!("{user}: {user}\n")).collect();
    fs::write(folder.join("users"), users)?;
    let Identity { uid, gid, .. } = identity;
    let program = unpacked("usr/sbin/exim4")?.display().to_string();
    fs::write(
        folder.join("exim.conf"),
        format!(
            r"exim_path = {program}
primary_hostname = localhost
spool_directory = {base}/spool
log_file_path = {base}/log/%slog
exim_user = {uid}
exim_group = {gid}
never_users =
keep_environment =
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
smtputf8_advertise_hosts = *
message_size_limit = {LARGEST}
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = recipient
acl_smtp_data = content
begin acl
recipient:
  deny !authenticated = *
       message = log in first
  defer local_parts = later
        message = this mailbox is busy
  accept domains = example.test
         local_parts = lsearch;{base}/users
  deny message = no such user
content:
  accept
begin routers
here:
  driver = accept
  local_parts = lsearch;{base}/users
  transport = file
begin transports
file:
  driver = appendfile
  directory = {base}/mail/$local_part_data
  maildir_format
  message_prefix =
  message_suffix =
  user = {uid}
  group = {gid}
begin authenticators
xoauth2:
  driver = plaintext
  public_name = XOAUTH2
  server_prompts = :
  server_set_id = oauth
  server_condition = ${{if match{{$auth1}}{{\N^user=[^\x01]+\x01auth=Bearer [^\x01]+\x01\x01$\N}}}}
oauthbearer:
  driver = plaintext
  public_name = OAUTHBEARER
  server_prompts = :
  server_set_id = oauth
  server_condition = ${{if match{{$auth1}}{{\N\x01auth=Bearer [^\x01]+\x01\x01$\N}}}}
"
        ),
    )?;
    identity.give(folder)?;
    // Exim runs itself anew for each delivery, and takes its configuration from root's place alone.
    let arguments = format!(
        "sh -c 'mkdir /var/lib/exim4 && cp {base}/exim.conf /var/lib/exim4/config.autogenerated && exec {program} -bdf -q1m'"
    );
    let process = in_a_namespace("exim", folder, &format!("Debian-exim:x:{uid}:{gid}::/:/bin/sh"), &arguments)?;
    process.wait_until(START_TIMEOUT, || TcpStream::connect(("127.0.0.1", port)).ok())?;
    Ok(SmtpServer {
        port,
        is_smtps: false,
        mail: folder.join("mail"),
        note: None,
        puts_off: true,
        _proxy: None,
        processes: vec![process],
    })
}

/// It relays to aiosmtpd, which keeps the mail. It knows no OAuth: a proxy takes the token.
pub fn opensmtpd(folder: &Path, ca: &Ca) -> Result<SmtpServer> {
    let (port, behind, base) = (free_port()?, free_port()?, folder.display().to_string());
    let sink = python(folder, behind, None)?;
    let users: String = USERS.split(',').map(|user| format!("{user}@example.test\n")).collect();
    fs::write(folder.join("users"), users)?;
    fs::write(
        folder.join("smtpd.conf"),
        format!(
            "table users file:{base}/users
smtp max-message-size \"{LARGEST}\"
listen on 127.0.0.1 port {port} hostname localhost
action onward relay host smtp://127.0.0.1:{behind}
match from any for domain example.test rcpt-to <users> action onward
"
        ),
    )?;
    let program = unpacked("usr/sbin/smtpd")?;
    let Identity { uid, gid, .. } = Identity::of_servers()?;
    let users = format!("opensmtpd:x:{uid}:{gid}::/var/lib/opensmtpd/empty:/bin/sh\nopensmtpq:x:2:2::/:/bin/sh");
    let process = in_a_namespace("smtpd", folder, &users, &format!("{} -d -f {base}/smtpd.conf", program.display()))?;
    process.wait_until(START_TIMEOUT, || TcpStream::connect(("127.0.0.1", port)).ok())?;
    let proxy = Proxy::before_smtp(ca, port)?;
    Ok(SmtpServer {
        port: proxy.port,
        is_smtps: true,
        mail: folder.join("mail"),
        note: Some("TLS and OAuth are a proxy's; it relays to aiosmtpd, which keeps what came"),
        puts_off: false,
        _proxy: Some(proxy),
        processes: vec![process, sink],
    })
}

/// `arguments` as root in a mount namespace with users of its own, and with `/run`, `/var/spool` and `/var/lib` empty.
fn in_a_namespace(name: &str, folder: &Path, users: &str, arguments: &str) -> Result<Process> {
    let groups: String = users
        .lines()
        .filter_map(|user| {
            let mut fields = user.split(':');
            Some(format!("{}:x:{}:\n", fields.next()?, fields.nth(2)?))
        })
        .collect();
    fs::write(folder.join("passwd"), format!("{}{users}\n", fs::read_to_string("/etc/passwd")?))?;
    fs::write(folder.join("group"), format!("{}{groups}", fs::read_to_string("/etc/group")?))?;
    let base = folder.display();
    let script = format!(
        "set -e
mount --bind {base}/passwd /etc/passwd
mount --bind {base}/group /etc/group
for place in /run /var/spool /var/lib; do mount -t tmpfs -o mode=755 none $place; done
mkdir -p -m 711 /var/spool/smtpd /var/lib/opensmtpd/empty
exec {arguments}"
    );
    let mut command = Command::new(process::on_path("unshare")?);
    command.args(["--mount", "/bin/sh", "-c", &script]);
    Process::start(name, &command, &folder.join(format!("{name}.out")))
}

/// Copies that the server's user may read.
fn readable(folder: &Path, ca: &Ca) -> Result<(String, String)> {
    let copy = |from: &Path, name: &str| -> Result<String> {
        let to = folder.join(name);
        fs::copy(from, &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600))?;
        Ok(to.display().to_string())
    };
    Ok((copy(&ca.server_certificate, "server.pem")?, copy(&ca.server_key, "server.key")?))
}

/// A program of a Debian package that is not installed.
fn unpacked(path: &str) -> Result<PathBuf> {
    let path = ours().join("debian").join(path);
    match path.exists() {
        true => Ok(path),
        false => Err(Error::new(format!("{} is missing. Run tests/install.sh --servers once.", path.display()))),
    }
}
