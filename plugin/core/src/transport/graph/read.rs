//! Raw MIME of messages. No list tells their sizes, so each is bounded while it comes and goes to a spool file above the
//! threshold. As many are asked for at once as Graph allows for one mailbox.

use std::{ops::ControlFlow, thread};

use super::{
    Mailbox,
    client::{Client, Failure, segment},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits,
    transport::{Entry, Item, spool::Spool},
};

pub fn read(
    mailbox: &mut Mailbox,
    entries: &[Entry],
    deadline: Deadline,
    sink: &mut dyn FnMut(usize, Item) -> ControlFlow<()>,
) -> Result<usize> {
    let mut handed = 0;
    while handed < entries.len() {
        if !mailbox.held.iter().any(|(key, _)| *key == entries[handed].key) {
            let wanted = &entries[handed..entries.len().min(handed + limits::GRAPH_PARALLEL)];
            let client = &mailbox.client;
            let items: Vec<Result<Item>> = thread::scope(|scope| {
                let running: Vec<_> = wanted
                    .iter()
                    .map(|entry| {
                        thread::Builder::new()
                            .name("oauth-mail-graph".into())
                            .spawn_scoped(scope, move || one(client, &entry.key.id, deadline))
                    })
                    .collect();
                let ended = |thread: thread::ScopedJoinHandle<'_, Result<Item>>| {
                    thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Internal, "Reading a message panicked.")))
                };
                let failed =
                    |e| Error::new(Kind::Transient, "No thread could be started to read mail.").source_error(e);
                running.into_iter().map(|thread| thread.map_err(failed).and_then(ended)).collect()
            });
            mailbox.held.clear();
            let mut failed = None;
            for (entry, item) in wanted.iter().zip(items) {
                match item {
                    Ok(item) if failed.is_none() => mailbox.held.push((entry.key.clone(), item)),
                    Ok(_) => {}
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            // What came before the failure is handed over; the next call meets it again.
            if let Some(error) = failed
                && mailbox.held.is_empty()
            {
                return Err(error);
            }
        }
        let Some(at) = mailbox.held.iter().position(|(key, _)| *key == entries[handed].key) else { continue };
        let (_, item) = mailbox.held.remove(at);
        handed += 1;
        if sink(handed - 1, item).is_break() {
            break;
        }
    }
    Ok(handed)
}

fn one(client: &Client, id: &str, deadline: Deadline) -> Result<Item> {
    let url = client.url(&format!("/messages/{}/$value", segment(id)))?;
    let (mut spool, mut too_large) = (Spool::default(), false);
    let outcome = client.call("GET", &url, None, deadline, &mut |part| {
        spool.put(part).inspect_err(|error| too_large = error.kind() == Kind::TooLarge)
    });
    match outcome {
        Ok(()) => {}
        Err(Failure::NotFound(_)) => return Ok(Item::Gone),
        Err(Failure::Other(error)) if too_large => return Ok(Item::Failed(error)),
        Err(Failure::Other(error)) if matches!(error.kind(), Kind::ServerMisbehaved) => return Ok(Item::Failed(error)),
        Err(failure) => return Err(failure.into_error()),
    }
    spool.end().map(Item::Read)
}
