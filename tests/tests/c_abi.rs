//! The C interface: its header compiles as C11 and C++17, what cannot be meant is refused and never a crash, and nothing but
//! the two entry points can be seen from outside. Also with the header as it was first released.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use oauth_mail_tests::{built, sources::root};

/// What `nm -D` shows: the C table and abi_stable's root. A bundled SQLite that leaked would be shared with the host's own,
/// of another version.
const EXPORTED: [&str; 2] = ["_1as_0lib_1header_0root_bmodule_bloader", "oauth_mail_v1_api"];
const CYCLES: &str = "1000";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{text}", output.status);
    text
}

/// A folder with `oauth_mail.h`, which is that file of `plugin/include`.
fn include(folder: &Path, header: &str) -> PathBuf {
    let include = folder.join("include");
    fs::create_dir_all(&include).unwrap();
    fs::copy(root().join("plugin/include").join(header), include.join("oauth_mail.h")).unwrap();
    include
}

fn matrix(folder: &Path, header: &str, flags: &[&str]) -> PathBuf {
    let program = folder.join("matrix");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Werror"]).args(flags);
    gcc.arg("-I").arg(include(folder, header)).arg(root().join("tests/c/matrix.c")).arg("-o").arg(&program);
    run(gcc.args(["-ldl", "-lpthread"]));
    program
}

fn walk(command: &mut Command, folder: &Path, cycles: &str) {
    let said = run(command.arg(built::library()).arg(folder.join("store.db")).arg(cycles));
    let last = said.lines().find_map(|line| line.strip_prefix("matrix: ")).unwrap_or_else(|| panic!("{said}"));
    let (good, all) = last.split_once('/').unwrap();
    assert!(good == all && good.parse::<u32>().unwrap() >= 40, "{said}");
    println!("matrix: {last}");
}

#[test]
fn the_header_is_c11_and_cpp17() {
    for header in ["oauth_mail.h", "oauth_mail-1.0.h"] {
        let folder = tempfile::tempdir().unwrap();
        let include = include(folder.path(), header);
        for (compiler, standard, file) in [("gcc", "-std=c11", "a.c"), ("g++", "-std=c++17", "a.cpp")] {
            let source = folder.path().join(file);
            fs::write(&source, "#include \"oauth_mail.h\"\nint main(void) { return OAUTH_MAIL_OK; }\n").unwrap();
            let mut command = Command::new(compiler);
            command.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c", "-o", "/dev/null"]);
            run(command.arg("-I").arg(&include).arg(source));
        }
    }
}

#[test]
fn what_cannot_be_meant_is_refused_also_by_hosts_of_the_first_release() {
    for header in ["oauth_mail.h", "oauth_mail-1.0.h"] {
        let folder = tempfile::tempdir().unwrap();
        walk(&mut Command::new(matrix(folder.path(), header, &[])), folder.path(), CYCLES);
    }
}

#[test]
fn the_address_sanitizer_finds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"];
    let program = matrix(folder.path(), "oauth_mail.h", &flags);
    // The library is never unloaded, and what it keeps for the whole process is reachable to the end.
    let mut command = Command::new(program);
    walk(command.env("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0"), folder.path(), "20");
}

#[test]
fn valgrind_finds_nothing() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: valgrind is not installed (tests/install.sh installs it)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = matrix(folder.path(), "oauth_mail.h", &[]);
    let mut command = Command::new("valgrind");
    command.args([
        "--error-exitcode=9",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite",
        "--child-silent-after-fork=yes",
        "--quiet",
    ]);
    walk(command.arg(program), folder.path(), "5");
}

#[test]
fn nothing_else_is_visible() {
    let symbols = run(Command::new("nm").args(["-D", "--defined-only"]).arg(built::library()));
    let mut names: Vec<&str> = symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    names.sort_unstable();
    assert_eq!(names, EXPORTED);
    let dynamic = run(Command::new("readelf").args(["-d", "-W"]).arg(built::library()));
    assert!(
        !dynamic.contains("STATIC_TLS"),
        "static thread-local storage: dlopen may fail for want of room\n{dynamic}"
    );
}
