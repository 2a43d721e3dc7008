//! The servers of a run: one that speaks IMAP, or the sandbox with EWS or Graph; and what they do to the client.

use std::collections::BTreeSet;

use oauth_mail_sandbox::{Config, Sandbox, faults::Face};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Rng, ledger::number_of};
use crate::{
    Result,
    ca::Ca,
    sandboxed::{self, Protocol, address},
    scripted_imap::{Command, Fate, Mailbox, Readable, ScriptedImap},
};

pub const NAME: &str = "alice";
pub const PROCESSED: &str = "Processed";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Imap,
    Ews,
    Graph,
}

pub struct Post {
    kind: Kind,
    seed: u64,
    sandbox: Sandbox,
    imap: ScriptedImap,
    snapshot: Option<Mailbox>,
    without: Vec<String>,
    /// Once in so many commands IMAP does not go as it should.
    rudeness: usize,
}

impl Post {
    pub fn start(kind: Kind, seed: u64, without: &[String]) -> Result<Self> {
        let sandbox = Sandbox::start(Config { graph_concurrency: 0, ..Config::default() })?;
        let folder = sandbox.ca_file.parent().unwrap_or(&sandbox.ca_file);
        let ca = Ca {
            ca_file: sandbox.ca_file.clone(),
            server_certificate: folder.join("server.pem"),
            server_key: folder.join("server.key"),
        };
        let imap = ScriptedImap::start(&ca)?;
        let mut post =
            Self { kind, seed, sandbox, imap, snapshot: None, without: without.to_vec(), rudeness: usize::MAX };
        post.choose_manners();
        Ok(post)
    }

    pub fn may(&self, way: &str) -> bool {
        !self.without.iter().any(|without| without == way)
    }

    /// The form, with an application that needs nobody's consent.
    pub fn settings(&self, after_import: &str, since: &str) -> Value {
        let (protocol, scope) = match self.kind {
            Kind::Imap => (Protocol::Imap, "https://outlook.office365.com/.default"),
            Kind::Ews => (Protocol::Ews, "https://outlook.office365.com/.default"),
            Kind::Graph => (Protocol::Graph, "https://graph.microsoft.com/.default"),
        };
        let mut settings = sandboxed::settings(&self.sandbox, protocol, NAME, "incoming");
        let form = &mut settings["incoming"];
        form["client_id"] = json!("mail-app");
        form["client_secret"] = json!("mail-app-secret");
        form["scope"] = json!(scope);
        form["advanced"]["grant"] = json!("client_credentials");
        form["advanced"]["fetch_since"] = json!(since);
        form["advanced"]["after_import"] = json!(after_import);
        if after_import == "move" {
            form["advanced"]["processed_folder"] = json!(PROCESSED);
        }
        if self.kind == Kind::Imap {
            form["port"] = json!(self.imap.port);
        }
        settings
    }

    pub fn deliver(&self, raw: &[u8], truth: i64) {
        match self.kind {
            Kind::Imap => self.imap.mailbox(|mailbox| {
                mailbox.now = truth;
                mailbox.append("INBOX", raw);
            }),
            Kind::Ews | Kind::Graph => {
                let at = OffsetDateTime::from_unix_timestamp(truth).unwrap_or(OffsetDateTime::UNIX_EPOCH);
                let append = |mailbox: &mut oauth_mail_sandbox::mailbox::Mailbox| {
                    mailbox.append("INBOX", raw.to_vec(), BTreeSet::new(), at);
                };
                self.sandbox.state.mail.with(&address(NAME), append);
            }
        }
    }

    /// Numbers of what lies in a folder; each as often as it lies there.
    pub fn in_folder(&self, folder: &str) -> Vec<u64> {
        match self.kind {
            Kind::Imap => self.imap.mailbox(|mailbox| {
                let folder = mailbox.folders.get(folder);
                let messages = folder.into_iter().flat_map(|folder| &folder.messages);
                messages.filter_map(|message| number_of(&message.raw)).collect()
            }),
            Kind::Ews | Kind::Graph => {
                let numbers = |mailbox: &mut oauth_mail_sandbox::mailbox::Mailbox| {
                    let folder = mailbox.folder(folder);
                    let messages = folder.into_iter().flat_map(|folder| folder.messages.iter());
                    messages.filter_map(|message| number_of(&message.raw)).collect()
                };
                self.sandbox.state.mail.with(&address(NAME), numbers).unwrap_or_default()
            }
        }
    }

