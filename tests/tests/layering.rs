//! Who may see whom (the design's rules 1, 2, 6 and 7), read from the sources: names file and line of an offence.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use oauth_mail_tests::sources::{line_of, positions, product_code, root, sources, words};

/// From below to above; a file imports only from its own layer and from below. What is not named here is a leaf.
const LAYERS: [&str; 8] = ["net", "settings", "store", "oauth", "message", "transport", "session", "hooks"];
const LEAVES: [&str; 12] =
    ["call", "clock", "error", "guard", "hex", "limits", "log", "machine", "remedies", "seam", "secret", "worker"];

/// Which of our own packages each package may name in its Cargo.toml.
const PACKAGES: [(&str, &[&str]); 4] = [
    ("host-sample", &["oauth-mail-abi"]),
    ("plugin", &["oauth-mail-abi", "oauth-mail-core"]),
    ("plugin/core", &[]),
    ("plugin/abi", &[]),
];

/// Where `unsafe` may stand: files, or folders with a slash at the end.
const UNSAFE_ALLOWED: [&str; 6] = [
    "plugin/src/c_abi/mod.rs",
    "plugin/src/c_abi/types.rs",
    "plugin/src/rust_abi.rs",
    "plugin/src/handle.rs",
    "plugin/src/sqlite_locks.rs",
    "plugin/abi/src/",
];

#[test]
fn packages_see_only_what_they_may() {
    let mut offences = Vec::new();
    for (package, allowed) in PACKAGES {
        let manifest = root().join(package).join("Cargo.toml");
        let mut section = String::new();
        for (number, line) in fs::read_to_string(&manifest).unwrap().lines().enumerate() {
            if let Some(name) = line.trim().strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            }
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            // Development dependencies do not reach anybody who uses the package.
            let counts = section.ends_with("dependencies") && !section.contains("dev-");
            if counts && name.starts_with("oauth-mail") && !allowed.contains(&name) {
                offences.push(format!("{package}/Cargo.toml:{}: {package} must not see {name}", number + 1));
            }
        }
    }
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn core_imports_only_from_below() {
    let folder = root().join("plugin/core/src");
    let mut offences = Vec::new();
    for file in sources(&folder) {
        let relative = file.strip_prefix(&folder).unwrap();
        let module = module_path(relative);
        // lib.rs is the map: it names everything.
        let Some(own) = module.first() else { continue };
        for (line, imported) in top_level_imports(&product_code(&fs::read_to_string(&file).unwrap()), &module) {
            if layer(&imported) > layer(own) {
                let name = relative.display();
                offences.push(format!(
                    "plugin/core/src/{name}:{line}: {own} must not import {imported}, which is above it"
                ));
            }
        }
    }
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn every_module_of_core_has_a_layer() {
    let text = fs::read_to_string(root().join("plugin/core/src/lib.rs")).unwrap();
    let modules = text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let unknown: Vec<_> = modules
        .map(|name| name.trim_end_matches(';'))
        .filter(|name| !LAYERS.contains(name) && !LEAVES.contains(name))
        .collect();
    assert!(unknown.is_empty(), "give these a place in LAYERS or LEAVES: {unknown:?}");
}

#[test]
fn unsafe_only_at_the_borders() {
    let folders = ["plugin", "host-sample/src", "schema/src", "tests/src"];
    let allowed =
        |file: &str| UNSAFE_ALLOWED.iter().any(|one| file == *one || one.ends_with('/') && file.starts_with(one));
    let offences = find(&folders, |_, code| words(code, "unsafe"), allowed);
    assert!(offences.is_empty(), "`unsafe` stands in\n{}", offences.join("\n"));
}

#[test]
fn panics_are_caught_in_one_place() {
    // The second place runs in the host: its own log callback must not unwind into the library.
    let allowed = ["plugin/core/src/guard.rs", "plugin/abi/src/library.rs", "plugin/abi/src/health.rs"];
    let offences = find(&["plugin"], |_, code| words(code, "catch_unwind"), |file| allowed.contains(&file));
    assert!(offences.is_empty(), "`catch_unwind` stands in\n{}", offences.join("\n"));
}

#[test]
fn one_way_out() {
    let search = |_: &str, code: &str| {
        ["TcpStream::connect", "UdpSocket::bind", "TcpListener::bind"].iter().flat_map(|w| words(code, w)).collect()
    };
    let offences = find(&["plugin"], search, |file| file.starts_with("plugin/core/src/net/"));
    assert!(offences.is_empty(), "connections are opened outside net/ in\n{}", offences.join("\n"));
}

#[test]
fn locks_and_clocks_pass_the_seam() {
    let search = |_: &str, code: &str| {
        let past = ["Instant::now", "SystemTime::now", "now_utc", "thread::sleep", ".lock().unwrap_or_else"];
        past.iter().flat_map(|one| positions(code, one).map(|at| line_of(code, at)).collect::<Vec<_>>()).collect()
    };
    let offences = find(&["plugin/core/src"], search, |file| file.starts_with("plugin/core/src/seam/"));
    assert!(offences.is_empty(), "use core/src/seam (lock, instant, wall, sleep) in\n{}", offences.join("\n"));
}

#[test]
fn the_reader_of_sources_is_not_fooled() {
    let source = r##"// use crate::hooks;
/* crate::hooks /* nested */ crate::session */
const TEXT: &str = "crate::hooks \" still";
const RAW: &str = r#"crate::hooks " "#;
const QUOTE: char = '"';
fn lifetime<'a>(x: &'a str) -> &'a str { x }
use crate::{
    error::{Error, hooks},
    session::Session,
};
fn path() { crate::oauth::refresh(); super::sibling(); super::super::transport::open(); }
use super::{other, super::store};
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests { use crate::{hooks, session}; }
fn after() { crate::clock::now(); }
"##;
    let module = vec!["net".to_owned(), "tls".to_owned()];
    let found = top_level_imports(&product_code(source), &module);
    let expected: [(usize, &str); 8] = [
        (8, "error"),
        (9, "session"),
        (11, "oauth"),
        (11, "net"),
        (11, "transport"),
        (12, "net"),
        (12, "store"),
        (17, "clock"),
    ];
    let mut found: Vec<_> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
    found.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(words("unsafe_code; my_unsafe; unsafe {\nunsafe", "unsafe"), [1, 2]);
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|one| *one == module).map_or(0, |place| place + 1)
}

