//! <https://learn.microsoft.com/exchange/client-developer/web-service-reference/finditem-operation>

use std::cmp::Ordering;

use roxmltree::Node;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Answer, Outcome, Refusal,
    access::Caller,
    invalid,
    message::{Shape, View},
    refuse,
    xml::{child, elements, is_true},
};

/// A page, as at Exchange.
const ENTRIES_MAX: usize = 1000;
const DEPTH_MAX: usize = 16;

pub fn find_item(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let parents = child(request, "ParentFolderIds").ok_or_else(|| invalid("ParentFolderIds is missing"))?;
    let restriction = child(request, "Restriction").and_then(|restriction| elements(restriction).next());
    if let Some(restriction) = restriction {
        check(restriction, 0)?;
    }
    Ok(elements(parents).map(|id| find(caller, request, restriction, id)).collect())
}

fn find(caller: &Caller<'_>, request: Node<'_, '_>, restriction: Option<Node<'_, '_>>, id: Node<'_, '_>) -> Outcome {
    let shape = Shape::parse(child(request, "ItemShape"));
    let place = caller.place(id)?;
    let name = place.folder()?;
    let shallow = request.attribute("Traversal").is_none_or(|traversal| traversal == "Shallow");
    let order = order(request);
    let view = child(request, "IndexedPageItemView");
    let number = |name: &str| view.and_then(|view| view.attribute(name)).and_then(|text| text.parse::<usize>().ok());
    let max = number("MaxEntriesReturned").unwrap_or(ENTRIES_MAX).clamp(1, ENTRIES_MAX);
    let offset = number("Offset").unwrap_or(0);
    let from_end = view.and_then(|view| view.attribute("BasePoint")) == Some("End");
    caller.with(&place.mailbox, |mailbox| {
        let folder = mailbox.folder(name).ok_or_else(|| refuse("ErrorFolderNotFound", "The folder is gone."))?;
        let newest_first = folder.messages.iter().rev().filter(|_| shallow);
        let views = newest_first.map(|message| View::new(folder, message));
        let mut found: Vec<_> = views.filter(|view| restriction.is_none_or(|test| holds(test, view))).collect();
        if !order.is_empty() {
            found.sort_by(|left, right| {
                let by = |(uri, down): &(String, bool)| {
                    let order = compare(&left.plain(uri).unwrap_or_default(), &right.plain(uri).unwrap_or_default());
                    if *down { order.reverse() } else { order }
                };
                order.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
            });
        }
        let total = found.len();
        let (from, to) = if from_end {
            let to = total.saturating_sub(offset);
            (to.saturating_sub(max), to)
        } else {
            let from = offset.min(total);
            (from, (from + max).min(total))
        };
        let (is_last, next) = if from_end { (from == 0, total - from) } else { (to == total, to) };
        let items: String = found[from..to].iter().map(|view| view.headline(&shape)).collect();
        Ok(format!(
            "<m:RootFolder IndexedPagingOffset=\"{next}\" TotalItemsInView=\"{total}\" \
             IncludesLastItemInRange=\"{is_last}\"><t:Items>{items}</t:Items></m:RootFolder>"
        ))
    })?
}

/// URI and whether it goes down.
fn order(request: Node<'_, '_>) -> Vec<(String, bool)> {
    let fields = child(request, "SortOrder").into_iter().flat_map(elements);
    let field = |field: Node<'_, '_>| {
        let uri = uri(field)?;
        Some((uri.to_owned(), field.attribute("Order") == Some("Descending")))
    };
    fields.filter_map(field).collect()
}

fn uri<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    child(node, "FieldURI").and_then(|path| path.attribute("FieldURI"))
}

fn constant<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    let direct = child(node, "Constant");
    let inside = || child(node, "FieldURIOrConstant").and_then(|holder| child(holder, "Constant"));
    direct.or_else(inside)?.attribute("Value")
}

/// What cannot be answered is refused before the first message is looked at.
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

fn holds(test: Node<'_, '_>, view: &View<'_>) -> bool {
    let value = uri(test).and_then(|uri| view.plain(uri));
    let constant = constant(test).unwrap_or_default();
    let compared = || value.as_deref().map(|value| compare(value, constant));
    match test.tag_name().name() {
        "And" => elements(test).all(|inner| holds(inner, view)),
        "Or" => elements(test).any(|inner| holds(inner, view)),
        "Not" => !elements(test).any(|inner| holds(inner, view)),
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
fn compare(left: &str, right: &str) -> Ordering {
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
