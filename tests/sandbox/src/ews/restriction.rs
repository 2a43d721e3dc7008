//! <https://learn.microsoft.com/exchange/client-developer/web-service-reference/restriction>

use std::cmp::Ordering;

use roxmltree::Node;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Refusal, refuse,
    xml::{child, elements, is_true},
};

const DEPTH_MAX: usize = 16;

/// The restriction of a request, checked.
pub fn of<'a, 'b>(request: Node<'a, 'b>) -> Result<Option<Node<'a, 'b>>, Refusal> {
    let restriction = child(request, "Restriction").and_then(|restriction| elements(restriction).next());
    if let Some(restriction) = restriction {
        check(restriction, 0)?;
    }
    Ok(restriction)
}

pub fn uri<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    child(node, "FieldURI").and_then(|path| path.attribute("FieldURI"))
}

fn constant<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    let direct = child(node, "Constant");
    let inside = || child(node, "FieldURIOrConstant").and_then(|holder| child(holder, "Constant"));
    direct.or_else(inside)?.attribute("Value")
}

/// What cannot be answered is refused before the first item is looked at.
fn check(test: Node<'_, '_>, depth: usize) -> Result<(), Refusal> {
    if depth > DEPTH_MAX {
        return Err(refuse("ErrorRestrictionTooComplex", "The restriction is too complex."));
    }
    let unsupported = || Err(refuse("ErrorUnsupportedPathForQuery", "This property can not be used in a restriction."));
    match test.tag_name().name() {
        "And" | "Or" | "Not" => elements(test).try_for_each(|inner| check(inner, depth + 1)),
        "Exists" if uri(test).is_some() => Ok(()),
        "IsEqualTo"
        | "IsNotEqualTo"
        | "IsGreaterThan"
        | "IsGreaterThanOrEqualTo"
        | "IsLessThan"
        | "IsLessThanOrEqualTo"
        | "Contains"
            if uri(test).is_some() && constant(test).is_some() =>
        {
            Ok(())
        }
        _ => unsupported(),
    }
}

/// `plain` gives the text of a property.
pub fn holds(test: Node<'_, '_>, plain: &dyn Fn(&str) -> Option<String>) -> bool {
    let value = uri(test).and_then(plain);
    let constant = constant(test).unwrap_or_default();
    let compared = || value.as_deref().map(|value| compare(value, constant));
    match test.tag_name().name() {
        "And" => elements(test).all(|inner| holds(inner, plain)),
        "Or" => elements(test).any(|inner| holds(inner, plain)),
        "Not" => !elements(test).any(|inner| holds(inner, plain)),
        "Exists" => value.is_some(),
        "Contains" => value.is_some_and(|value| contains(test, &value, constant)),
        "IsEqualTo" => compared().is_some_and(Ordering::is_eq),
        "IsNotEqualTo" => compared().is_none_or(Ordering::is_ne),
        "IsGreaterThan" => compared().is_some_and(Ordering::is_gt),
        "IsGreaterThanOrEqualTo" => compared().is_some_and(Ordering::is_ge),
        "IsLessThan" => compared().is_some_and(Ordering::is_lt),
        "IsLessThanOrEqualTo" => compared().is_some_and(Ordering::is_le),
        _ => false,
    }
}

fn contains(test: Node<'_, '_>, value: &str, constant: &str) -> bool {
    let (value, constant) = match test.attribute("ContainmentComparison") {
        None | Some("Exact") => (value.to_owned(), constant.to_owned()),
        Some(_) => (value.to_lowercase(), constant.to_lowercase()),
    };
    match test.attribute("ContainmentMode") {
        None | Some("FullString") => value == constant,
        Some("Prefixed") => value.starts_with(&constant),
        Some("PrefixOnWords" | "ExactPhrase") => {
            let starts_word = |place: usize| value[..place].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
            value.match_indices(&constant).any(|(place, _)| starts_word(place))
        }
        Some(_) => value.contains(&constant),
    }
}

/// Times as times, numbers as numbers, `1` as `true`, the rest without case.
pub fn compare(left: &str, right: &str) -> Ordering {
    let time = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    if let (Some(left), Some(right)) = (time(left), time(right)) {
        return left.cmp(&right);
    }
    if let ("true" | "false", "0" | "1") = (left, right) {
        return left.cmp(&is_true(right).to_string());
    }
    if let (Ok(left), Ok(right)) = (left.parse::<i64>(), right.parse::<i64>()) {
        return left.cmp(&right);
    }
    left.to_lowercase().cmp(&right.to_lowercase())
}
