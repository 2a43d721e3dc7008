//! UpdateItem: marks as read, without a receipt to the sender.

use super::{
    client::{Client, Failure},
    soap::{Version, escape},
};
use crate::{clock::Deadline, error::Result, transport::Settled};

fn request(ids: &[&str], version: Version) -> String {
    let quiet = if version.suppresses_receipts() { " SuppressReadReceipts=\"true\"" } else { "" };
    let changes: String = ids
        .iter()
        .map(|id| {
            format!(
                "<t:ItemChange><t:ItemId Id=\"{}\"/><t:Updates><t:SetItemField><t:FieldURI FieldURI=\"message:IsRead\"/>\
                 <t:Message><t:IsRead>true</t:IsRead></t:Message></t:SetItemField></t:Updates></t:ItemChange>",
                escape(id)
            )
        })
        .collect();
    format!(
        "<m:UpdateItem ConflictResolution=\"AlwaysOverwrite\" MessageDisposition=\"SaveOnly\"{quiet}><m:ItemChanges>\
         {changes}</m:ItemChanges></m:UpdateItem>"
    )
}

/// What became of each.
pub fn mark_read(client: &Client, ids: &[&str], deadline: Deadline) -> Result<Vec<Result<Settled>>, Failure> {
    client.ask_each("UpdateItem", ids, &|version| request(ids, version), deadline)
}
