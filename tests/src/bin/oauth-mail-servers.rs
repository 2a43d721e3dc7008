//! The servers of the tests as a program, for the demonstration and for trying things by hand.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    io::{Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc,
    thread,
};

use clap::{Parser, Subcommand};
use serde_json::json;

use oauth_mail_tests::{
    Error, Options, Result, Servers,
    browser::{self, Person},
    idp,
    servers::{DOMAIN, SCOPE},
};

/// An authorization server, Dovecot and Postfix on loopback, for trying oauth-mail.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start everything, print one JSON line when it is ready, and run until standard input ends or a signal comes.
    Up {
        /// Names of the people: NAME@example.test with the password NAME-password.
        #[arg(long, value_delimiter = ',', default_value = "alice,bob")]
        users: Vec<String>,
        /// Put this many messages into the first person's mailbox.
        #[arg(long, default_value_t = 0)]
        fill: usize,
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
        Action::Up { users, fill } => up(users, fill),
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
            eprintln!("oauth-mail-servers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn up(users: Vec<String>, fill: usize) -> Result<()> {
    // Both ends are watched from the beginning, so that Ctrl-C during the start also ends what was started.
    let (end, ended) = mpsc::channel();
    ctrlc::set_handler({
        let end = end.clone();
        move || {
            let _ = end.send(());
        }
    })
    .map_err(Error::doing("waiting for signals"))?;
    thread::spawn(move || {
        let mut nobody_reads = [0; 256];
        while std::io::stdin().read(&mut nobody_reads).is_ok_and(|count| count > 0) {}
        let _ = end.send(());
    });

    let first = users.first().cloned();
    let servers = Servers::start(Options { users, ..Options::default() })?;
    if let (Some(name), 1..) = (&first, fill) {
        servers.fill(name, fill, 20)?;
    }
    let ready = json!({
        "issuer": servers.idp.issuer,
        "authorize_url": servers.idp.authorize_url(),
        "token_url": servers.idp.token_url(),
        "ca_file": servers.ca_file(),
        "imaps_port": servers.dovecot.port,
        "submission_port": servers.postfix.submission_port,
        "smtps_port": servers.postfix.smtps_port,
        "client_id": idp::NATIVE,
        "domain": DOMAIN,
        "users": servers.users.iter().map(|u| json!({"address": u.address, "password": u.password})).collect::<Vec<_>>(),
        "scope": SCOPE,
    });
    writeln!(std::io::stdout(), "{ready}")?;
    let _ = ended.recv();
    Ok(())
}
