//! Dovecot: IMAPS with XOAUTH2 and OAUTHBEARER only, LMTP, and the SASL socket that Postfix asks.

use std::{
    fs,
    io::{BufReader, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use crate::{
    Error, MailboxFormat, Options, Result,
    ca::Ca,
    identity::Identity,
    idp::{DOVECOT, Idp, User},
    process::{self, Process},
    wire,
};

const START_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Dovecot {
    process: Process,
    /// IMAPS.
    pub port: u16,
    folder: PathBuf,
    identity: Identity,
}

impl Dovecot {
    pub fn start(folder: &Path, ca: &Ca, idp: &Idp, users: &[User], options: &Options, port: u16) -> Result<Self> {
        let identity = Identity::of_servers()?;
        for sub in ["run", "lib", "mail"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        fs::write(folder.join("passwd"), passwd(folder, users, &identity, options.format))?;
        for (file, attribute) in [("oauth2.conf.ext", "email"), ("delegate.conf.ext", "delegate_of")] {
            fs::write(folder.join(file), introspection(ca, idp, attribute))?;
        }
        fs::write(folder.join("dovecot.conf"), configuration(folder, ca, &identity, options, port))?;
        identity.give(folder)?;
        let process = launch(folder, &identity, port)?;
        Ok(Self { process, port, folder: folder.to_owned(), identity })
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// In order: clients that are connected hear BYE.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Without a word: connections break.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// On the same port, with the same mail.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        self.process = launch(&self.folder, &self.identity, self.port)?;
        Ok(())
    }

    /// What Postfix asks whether a token is good.
    pub fn auth_socket(&self) -> PathBuf {
        self.folder.join("run/auth-smtp")
    }

    pub fn lmtp_socket(&self) -> PathBuf {
        self.folder.join("run/lmtp")
    }

    /// Runs `doveadm` with these arguments, for example `["expunge", "-u", address, "mailbox", "INBOX", "all"]`.
    pub fn doveadm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.identity.command(&process::installed(&["/usr/bin/doveadm"])?);
        command.arg("-c").arg(self.folder.join("dovecot.conf")).args(arguments);
        let Output { status, stdout, stderr } = command.output().map_err(Error::doing("running doveadm"))?;
        if !status.success() {
            let said = String::from_utf8_lossy(&stderr);
            return Err(Error::new(format!("doveadm {}: {status}: {}", arguments.join(" "), said.trim())));
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// Delivers through LMTP (RFC 2033), as Postfix does.
    pub fn deliver(&self, address: &str, raw: &[u8]) -> Result<()> {
        let mut stream = BufReader::new(UnixStream::connect(self.lmtp_socket())?);
        let expect = |stream: &mut BufReader<UnixStream>, want: u16| match wire::smtp_reply(stream)? {
            (code, _) if code == want => Ok(()),
            (code, text) => Err(Error::new(format!("LMTP says {code} {text}"))),
        };
        expect(&mut stream, 220)?;
        let envelope =
            ["LHLO tests".to_owned(), "MAIL FROM:<sender@outside.test>".into(), format!("RCPT TO:<{address}>")];
        for command in envelope {
            write!(stream.get_mut(), "{command}\r\n")?;
            expect(&mut stream, 250)?;
        }
        stream.get_mut().write_all(b"DATA\r\n")?;
        expect(&mut stream, 354)?;
        stream.get_mut().write_all(&wire::dot_stuffed(raw))?;
        expect(&mut stream, 250)
    }

    /// Puts messages into a folder, byte for byte as they are, quickly.
    pub fn fill(&self, address: &str, folder: &str, messages: impl Iterator<Item = Vec<u8>>) -> Result<()> {
        let maildir = tempfile::Builder::new().prefix("fill").tempdir_in(&self.folder)?;
        fs::set_permissions(maildir.path(), fs::Permissions::from_mode(0o755))?;
        for sub in ["cur", "new", "tmp"] {
            fs::create_dir(maildir.path().join(sub))?;
        }
        for (number, raw) in messages.enumerate() {
            // The name orders them; S= saves Dovecot a stat(2) each.
            fs::write(maildir.path().join(format!("cur/{number:09}.tests,S={}:2,", raw.len())), raw)?;
        }
        self.identity.give(maildir.path())?;
        let source = format!("maildir:{}", maildir.path().display());
        self.doveadm(&["import", "-u", address, "-s", &source, "", "mailbox", "INBOX", "all"])?;
        if folder != "INBOX" {
            let _ = self.doveadm(&["mailbox", "create", "-u", address, folder]);
            self.doveadm(&["move", "-u", address, folder, "mailbox", "INBOX", "all"])?;
        }
        Ok(())
    }

    /// How many messages a folder holds.
    pub fn count(&self, address: &str, folder: &str) -> Result<usize> {
        let text = self.doveadm(&["mailbox", "status", "-u", address, "messages", folder])?;
        let number = text.trim().rsplit('=').next().and_then(|n| n.parse().ok());
        number.ok_or_else(|| Error::new(format!("doveadm says {text:?}")))
    }
}

fn launch(folder: &Path, identity: &Identity, port: u16) -> Result<Process> {
    let mut command = identity.command(&process::installed(&["/usr/sbin/dovecot"])?);
    command.arg("-F").arg("-c").arg(folder.join("dovecot.conf"));
    let process = Process::start("Dovecot", &command, &folder.join("dovecot.out"))?;
    process.wait_until(START_TIMEOUT, || TcpStream::connect(("127.0.0.1", port)).ok())?;
    Ok(process)
}

fn passwd(folder: &Path, users: &[User], identity: &Identity, format: MailboxFormat) -> String {
    let location = match format {
        MailboxFormat::Maildir => "maildir:~/Maildir",
        MailboxFormat::Mdbox => "mdbox:~/mdbox",
    };
    let line = |user: &User| {
        let home = folder.join("mail").join(user.address.split('@').next().unwrap_or_default());
        let Identity { uid, gid, .. } = identity;
        format!("{}::{uid}:{gid}::{}::userdb_mail={location}\n", user.address, home.display())
    };
    users.iter().map(line).collect()
}

/// `attribute`: of the introspection's answer; what the login must be.
fn introspection(ca: &Ca, idp: &Idp, attribute: &str) -> String {
    let (client, secret) = DOVECOT;
    format!(
        "introspection_mode = post
introspection_url = https://{client}:{secret}@localhost:{}/token/introspection
username_attribute = {attribute}
username_format = %Lu
active_attribute = active
active_value = true
scope = mail
tls_ca_cert_file = {}
timeout_msecs = 5000
",
        idp.port,
        ca.ca_file.display()
    )
}

fn configuration(folder: &Path, ca: &Ca, identity: &Identity, options: &Options, port: u16) -> String {
    let (folder, user, group) = (folder.display(), &identity.user, &identity.group);
    let (certificate, key) = (ca.server_certificate.display(), ca.server_key.display());
    let capability =
        options.imap_capability.as_ref().map(|list| format!("imap_capability = {list}\n")).unwrap_or_default();
    let connections = options.max_connections_per_user;
    // After the owner's own: who is not the owner may be a delegate.
    let delegates = match options.delegates.is_empty() {
        true => String::new(),
        false => format!(
            "protocol imap {{\n  passdb {{\n    driver = oauth2\n    mechanisms = xoauth2 oauthbearer\n    args = \
             {folder}/delegate.conf.ext\n  }}\n}}\n"
        ),
    };
    let more = &options.dovecot_extra;
    format!(
        r"base_dir = {folder}/run
state_dir = {folder}/lib
instance_name = tests
log_path = {folder}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
{capability}
# No root and no chroot: everything runs as one ordinary user.
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
first_valid_gid = 1

ssl = required
ssl_cert = <{certificate}
ssl_key = <{key}
ssl_min_protocol = TLSv1.2

auth_mechanisms = xoauth2 oauthbearer
auth_username_format = %Lu
auth_verbose = yes
auth_failure_delay = 0 secs
mail_max_userip_connections = {connections}
mail_fsync = never

passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf.ext
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {folder}/passwd
}}
mail_location = maildir:~/Maildir
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Sent {{
    special_use = \Sent
    auto = subscribe
  }}
  mailbox Archive {{
    special_use = \Archive
    auto = create
  }}
  mailbox Trash {{
    special_use = \Trash
    auto = create
  }}
}}

service anvil {{
  chroot =
  # Each failed login would slow the next one from the same address down (2, 4, 8, 15 s).
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  service_count = 0
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {port}
    ssl = yes
  }}
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
}}
service auth {{
  unix_listener auth-smtp {{
    mode = 0666
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@example.test
}}
{delegates}{more}
"
    )
}
