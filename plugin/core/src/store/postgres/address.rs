//! The URL of a PostgreSQL store: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslrootcert=FILE`.

use std::{borrow::Cow, env, net::IpAddr, path::PathBuf};

use tokio_postgres::config::{Config, Host, SslMode, TargetSessionAttrs};

use super::super::fault;
use crate::{error::Result, limits};

pub struct Address {
    pub config: Config,
    /// A PEM bundle that is trusted besides the platform's roots.
    pub ca_file: Option<PathBuf>,
    /// For sentences: hosts and database, never the credentials.
    pub shown: String,
}

impl Address {
    /// libpq's URL, with these differences: whatever `sslmode` says, the certificate and its name are verified;
    /// `disable` is for this machine only; `sslrootcert` adds to the platform's roots. Without a password the variable
    /// PGPASSWORD is asked.
    ///
    /// # Errors
    /// `Settings`, in words that hold nothing of the URL's credentials.
    pub fn parse(url: &str) -> Result<Self> {
        let (rest, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut plain, mut ca_file, mut kept) = (false, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", "disable")) => plain = true,
                Some(("sslmode", "allow" | "prefer" | "require" | "verify-ca" | "verify-full")) => {}
                Some(("sslrootcert", "system")) => {}
                Some(("sslrootcert", path)) => ca_file = Some(PathBuf::from(decode(path).as_ref())),
                _ => kept.push(pair),
            }
        }
        // The driver's own error may quote the URL.
        let mut config: Config = format!("{rest}?{}", kept.join("&")).parse().map_err(|_| {
            fault("The store is no PostgreSQL URL, or has an option that is not known.").remedy(
                "Write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with % signs for special characters in the password.",
            )
        })?;
        if config.get_user().is_none_or(str::is_empty) || config.get_hosts().is_empty() {
            return Err(fault("The PostgreSQL URL of the store must name a user and a host.")
                .remedy("Write postgres://USER:PASSWORD@HOST:PORT/DATABASE."));
        }
        let names = [config.get_user(), config.get_dbname()];
        if names.into_iter().flatten().any(|name| name.chars().any(char::is_control)) {
            return Err(fault("The PostgreSQL URL of the store has a control character in a name.")
                .remedy("Write postgres://USER:PASSWORD@HOST:PORT/DATABASE."));
        }
        if config.get_options().is_some() {
            return Err(fault("The PostgreSQL URL of the store must not have `options`: a pooler loses them.")
                .remedy("Set them for the role instead: ALTER ROLE … SET …."));
        }
        if config.get_password().is_none()
            && let Ok(password) = env::var("PGPASSWORD")
        {
            config.password(password);
        }
        let local = config.get_hosts().iter().all(is_local);
        let sockets = config.get_hosts().iter().all(is_socket);
        if plain && !local {
            return Err(fault("sslmode=disable is for a database on this machine only.")
                .remedy("Remove sslmode from the URL; for a private authority, name its PEM file: sslrootcert=FILE."));
        }
        config
            .ssl_mode(if plain || sockets { SslMode::Disable } else { SslMode::Require })
            .connect_timeout(limits::STORE_CONNECT_TIMEOUT)
            .tcp_user_timeout(limits::STORE_TIMEOUT)
            .keepalives_idle(limits::STORE_TIMEOUT)
            // A standby cannot be written to.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .application_name("oauth-mail");
        let shown = shown(&config);
        Ok(Self { config, ca_file, shown })
    }
}

fn shown(config: &Config) -> String {
    let hosts = config.get_hosts().iter().enumerate().map(|(at, host)| match host {
        Host::Tcp(name) => {
            let ports = config.get_ports();
            match ports.get(at).or(ports.first()) {
                Some(port) => format!("{name}:{port}"),
                None => name.clone(),
            }
        }
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    });
    let hosts = hosts.collect::<Vec<_>>().join(",");
    format!("PostgreSQL {hosts}/{}", config.get_dbname().or(config.get_user()).unwrap_or_default())
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn is_socket(host: &Host) -> bool {
    !matches!(host, Host::Tcp(_))
}

fn decode(text: &str) -> Cow<'_, str> {
    // A `+` stands for itself in libpq's URLs.
    let escaped = format!("x={}", text.replace('+', "%2B"));
    let value = url::form_urlencoded::parse(escaped.as_bytes()).next().map(|(_, value)| value.into_owned());
    value.map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_elsewhere_is_always_encrypted() {
        for mode in ["", "?sslmode=prefer", "?sslmode=allow", "?sslmode=require", "?sslmode=verify-full"] {
            let address = Address::parse(&format!("postgres://u:p@db.corp.test/d{mode}")).unwrap();
            assert_eq!(address.config.get_ssl_mode(), SslMode::Require, "{mode}");
        }
        for url in
            ["postgres://u@db.corp.test/d?sslmode=disable", "postgres://u@localhost,db.corp.test/d?sslmode=disable"]
        {
            assert!(Address::parse(url).err().unwrap().message().contains("this machine only"), "{url}");
        }
        for url in [
            "postgres://u@localhost/d?sslmode=disable",
            "postgres://u@127.0.0.1/d?sslmode=disable",
            "postgres://u@%2Frun%2Fpostgresql/d",
        ] {
            assert_eq!(Address::parse(url).unwrap().config.get_ssl_mode(), SslMode::Disable, "{url}");
        }
    }

    #[test]
    fn nothing_of_the_credentials_is_in_a_sentence() {
        for url in [
            "postgres://anna:hunter2@h:99999/d",
            "postgres://anna:hunter2@h/d?colour=red",
            "postgres://anna:hunter2@h/d?options=-c%20x=1",
            "postgres://:hunter2@h/d",
            "postgres://anna:hunter2@",
        ] {
            let error = Address::parse(url).err().unwrap_or_else(|| panic!("{url}"));
            assert!(!format!("{error:?}{}", error.to_json()).contains("hunter2"), "{url}");
        }
        let address = Address::parse("postgresql://anna:hunter2@a,b:1/d?sslrootcert=/etc/a%20b+c.pem").unwrap();
        assert!(!address.shown.contains("hunter2") && address.shown.contains("/d"), "{}", address.shown);
        assert_eq!(address.ca_file, Some(PathBuf::from("/etc/a b+c.pem")));
        assert_eq!(address.config.get_password(), Some(&b"hunter2"[..]));
    }
}