    /// Another client removes a message; its number.
    pub fn remove_one(&self, rng: &mut Rng) -> Option<u64> {
        let there = self.in_folder("INBOX");
        if there.is_empty() {
            return None;
        }
        let number = rng.pick(&there);
        match self.kind {
            Kind::Imap => self.imap.mailbox(|mailbox| {
                let folder = mailbox.folder("INBOX");
                folder.messages.retain(|message| number_of(&message.raw) != Some(number));
            }),
            Kind::Ews | Kind::Graph => {
                self.sandbox.state.mail.with(&address(NAME), |mailbox| {
                    let uids: Vec<u32> = mailbox.folder("INBOX").map_or_else(Vec::new, |folder| {
                        let is =
                            |message: &&oauth_mail_sandbox::mailbox::Message| number_of(&message.raw) == Some(number);
                        folder.messages.iter().filter(is).map(|message| message.uid).collect()
                    });
                    uids.into_iter().for_each(|uid| drop(mailbox.remove("INBOX", uid)));
                });
            }
        }
        Some(number)
    }

    /// New numbers, an old state, a forgotten position: what the server knew of the client is void. Are keys new now?
    pub fn renumber(&mut self, rng: &mut Rng) -> bool {
        match self.kind {
            Kind::Imap if self.may("restore") && rng.once_in(2) => {
                match self.snapshot.take() {
                    Some(old) => self.imap.mailbox(|mailbox| *mailbox = old),
                    None => {
                        self.snapshot = Some(self.imap.mailbox(|mailbox| mailbox.clone()));
                        return false;
                    }
                }
                true
            }
            Kind::Imap if self.may("renumber") => {
                self.snapshot = None;
                self.imap.mailbox(|mailbox| mailbox.renumber("INBOX"));
                true
            }
            Kind::Imap => {
                self.imap.mailbox(|mailbox| mailbox.folder("INBOX").uidnext += 1 + rng.below(1 << 20) as u64);
                false
            }
            Kind::Ews if self.may("renumber") => {
                self.order(
                    json!({"face": "ews", "match": "SyncFolderItems", "response_code": "ErrorInvalidSyncStateData"}),
                );
                true
            }
            Kind::Graph if self.may("renumber") => {
                self.order(json!({"face": "graph", "match": "delta", "status": 410, "code": "syncStateNotFound"}));
                true
            }
            Kind::Ews | Kind::Graph => false,
        }
    }

    /// Something goes wrong with the next requests, or with a message; its number.
    pub fn disturb(&self, rng: &mut Rng) -> Option<u64> {
        match self.kind {
            Kind::Imap if self.may("unreadable") || self.may("substitutes") => {
                let unreadable =
                    [Readable::Refused, Readable::LeftOut, Readable::EndsListing, Readable::RefusesListing];
                let substitutes = [Readable::ExchangeSubstitute, Readable::CourierSubstitute];
                let readable = match (self.may("unreadable"), self.may("substitutes")) {
                    (true, true) if rng.once_in(3) => rng.pick(&substitutes),
                    (false, _) => rng.pick(&substitutes),
                    _ => rng.pick(&unreadable),
                };
                return self.imap.mailbox(|mailbox| {
                    let messages = &mut mailbox.folder("INBOX").messages;
                    let place = rng.below(messages.len());
                    let message = messages.get_mut(place)?;
                    let is_well = message.readable == Readable::Whole;
                    message.readable = if is_well { readable } else { Readable::Whole };
                    number_of(&message.raw)
                });
            }
            Kind::Imap => {}
            Kind::Ews => {
                let what = rng.pick(&["GetItem", "SyncFolderItems", "MoveItem", "DeleteItem", "UpdateItem", ""]);
                let mut fault = json!({"face": "ews", "match": what, "skip": rng.below(3), "times": 1 + rng.below(2)});
                match rng.below(5) {
                    0 => fault["status"] = json!(503),
                    1 => fault["back_off_ms"] = json!(0),
                    2 => fault["cut_after"] = json!(rng.below(600)),
                    3 => fault["malformed"] = json!(true),
                    _ => {
                        fault["response_code"] =
                            json!(rng.pick(&["ErrorTimeoutExpired", "ErrorMailboxStoreUnavailable"]))
                    }
                }
                self.order(fault);
            }
            Kind::Graph => {
                let what = rng.pick(&["/$value", "delta", "$batch", "/messages", ""]);
                let mut fault =
                    json!({"face": "graph", "match": what, "skip": rng.below(3), "times": 1 + rng.below(2)});
                match rng.below(4) {
                    0 => fault["status"] = json!(503),
                    1 => {
                        fault["status"] = json!(429);
                        fault["retry_after"] = json!(0);
                    }
                    2 => fault["cut_after"] = json!(rng.below(600)),
                    // A text that is wrong and as long as announced cannot be told from a right one.
                    _ => {
                        fault["match"] = json!(rng.pick(&["delta", "$batch"]));
                        fault["malformed"] = json!(true);
                    }
                }
                self.order(fault);
            }
        }
        None
    }

