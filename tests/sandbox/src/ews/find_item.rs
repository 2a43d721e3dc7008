//! <https://learn.microsoft.com/exchange/client-developer/web-service-reference/finditem-operation>

use std::cmp::Ordering;

use roxmltree::Node;

use super::{
    Answer, Outcome,
    access::Caller,
    invalid,
    message::{Shape, View},
    refuse,
    restriction::{self, compare, holds, uri},
    xml::{child, elements},
};

/// A page, as at Exchange.
const ENTRIES_MAX: usize = 1000;

pub fn find_item(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let parents = child(request, "ParentFolderIds").ok_or_else(|| invalid("ParentFolderIds is missing"))?;
    let restriction = restriction::of(request)?;
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
        let mut found: Vec<_> =
            views.filter(|view| restriction.is_none_or(|test| holds(test, &|uri| view.plain(uri)))).collect();
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
