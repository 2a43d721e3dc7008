//! A small but real helpdesk host. It sees the oauth-mail library through `oauth-mail-abi` and nothing else.
//!
//! | file | what |
//! |---|---|
//! | `cli/` | one file per command; `cli/mod.rs` lists them |
//! | `serve/` | a helpdesk with a web page that runs day and night |
//! | `helpdesk`, `database` | requests and messages in SQLite or PostgreSQL; a batch is one transaction |
//! | `deliver` | hands mail to a helpdesk that reads it from a pipe or a POST |
//! | `round` | fetch, import, settle, until the mailbox has no more |
//! | `facts` | reads what the library says about a message |
//! | `listener` | receives the one redirect of a consent on loopback |
//! | `host` | settings file → library → plugin → accounts |
//! | `servers`, `demo` | a provider on loopback, and the whole way through it |
//! | `descriptors` | as many open files as this process may have |
//! | `output`, `progress`, `interrupt`, `failure` | what the terminal sees |

mod cli;
mod database;
mod deliver;
mod demo;
mod descriptors;
mod facts;
mod failure;
mod helpdesk;
mod host;
mod interrupt;
mod listener;
mod output;
mod progress;
mod round;
mod serve;
mod servers;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let output = output::Output::new(arguments.json, arguments.log);
    let result = interrupt::install().and_then(|()| cli::run(arguments, &output));
    match result {
        Ok(()) if interrupt::requested() => ExitCode::from(failure::INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = if interrupt::requested() { failure::INTERRUPTED } else { failure.exit_code() };
            if code != failure::INTERRUPTED {
                output.failure(&failure);
            }
            ExitCode::from(code)
        }
    }
}
