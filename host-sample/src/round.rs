//! One round: fetch, import, settle, until the mailbox has no more.

use oauth_mail_abi::{Account, Batch};
use serde_json::{Value, json};

use crate::{
    failure::Result,
    helpdesk::{self, Helpdesk, Imported, Incoming},
    interrupt,
    progress::Progress,
};

/// Messages and raw bytes in one batch: one transaction and one settle each.
const BATCH_MESSAGES: u32 = 500;
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// A batch of 8 MiB on a slow line takes a minute; twice that is a fault.
const DEADLINE_MS: u64 = 120_000;
/// Batches that deliver nothing although there is more: beyond this, the next round goes on.
const EMPTY_BATCHES_MAX: u32 = 20;

/// Imports everything that waits. `each` hears of each batch after it was committed and settled.
pub fn run(
    account: &Account,
    helpdesk: &mut Helpdesk,
    new_requests: bool,
    mut progress: Progress,
    mut each: impl FnMut(&Batch, &[Imported]),
) -> Result<()> {
    let mut empty = 0;
    loop {
        interrupt::check()?;
        let batch = account.fetch_batch(&request())?;
        let header = batch.header();
        let imported = import(helpdesk, &batch, new_requests)?;
        if !imported.is_empty() {
            account.settle_batch(&helpdesk::results(&imported))?;
        }
        progress.add(imported.len() as u64, header["remaining"].as_u64().unwrap_or(0));
        each(&batch, &imported);
        empty = if imported.is_empty() { empty + 1 } else { 0 };
        if header["more"] != json!(true) || empty > EMPTY_BATCHES_MAX {
            return Ok(());
        }
    }
}

/// One batch, committed in one transaction.
pub fn import(helpdesk: &mut Helpdesk, batch: &Batch, new_requests: bool) -> Result<Vec<Imported>> {
    let messages = batch.iter().map(|message| Incoming { key: message.key, raw: message.raw, facts: message.facts() });
    helpdesk.import(messages, new_requests)
}

pub fn request() -> Value {
    json!({"max_messages": BATCH_MESSAGES, "max_bytes": BATCH_BYTES, "deadline_ms": DEADLINE_MS})
}
