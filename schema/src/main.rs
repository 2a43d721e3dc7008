//! Writes the generated files: the two schemas and the C header; with `--check` only says whether they are up to date.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{env, fs, process::ExitCode};

use oauth_mail_schema::{FILES, folder, header, printed};

fn main() -> ExitCode {
    let check = match env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(_) => {
            eprintln!("usage: oauth-mail-schema [--check]");
            return ExitCode::from(2);
        }
    };
    let mut outcome = ExitCode::SUCCESS;
    let schemas = FILES.map(|(direction, name)| (folder().join(name), Ok(printed(direction))));
    for (path, fresh) in schemas.into_iter().chain([(header::path(), header::printed())]) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fresh = match fresh {
            Ok(fresh) => fresh,
            Err(error) => {
                eprintln!("{name} cannot be made: {error}");
                outcome = ExitCode::FAILURE;
                continue;
            }
        };
        let stored = fs::read_to_string(&path).unwrap_or_default();
        if stored == fresh {
            println!("{name} is up to date");
        } else if check {
            eprintln!("{name} is stale: {}", first_difference(&stored, &fresh));
            eprintln!("Run `cargo run -p oauth-mail-schema` and commit the result.");
            outcome = ExitCode::FAILURE;
        } else if let Err(error) = fs::write(&path, fresh) {
            eprintln!("{} cannot be written: {error}", path.display());
            outcome = ExitCode::FAILURE;
        } else {
            println!("{name} written");
        }
    }
    outcome
}

fn first_difference(stored: &str, fresh: &str) -> String {
    let line = stored.lines().zip(fresh.lines()).take_while(|(a, b)| a == b).count();
    let at = |text: &str| text.lines().nth(line).unwrap_or("(end of file)").trim().to_owned();
    format!("line {}\n  committed: {}\n  generated: {}", line + 1, at(stored), at(fresh))
}
