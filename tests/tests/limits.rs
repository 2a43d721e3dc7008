//! Every number lives once, in limits.rs (the design's rule 9), read from the sources.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs};

use oauth_mail_tests::sources::{line_of, positions, product_code, root, sources};

const LIMITS: &str = "plugin/core/src/limits.rs";
/// From here on a whole number is taken for a limit, and a duration in the code for a wait that needs a reason.
const LARGE: u64 = 1_000;
const LONG_MS: u64 = 5_000;
/// Seconds in an hour and in a day: units, not choices.
const UNITS: [u64; 2] = [3_600, 86_400];

/// Facts of somebody else's that cannot be chosen otherwise.
const FACTS: [(&str, Option<u64>, &str); 6] = [
    ("message/date.rs", None, "years of two and three digits, RFC 5322 section 4.3"),
    ("net/egress.rs", None, "addresses of the IANA registries and of metadata services"),
    ("settings/form.rs", Some(65_535), "TCP ports"),
    ("settings/check.rs", Some(9_007_199_254_740_991), "the last integer that JSON's numbers hold exactly"),
    ("message/compose.rs", Some(253_402_300_799), "the last second of RFC 5322"),
    ("store/sqlite.rs", Some(0x4f41_4d4c), "the application id of the file format"),
];

#[test]
fn no_large_number_stands_outside_of_limits() {
    let mut offences = Vec::new();
    let mut facts: BTreeMap<usize, bool> = (0..FACTS.len()).map(|index| (index, false)).collect();
    for (name, code) in core_code() {
        for (at, value) in numbers(&code) {
            let fact = FACTS.iter().position(|(file, fact, _)| {
                name.ends_with(file) && fact.is_none_or(|fact| fact == value) && value >= LARGE
            });
            if let Some(index) = fact {
                facts.insert(index, true);
            } else if value >= LARGE && !UNITS.contains(&value) {
                offences.push(format!("{name}:{}: {value}", line_of(&code, at)));
            }
        }
    }
    assert!(offences.is_empty(), "give these a name and a reason in {LIMITS}:\n{}", offences.join("\n"));
    let stale: Vec<_> = facts.iter().filter(|(_, seen)| !**seen).map(|(index, _)| FACTS[*index].2).collect();
    assert!(stale.is_empty(), "no longer in the code, take them out of FACTS: {stale:?}");
}

#[test]
fn no_wait_is_chosen_outside_of_limits() {
    let mut offences = Vec::new();
    for (name, code) in core_code() {
        for (unit, in_ms) in
            [("from_secs", 1_000), ("from_millis", 1), ("from_mins", 60_000), ("from_hours", 3_600_000)]
        {
            for at in positions(&code, unit) {
                let argument = code[at + unit.len()..].trim_start_matches('(').split(')').next().unwrap_or_default();
                let value = argument.replace('_', "").parse::<u64>();
                if value.is_ok_and(|value| value.saturating_mul(in_ms) > LONG_MS) {
                    offences.push(format!("{name}:{}: {unit}({argument})", line_of(&code, at)));
                }
            }
        }
    }
    assert!(offences.is_empty(), "give these a name and a reason in {LIMITS}:\n{}", offences.join("\n"));
}

#[test]
fn every_limit_is_used_and_says_why() {
    let text = fs::read_to_string(root().join(LIMITS)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let all: String = core_code().into_iter().map(|(_, code)| code).collect::<Vec<_>>().join("\n");
    let mut offences = Vec::new();
    let mut seen = 0;
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = line.strip_prefix("pub const ").and_then(|rest| rest.split(':').next()) else { continue };
        seen += 1;
        if positions(&all, name).next().is_none() {
            offences.push(format!("{name} is not used"));
        }
        // A pair may share one reason: it stands above the first of them.
        let above = lines[..index]
            .iter()
            .rev()
            .take_while(|above| !above.is_empty())
            .find(|above| !above.starts_with("pub const") && !above.starts_with("    "));
        if !above.is_some_and(|above| above.starts_with("/// ")) {
            offences.push(format!("{name} says nothing about itself"));
        }
    }
    assert!(seen > 50, "only {seen} limits were found: does this test still read the file?");
    assert!(offences.is_empty(), "{LIMITS}:\n{}", offences.join("\n"));
}

#[test]
fn this_test_sees_what_it_looks_for() {
    let code = product_code(
        "let a = 8 * 1024; // 9999\nlet b = [0u8; 4_096]; \"7777\"; x1234; 1 << 20; 0x1000; 2.5; 12..3000",
    );
    let found: Vec<u64> = numbers(&code).into_iter().map(|(_, value)| value).filter(|value| *value >= LARGE).collect();
    assert_eq!(found, [1024, 4_096, 1 << 20, 0x1000, 3000]);
}

/// Name and code of every file of the core but limits.rs.
fn core_code() -> Vec<(String, String)> {
    let name = |file: &std::path::Path| file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    sources(&root().join("plugin/core/src"))
        .iter()
        .map(|file| (name(file), product_code(&fs::read_to_string(file).unwrap())))
        .filter(|(name, _)| name != LIMITS)
        .collect()
}

/// Whole numbers and where they stand; `1 << n` is one number.
fn numbers(code: &str) -> Vec<(usize, u64)> {
    let mut found: Vec<(usize, u64)> = Vec::new();
    let mut at = 0;
    let mut shifted = false;
    while let Some(start) = code[at..].find(|c: char| c.is_alphanumeric() || c == '_').map(|skip| at + skip) {
        let word = &code[start..];
        let word = &word[..word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len())];
        let gap = &code[at..start];
        at = start + word.len();
        let value = value_of(word);
        if let (Some(shift), true, Some(last)) = (value, gap.trim() == "<<", found.last_mut()) {
            if !shifted {
                last.1 = last.1.checked_shl(u32::try_from(shift).unwrap_or(64)).unwrap_or(u64::MAX);
            }
            shifted = true;
        } else if let Some(value) = value {
            found.push((start, value));
            shifted = false;
        }
    }
    found
}

fn value_of(word: &str) -> Option<u64> {
    let digits = word.replace('_', "");
    let digits = ["u8", "u16", "u32", "u64", "usize", "i32", "i64"]
        .iter()
        .find_map(|suffix| digits.strip_suffix(suffix))
        .unwrap_or(&digits);
    match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}
