//! The sandbox as a program: `up` until standard input ends, `consent` as a person.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    fs,
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc,
    thread,
};

use clap::{Parser, Subcommand};
use oauth_mail_sandbox::{
    Config, Error, Result, Sandbox, admin,
    browser::{self, Person},
};

/// A mail provider on loopback to develop against: OAuth, IMAP, SMTP, EWS and Microsoft Graph, with faults on request.
#[derive(Parser)]
#[command(version, after_help = format!("What real providers do and this one does not:\n{}", admin::GAPS))]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start, print one JSON line, and run until standard input ends or a signal comes.
    Up {
        /// Names of the people: NAME@example.test with the password NAME-password.
        #[arg(long, value_delimiter = ',')]
        users: Vec<String>,
        /// People, mailboxes and clients as JSON, instead of the default that `GET /_sandbox` shows.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Ports of HTTPS, IMAPS, SMTPS and submission; 0 is chosen by the system.
        #[arg(long, value_delimiter = ',', default_value = "0,0,0,0")]
        ports: Vec<u16>,
        /// Stay until a signal comes, even if standard input ends.
        #[arg(long)]
        stay: bool,
    },
    /// Sign in and consent like a person in a browser, and end at the application's redirect URL.
    Consent {
        /// The certificate authority to trust.
        #[arg(long)]
        ca: PathBuf,
        /// The authorize URL that the application printed.
        #[arg(long)]
        url: String,
        #[arg(long)]
        login: String,
        #[arg(long)]
        password: String,
        /// Press "Deny" instead of "Allow".
        #[arg(long)]
        deny: bool,
        /// Print the redirect URL instead of opening it.
        #[arg(long)]
        print: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().action {
        Action::Up { users, config, ports, stay } => up(&users, config, &ports, stay),
        Action::Consent { ca, url, login, password, deny, print } => {
            let person = Person { login: &login, password: &password, deny };
            browser::walk(&ca, &url, &person).and_then(|redirect| {
                let said = if print { redirect.to_string() } else { browser::follow(&ca, &redirect)? };
                println!("{said}");
                Ok(())
            })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oauth-mail-sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn up(users: &[String], config: Option<PathBuf>, ports: &[u16], stay: bool) -> Result<()> {
    let mut config = match config {
        Some(path) => {
            let text = fs::read(&path).map_err(Error::doing(path.display()))?;
            serde_json::from_slice(&text).map_err(Error::doing(path.display()))?
        }
        None => Config::default(),
    };
    if !users.is_empty() {
        config.users = users.iter().map(|name| Config::user(name)).collect();
    }
    let ports = <[u16; 4]>::try_from(ports).map_err(|_| Error::new("--ports takes four numbers"))?;
    let (end, ended) = mpsc::channel();
    ctrlc::set_handler({
        let end = end.clone();
        move || {
            let _ = end.send(());
        }
    })
    .map_err(Error::doing("waiting for signals"))?;
    if !stay {
        thread::spawn(move || {
            let mut nobody_reads = [0; 256];
            while io::stdin().read(&mut nobody_reads).is_ok_and(|count| count > 0) {}
            let _ = end.send(());
        });
    }
    let sandbox = Sandbox::start_on(config, ports)?;
    writeln!(io::stdout(), "{}", sandbox.facts())?;
    let _ = ended.recv();
    Ok(())
}
