//! The frozen layout. `UPDATE_GOLDEN=1` writes the file anew, which is right only for a new major.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf};

use abi_stable::{
    StableAbi,
    std_types::RStr,
    type_layout::{TLField, TypeLayout},
};
use oauth_mail_abi::{
    health::{HealthCallback, HealthTable},
    parts::PartsTable,
    root::{AccountObject, BatchObject, Extension, HookError, LogCallback, OauthMailModuleRef, PluginObject},
};

#[test]
fn the_health_extension_is_frozen() {
    compare("health-1.golden", &[<HealthTable as StableAbi>::LAYOUT, <HealthCallback as StableAbi>::LAYOUT]);
}

#[test]
fn the_parts_extension_is_frozen() {
    compare("parts-1.golden", &[<PartsTable as StableAbi>::LAYOUT]);
}

#[test]
fn what_crosses_is_frozen() {
    let layouts = [
        <OauthMailModuleRef as StableAbi>::LAYOUT,
        <PluginObject as StableAbi>::LAYOUT,
        <AccountObject as StableAbi>::LAYOUT,
        <BatchObject as StableAbi>::LAYOUT,
        <HookError as StableAbi>::LAYOUT,
        <LogCallback as StableAbi>::LAYOUT,
        <Extension as StableAbi>::LAYOUT,
    ];
    compare("layout-1.0.golden", &layouts);
}

fn compare(file: &str, layouts: &[&'static TypeLayout]) {
    let mut text =
        String::from("# Layout of what crosses, 64 bit. Frozen: see src/lib.rs. Compared by tests/layout.rs.\n");
    let mut seen = BTreeSet::new();
    for layout in layouts {
        describe(layout, &mut seen, &mut text);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (line, (is, was)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, was, "line {} of {}", line + 1, path.display());
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

/// Our own types field by field, vtables included, wherever they are reached; abi_stable's own by name and size.
fn describe(layout: &'static TypeLayout, seen: &mut BTreeSet<String>, text: &mut String) {
    let name = layout.full_type().to_string();
    if !seen.insert(format!("{name} {:?}", layout.get_utypeid())) {
        return;
    }
    let ours = layout.package() == RStr::from_str("oauth-mail-abi");
    if ours {
        writeln!(text, "\n{name}: size {} align {}", layout.size(), layout.alignment()).unwrap();
    }
    let mut below = Vec::new();
    for fields in [layout.get_fields(), Some(layout.phantom_fields())].into_iter().flatten() {
        for field in fields.iter() {
            if ours {
                line(&field, text);
            }
            below.push(field.layout());
            below.extend(
                field
                    .function_range()
                    .iter()
                    .filter_map(|function| function.return_type_layout().map(|layout| layout())),
            );
        }
    }
    for layout in below {
        describe(layout, seen, text);
    }
}

fn line(field: &TLField, text: &mut String) {
    writeln!(text, "  {}: {} size {}", field.name(), field.full_type(), field.layout().size()).unwrap();
    for function in field.function_range().iter() {
        let function = function.to_string();
        let signature = function.lines().next().unwrap_or_default();
        let parameters = signature.split_once(": ").map_or(signature.trim_start_matches("fn("), |(_, rest)| rest);
        writeln!(text, "    fn({parameters}").unwrap();
    }
}
