//! Who may see whom (the design's rules 1, 2, 6 and 7), read from the sources: names file and line of an offence.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From below to above; a file imports only from its own layer and from below. What is not named here is a leaf.
const LAYERS: [&str; 8] = ["net", "settings", "store", "oauth", "message", "transport", "session", "hooks"];
const LEAVES: [&str; 6] = ["clock", "error", "guard", "limits", "log", "secret"];

/// Which of our own packages each package may name in its Cargo.toml.
const PACKAGES: [(&str, &[&str]); 4] = [
    ("host-sample", &["oauth-mail-abi"]),
    ("plugin", &["oauth-mail-abi", "oauth-mail-core"]),
    ("plugin/core", &[]),
    ("plugin/abi", &[]),
];

/// Where `unsafe` may stand: files, or folders with a slash at the end.
const UNSAFE_ALLOWED: [&str; 4] =
    ["plugin/src/c_abi.rs", "plugin/src/rust_abi.rs", "plugin/src/handle.rs", "plugin/abi/src/"];

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
    let allowed = ["plugin/core/src/guard.rs", "plugin/abi/src/library.rs"];
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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
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

/// Every source file of the product below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    let tests: Vec<_> = files.iter().flat_map(|file| test_modules(file)).collect();
    files.retain(|file| !tests.contains(file));
    files.sort();
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules", "tests"].contains(&name.as_str()) {
            collect(&path, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

/// Lines on which a word stands.
fn words(code: &str, word: &str) -> Vec<usize> {
    positions(code, word).map(|at| line_of(code, at)).collect()
}

fn positions<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !code[..at].ends_with(inside) && !code[at + word.len()..].starts_with(inside))
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The source without comments, the contents of strings, and what only tests have; lines keep their numbers.
fn product_code(source: &str) -> String {
    const TEST: &str = "#[cfg(test)]";
    let mut code = without_comments_and_strings(source);
    while let Some(start) = code.find(TEST) {
        let item = &code[start + TEST.len()..];
        let end = item.find([';', '{']).unwrap_or(item.len());
        let end = start + TEST.len() + if item[end..].starts_with('{') { end + braces(&item[end..]) } else { end };
        let lines: String = code[start..end].chars().filter(|c| *c == '\n').collect();
        code.replace_range(start..end, &lines);
    }
    code
}

/// Length of what begins with `{`, up to its `}`.
fn braces(text: &str) -> usize {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// Files that are modules of tests only: `#[cfg(test)] mod name;` stands in the file above them.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let source = fs::read_to_string(file).unwrap();
    let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    let mut modules = Vec::new();
    for item in source.split("#[cfg(test)]").skip(1) {
        let head = &item[..item.find([';', '{']).unwrap_or(item.len())];
        if let Some(name) =
            head.split_once("mod ").map(|(_, name)| name.trim()).filter(|_| item[head.len()..].starts_with(';'))
        {
            // `#[path = "x.rs"]` counts from the file's own folder.
            match head.split('"').nth(1) {
                Some(path) => modules.push(file.with_file_name(path)),
                None => modules.extend([folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]),
            }
        }
    }
    modules
}

fn without_comments_and_strings(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest)
        } else if let Some(length) =
            raw_string(rest).filter(|_| !out.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        {
            length
        } else if first == '\'' {
            character(rest)
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        rest = &rest[skipped..];
    }
    out
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = true;
    for (at, character) in rest.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(rest.len(), |at| rest.len() - body.len() + at + end.len()))
}

/// A character literal; of a lifetime only the quote.
fn character(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((after, _))) => rest[after + 1..].find('\'').map_or(1, |at| after + 1 + at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