    /// From now on nothing goes wrong any more.
    pub fn calm(&self) {
        self.sandbox.state.faults.clear();
        self.imap.no_script();
        self.imap.behave(|behaviour| behaviour.expunge_refused = false);
        self.imap.mailbox(|mailbox| {
            mailbox.folder("INBOX").messages.iter_mut().for_each(|message| message.readable = Readable::Whole);
        });
    }

    /// Commands and requests so far.
    pub fn answered(&self) -> u64 {
        match self.kind {
            Kind::Imap => self.imap.counted(),
            Kind::Ews => self.sandbox.state.faults.counted(Face::Ews).requests,
            Kind::Graph => self.sandbox.state.faults.counted(Face::Graph).requests,
        }
    }

    fn order(&self, fault: Value) {
        if let Ok(fault) = serde_json::from_value(fault) {
            self.sandbox.state.faults.order(fault);
        }
    }

    fn choose_manners(&mut self) {
        let mut rng = Rng::of(self.seed, &[1]);
        let mut wants = |way: &str, times: usize| rng.once_in(times) && self.may(way);
        let (limit, rev2, no_uidnext) = (wants("message-limit", 4), wants("rev2", 8), wants("no-uidnext", 6));
        let (no_move, no_uidplus) = (wants("no-move", 3), wants("no-move", 6));
        let expunge_refused = wants("no-expunge", 10);
        let limit = limit.then(|| 1 + rng.below(5));
        let rudeness = rng.pick(&[15, 30, 60, usize::MAX]);
        self.imap.behave(|behaviour| {
            behaviour.frozen_view = true;
            behaviour.message_limit = limit;
            behaviour.rev2_only = rev2;
            behaviour.no_uidnext = no_uidnext;
            behaviour.no_move = no_move;
            behaviour.no_uidplus = no_uidplus;
            behaviour.expunge_refused = expunge_refused;
        });
        self.rudeness = rudeness;
    }

    /// From now on things go wrong.
    pub fn begin(&self) {
        let (seed, rudeness) = (self.seed, self.rudeness);
        self.imap.script(move |command| fate(seed, rudeness, command));
    }
}

/// By the place of the command alone, so that a run goes the same way each time.
fn fate(seed: u64, rudeness: usize, command: &Command<'_>) -> Fate {
    let mut rng = Rng::of(seed, &[2, command.place.1, command.place.0]);
    if !rng.once_in(rudeness) {
        return Fate::Obey;
    }
    let passing = ["NO [UNAVAILABLE] not now", "NO [INUSE] locked", "NO [SERVERBUG] internal error", "NO not now"];
    let part = Fate::Partial(rng.below(6), (!rng.once_in(3)).then(|| rng.pick(&passing)));
    match (command.verb, rng.below(4)) {
        (_, 0) => Fate::HangUp,
        (_, 1) => Fate::Refuse(rng.pick(&passing)),
        // What is gone may be left out in silence (RFC 2180 section 4.1.2).
        ("UID FETCH", 2) if command.line.contains("BODY") => Fate::Partial(rng.below(6), Some("OK done")),
        ("UID FETCH" | "UID STORE" | "UID MOVE" | "UID EXPUNGE", _) => part,
        ("UID SEARCH", _) => Fate::Partial(rng.below(6), Some("NO [LIMIT] too much")),
        // A lost answer is the one window in which a copy is made twice (README).
        ("UID COPY", _) => Fate::Refuse("NO [OVERQUOTA] it is full"),
        _ => Fate::LoseAnswer,
    }
}
