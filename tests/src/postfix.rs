//! Postfix: submission (STARTTLS) and SMTPS with SASL through Dovecot, delivery into Dovecot by LMTP.
//!
//! `sink@` takes everything and keeps nothing. A sender must be the user that logged in. Nothing leaves the machine.

use std::{
    fs,
    io::Read,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Error, Options, Result,
    ca::Ca,
    dovecot::Dovecot,
    identity::Identity,
    idp::User,
    process::{self, Process},
    servers::DOMAIN,
};

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a start is tried.
const LAUNCHES: usize = 3;

/// Queue folders that master does not make itself, and their modes.
const QUEUE: [(&str, u32); 14] = [
    ("active", 0o700),
    ("bounce", 0o700),
    ("corrupt", 0o700),
    ("defer", 0o700),
    ("deferred", 0o700),
    ("flush", 0o700),
    ("hold", 0o700),
    ("incoming", 0o700),
    ("private", 0o700),
    ("saved", 0o700),
    ("trace", 0o700),
    ("pid", 0o755),
    ("maildrop", 0o730),
    ("public", 0o710),
];

pub struct Postfix {
    process: Process,
    /// STARTTLS.
    pub submission_port: u16,
    /// TLS from the first byte.
    pub smtps_port: u16,
    folder: PathBuf,
    shim: PathBuf,
    identity: Identity,
}

impl Postfix {
    /// `shim`: from [`compile_shim`]. `ports`: submission and SMTPS.
    pub fn start(
        folder: &Path,
        shim: &Path,
        ca: &Ca,
        dovecot: &Dovecot,
        users: &[User],
        options: &Options,
        ports: (u16, u16),
    ) -> Result<Self> {
        let identity = Identity::of_servers()?;
        let (submission_port, smtps_port) = ports;
        for sub in ["conf", "data"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        for (sub, mode) in QUEUE {
            let path = folder.join("queue").join(sub);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        let sink = format!("sink@{DOMAIN} ok\n");
        let known: String = users.iter().map(|user| format!("{} ok\n", user.address)).chain([sink]).collect();
        let senders: String = users
            .iter()
            .map(|user| {
                let address = &user.address;
                let delegates = users.iter().filter(|other| other.delegate_of.as_ref() == Some(address));
                let others: String = delegates.map(|other| format!(",{}", other.address)).collect();
                format!("{address} {address}{others}\n")
            })
            .collect();
        fs::write(folder.join("conf/users"), known)?;
        fs::write(folder.join("conf/senders"), senders)?;
        fs::write(folder.join("conf/main.cf"), main_cf(folder, ca, dovecot, &identity, options)?)?;
        fs::write(folder.join("conf/master.cf"), master_cf(submission_port, smtps_port))?;
        // Made here, so that it belongs to Postfix: it stands still when it cannot write its log.
        fs::write(folder.join("postfix.log"), "")?;
        identity.give(folder)?;
        let process = launch(folder, shim, &identity, &[submission_port, smtps_port])?;
        let (folder, shim) = (folder.to_owned(), shim.to_owned());
        Ok(Self { process, submission_port, smtps_port, folder, shim, identity })
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Without a word: connections break.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Has it taken mail that is not delivered or deferred yet?
    pub fn is_delivering(&self) -> bool {
        let is_full =
            |sub: &str| fs::read_dir(self.folder.join("queue").join(sub)).is_ok_and(|mut files| files.next().is_some());
        ["maildrop", "incoming", "active"].into_iter().any(is_full)
    }

    /// On the same ports, with the same queue.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        // Not there when master was killed before it wrote it.
        let _ = fs::remove_file(self.folder.join("queue/pid/master.pid"));
        let ports = [self.submission_port, self.smtps_port];
        self.process = launch(&self.folder, &self.shim, &self.identity, &ports)?;
        Ok(())
    }

    /// What Postfix wrote down, for counting connections and logins.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("postfix.log")).unwrap_or_default()
    }
}

/// Now and then a master comes up whose log daemon does not: it takes connections and stands still. Such a one is
/// replaced, so that a scenario never meets it.
fn launch(folder: &Path, shim: &Path, identity: &Identity, ports: &[u16]) -> Result<Process> {
    let mut tried = launch_once(folder, shim, identity, ports);
    for _ in 1..LAUNCHES {
        if tried.is_ok() {
            break;
        }
        // The process is ended by now, and with it who held the lock.
        let _ = fs::remove_file(folder.join("queue/pid/master.pid"));
        tried = launch_once(folder, shim, identity, ports);
    }
    tried
}

fn launch_once(folder: &Path, shim: &Path, identity: &Identity, ports: &[u16]) -> Result<Process> {
    let master = process::installed(&["/usr/lib/postfix/sbin/master", "/usr/libexec/postfix/master"])?;
    // Through env(1), so that setpriv itself is not told that it is root.
    let mut command = identity.command(Path::new("/usr/bin/env"));
    command.arg(format!("LD_PRELOAD={}", shim.display()));
    command.arg(master).arg("-c").arg(folder.join("conf")).arg("-s");
    let log = folder.join("postfix.log");
    let logged = || fs::metadata(&log).map_or(0, |log| log.len());
    let before = logged();
    let process = Process::start("Postfix", &command, &folder.join("postfix.out"))?;
    for port in ports {
        process.wait_until(START_TIMEOUT, || TcpStream::connect(("127.0.0.1", *port)).ok())?;
    }
    process.wait_until(START_TIMEOUT, || (greets(ports[0]) && logged() > before).then_some(()))?;
    Ok(process)
}

/// Does the submission port say its 220?
fn greets(port: u16) -> bool {
    let Ok(mut connection) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut greeting = [0; 4];
    connection.set_read_timeout(Some(Duration::from_secs(10))).is_ok()
        && connection.read_exact(&mut greeting).is_ok()
        && &greeting == b"220 "
}

/// Makes `fakeids.so` in `folder`.
pub fn compile_shim(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("fakeids.c"), folder.join("fakeids.so"));
    fs::write(&source, include_str!("fakeids.c"))?;
    let mut cc = Command::new(process::on_path("cc")?);
    let output = cc.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).output()?;
    if !output.status.success() {
        return Err(Error::new(format!("cc: {}", String::from_utf8_lossy(&output.stderr))));
    }
    Ok(library)
}