/// `net/tls.rs` is `["net", "tls"]`, `net/mod.rs` is `["net"]`, `lib.rs` is `[]`.
fn module_path(file: &Path) -> Vec<String> {
    let mut path: Vec<_> = file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod" || last == "lib") {
        path.pop();
    }
    path
}

/// Line and top-level module of every path in this code that starts at `crate` or `super`, nested ones included.
fn top_level_imports(code: &str, module: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, keyword) in ["crate", "super"].iter().flat_map(|word| positions(code, word).map(move |at| (at, *word)))
    {
        // `a::super::b` inside braces is read from its own `super`; `pub(crate)` and `super` without a path are nothing.
        let Some(rest) = code[start + keyword.len()..].strip_prefix("::") else { continue };
        let base = if keyword == "crate" { &[][..] } else { &module[..module.len().saturating_sub(1)] };
        // `super::super::x`: only the first `super` of a chain is a beginning.
        if keyword == "super" && code[..start].ends_with("super::") {
            continue;
        }
        read_tree(rest, code.len() - rest.len(), base, &mut |at, path: &[String]| {
            if let Some(top) = path.first() {
                found.push((line_of(code, at), top.clone()));
            }
        });
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Reads what stands after `crate::` or `super::`: a name, another `super::`, or a list of them in braces.
fn read_tree(rest: &str, at: usize, base: &[String], report: &mut impl FnMut(usize, &[String])) {
    let skipped = rest.len() - rest.trim_start().len();
    let (rest, at) = (&rest[skipped..], at + skipped);
    if let Some(list) = rest.strip_prefix('{') {
        let (mut depth, mut begin) = (1, 0);
        for (index, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => {
                    read_tree(&list[begin..index], at + 1 + begin, base, report);
                    begin = index + 1;
                }
                _ => {}
            }
            if depth == 0 {
                read_tree(&list[begin..index], at + 1 + begin, base, report);
                return;
            }
        }
    } else if let Some(rest) = rest.strip_prefix("super::") {
        read_tree(rest, at + "super::".len(), &base[..base.len().saturating_sub(1)], report);
    } else {
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !name.is_empty() {
            let path: Vec<_> = base.iter().cloned().chain([name]).collect();
            report(at, &path);
        }
    }
}

/// Files in which `search` finds lines, except those that are `allowed`: `file:line`.
fn find(folders: &[&str], search: impl Fn(&str, &str) -> Vec<usize>, allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut offences = Vec::new();
    for file in folders.iter().flat_map(|folder| sources(&root().join(folder))) {
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        if !allowed(&name) {
            let code = product_code(&fs::read_to_string(&file).unwrap());
            offences.extend(search(&name, &code).iter().map(|line| format!("{name}:{line}")));
        }
    }
    offences
}
