//! Which hosts and libraries work together, by running the pairs: every released C header, and the Rust interface, with the
//! library of this tree. Libraries that were released before lie in OAUTH_MAIL_RELEASES (files `liboauth_mail-VERSION.so`);
//! nothing was released before 1.0, so without it there is one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use oauth_mail_abi::Library;
use oauth_mail_tests::{built, sources::root};

/// Name and file.
fn libraries() -> Vec<(String, PathBuf)> {
    let mut libraries = vec![("this tree".to_owned(), built::library())];
    if let Some(folder) = env::var_os("OAUTH_MAIL_RELEASES") {
        for entry in fs::read_dir(folder).unwrap().map_while(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(version) = name.strip_prefix("liboauth_mail-").and_then(|name| name.strip_suffix(".so")) {
                libraries.push((version.to_owned(), entry.path()));
            }
        }
    }
    libraries
}

/// `oauth_mail.h` and those of earlier releases.
fn headers() -> Vec<(String, PathBuf)> {
    let mut headers: Vec<_> = fs::read_dir(root().join("plugin/include"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name.strip_prefix("oauth_mail-").map_or("this tree".to_owned(), str::to_owned), path)
        })
        .collect();
    headers.sort();
    headers
}

fn host(folder: &Path, header: &Path) -> PathBuf {
    let include = folder.join("include");
    fs::create_dir_all(&include).unwrap();
    fs::copy(header, include.join("oauth_mail.h")).unwrap();
    let program = folder.join("host");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-D_GNU_SOURCE", "-I"]).arg(include).arg(root().join("tests/c/matrix.c"));
    assert!(gcc.arg("-o").arg(&program).args(["-ldl", "-lpthread"]).status().unwrap().success());
    program
}

fn works_in_c(header: &Path, library: &Path) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let program = host(folder.path(), header);
    let output = Command::new(program).arg(library).arg(folder.path().join("store.db")).arg("3").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let last = said.lines().last().unwrap_or_default().to_owned();
    if output.status.success() { Ok(last) } else { Err(said) }
}

#[test]
fn every_host_works_with_every_library() {
    let mut wrong = Vec::new();
    println!("| host | library | |\n|---|---|---|");
    for (library_name, library) in libraries() {
        for (header_name, header) in headers() {
            let outcome = works_in_c(&header, &library);
            let shown = outcome.as_ref().map_or("DOES NOT WORK", String::as_str);
            println!("| C, header {header_name} | {library_name} | {shown} |");
            wrong.extend(outcome.err());
        }
        let outcome = Library::load(&library).map(|library| format!("loads, interface {}", library.abi_version()));
        let shown = outcome.as_ref().map_or_else(ToString::to_string, Clone::clone);
        println!("| Rust, this tree | {library_name} | {shown} |");
        wrong.extend(outcome.err().map(|error| error.to_string()));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