fn main_cf(folder: &Path, ca: &Ca, dovecot: &Dovecot, identity: &Identity, options: &Options) -> Result<String> {
    let (default_privs, setgid_group) = identity.somebody_else()?;
    let user = &identity.user;
    let daemons = process::installed(&["/usr/lib/postfix/sbin", "/usr/libexec/postfix"])?;
    let (folder, daemons) = (folder.display(), daemons.display());
    let (certificate, key) = (ca.server_certificate.display(), ca.server_key.display());
    let (lmtp, sasl) = (dovecot.lmtp_socket(), dovecot.auth_socket());
    let (lmtp, sasl) = (lmtp.display(), sasl.display());
    let size = options.message_size_limit;
    let more = &options.postfix_extra;
    Ok(format!(
        "compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
meta_directory = {folder}/conf
command_directory = /usr/sbin
daemon_directory = {daemons}
shlib_directory = /usr/lib/postfix
mail_owner = {user}
# These two must only exist and differ.
default_privs = {default_privs}
setgid_group = {setgid_group}
# The shim must reach every daemon.
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME LD_PRELOAD
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
myhostname = mail.{DOMAIN}
mydestination =
alias_maps =
alias_database =
message_size_limit = {size}
mailbox_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_domains = {DOMAIN}
virtual_mailbox_maps = texthash:{folder}/conf/users
transport_maps = inline:{{ sink@{DOMAIN}=discard: }}
virtual_transport = lmtp:unix:{lmtp}
default_transport = error:5.7.1 nothing leaves the tests
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
smtpd_sasl_security_options = noanonymous
smtpd_sender_login_maps = texthash:{folder}/conf/senders
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_client_connection_rate_limit = 0
# In order, not in parallel: what was sent first arrives first.
lmtp_destination_concurrency_limit = 1
{more}
"
    ))
}

fn master_cf(submission_port: u16, smtps_port: u16) -> String {
    let login = "  -o smtpd_sasl_auth_enable=yes
  -o smtpd_client_restrictions=permit_sasl_authenticated,reject
  -o smtpd_sender_restrictions=reject_sender_login_mismatch
";
    format!(
        "127.0.0.1:{smtps_port} inet n - n - - smtpd
  -o syslog_name=postfix/smtps
  -o smtpd_tls_wrappermode=yes
{login}127.0.0.1:{submission_port} inet n - n - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_tls_auth_only=yes
{login}pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"
    )
}
