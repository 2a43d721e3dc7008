//! The hooks, as the host calls them. JSON in, JSON out; raw messages as bytes.
//!
//! | call | in | out |
//! |---|---|---|
//! | [`describe`] | | `{"name","version","protocols","grants","schemas":{"incoming","outgoing"},"presets":[PRESET],"extensions":[ID]}` |
//! | [`Plugin::new`] | `{"store":"sqlite:PATH"/"postgres://…","key":{"file"/"env":…}/{"value":BASE64},"previous_keys":[…],"private_networks":"allow"/"deny","memory_mb":512,"idempotency_days":365,"automatic_mail_days":90,"proxy":"off"/"environment"/URL,"proxy_user","proxy_password"}` | plugin |
//! | [`Plugin::open`] | `{"incoming":{…form…}}` or `{"outgoing":{…form…}}`, with `"label":TEXT` what the host calls it in log lines and changes of health; else its username | handle, or all faults at once |
//! | [`Handle::authenticate`] | `{"action":"status"/"start"/"complete"/"poll"/"revoke","redirect":URL}`; `start` answers `admin_consent_url` where the provider has one, `complete` takes its redirect and answers `admin_consent`; `start` may carry `"also":[SETTINGS,…]`, whose scopes the same window asks for where they live on the same grant | `{"state":"authorized"/"consent_required"/"device_code"/"revoked",…}`; `status` with `"health":{"state":"ok"/"expiring"/"degraded"/"back_off"/"admin_needed"/"misconfigured"/"consent_needed","why","remedy","who","what","when","field",…}` |
//! | the same | `{"action":"diagnose","send_to":ADDRESS,"send":BOOL,"refresh":BOOL,"verbose":BOOL}` | `{"healthy":BOOL,"summary",…,"steps":[{"step","status":"ok"/"warning"/"failed"/"skipped","saw","means","who","remedy","took_ms"}]}` |
//! | [`Handle::fetch_batch`] | `{"max_messages","max_bytes","deadline_ms"}` | [`Batch`] |
//! | the same | `{"quarantine":"list"}`, `{"quarantine":KEY}` | [`Batch`]: what was put aside, in its header; the raw bytes of one as its only message |
//! | [`Handle::settle_batch`] | `{"results":{KEY:"imported"/"duplicate"/"refused"/"retry"/"failed"}}`; of what was put aside also `"replay"/"drop"` | `{"done":{KEY:…}}`, with `"reasons":{KEY:ERROR}` for those that are `kept` or `later` |
//! | [`Handle::send_message`] | `{"to","cc","bcc","subject","text","html","attachments","in_reply_to","references","auto_submitted","envelope","request_id","idempotency_key","resend_unknown"}` + raw MIME, or `{"look_up":MESSAGE_ID}` | `{"outcome":"sent"/"rejected"/"retry"/"unknown",…}`; `sent` with `"refused":[{"address","reply","transient"}]`: who did not get it, `transient` who may get it when it is sent again to them alone |
//!
//! A key is bound to what is sent under it: another content, envelope, `request_id` or From address is `misuse`. What became of it is
//! kept for `idempotency_days` after it was written last, counts of automatic mail for `automatic_mail_days`.
//! `sent_folder` in an answer says what the sent folder told: `{"found","copies","folder","why"}`.
//!
//! A preset is what a form may show before it is saved: `{"id","label","incoming":{PROTOCOL:FILL},"outgoing":{PROTOCOL:FILL}}`.
//! `id` is a value of `advanced.provider`, PROTOCOL one of `connection_protocol`. FILL is
//! `{"fields":{POINTER:VALUE},"cases":[{"when":{"pointer":POINTER,…},"fields":{…}}],"together":[POINTER]}`.
//! Pointers (RFC 6901) begin at the form. All cases that apply count; of two that fill one field, the later.
//! A case says one thing of the field at its pointer: `"is":TEXT`, `"host_in":[HOST]` (of a URL), or `"differs_from":POINTER`
//! (both fields are filled in and differ, whatever their ASCII case). A field that is empty meets no case.
//! Scope differs in this way for a shared mailbox (Consenting User differs from Username) and for an application
//! (the grant `client_credentials`). Fields of `together` are filled only when none of them holds something else.
//! `open` fills empty fields by the same data, and those of a tenant besides. It overwrites nothing.
//!
//! Every request may carry `deadline_ms`. A handle serves one call at a time; any number of handles run side by side.

mod assembly;
mod authenticate;
mod cursor;
mod diagnose;
mod fetch_batch;
mod health;
mod key;
mod lease;
mod mailbox;
mod memory;
mod plugin;
mod proxy;
mod quarantine;
mod reader;
mod request;
mod send;
mod settle_batch;
mod swap;
mod trouble;

use std::sync::{Arc, Mutex, MutexGuard};

use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result},
    seam,
    session::Session,
    store::Store,
    worker::{FollowUp, Worker},
};

pub use health::Watcher;
pub use plugin::{Plugin, describe};

use fetch_batch::Fetch;
use send::Send;

/// One mailbox, in one direction.
pub struct Handle {
    context: Arc<Context>,
    front: Mutex<Front>,
}

/// What every hook of a handle needs.
struct Context {
    session: Session,
    mailbox: mailbox::Mailbox,
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
}

impl Context {
    /// Under what the store files this mailbox.
    ///
    /// # Errors
    /// Those of the store, when it is asked for the first time.
    fn name(&self) -> Result<&key::Name> {
        self.mailbox.name(&*self.store, &self.session.account, &self.session.log)
    }

    /// The time by which leases and claims are judged: the store's, which all nodes share.
    fn shared_now(&self) -> UnixSeconds {
        self.session.clock.now() + self.store.ahead()
    }
}

/// What all handles of one plugin share, besides the store.
struct Shared {
    health: health::Book,
    signing: send::Signing,
    rates: send::Rates,
    unreleased: send::Unreleased,
    expiry: send::Expiry,
    memory: memory::Memory,
    /// Who this plugin is among those on the same store: 128 bits by chance.
    node: String,
}

/// The thread on which the hooks of one handle run; started by the first call.
enum Front {
    Idle,
    Running(Arc<Worker<Work>>),
    Closed,
}

/// What the front thread owns.
struct Work {
    context: Arc<Context>,
    fetch: Fetch,
    send: Send,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.fetch.give_back(&self.context);
    }
}

impl Handle {
    fn new(session: Session, store: Arc<dyn Store>, shared: Arc<Shared>) -> Self {
        let mailbox = mailbox::Mailbox::new(&session.account);
        Self { context: Arc::new(Context { session, mailbox, store, shared }), front: Mutex::new(Front::Idle) }
    }

    /// Status, consent, revocation, diagnosis. Only `status` answers without the network.
    ///
    /// # Errors
    /// `Misuse` for a request that cannot be meant; `ConsentRequired`, `AdminRequired`, `Refused` when a person must act,
    /// each with the remedy; `Transient` when waiting cures it.
    pub fn authenticate(&self, request: &str) -> Result<String> {
        let request = authenticate::parse(request)?;
        if let authenticate::Action::Status = request.action {
            // Time is left to answer from memory when the store says nothing.
            let deadline = request.deadline.at_most(request.deadline.left() * 3 / 4);
            return self.front()?.enter(deadline).run(|| authenticate::status(&self.context));
        }
        self.call("authenticate", request.deadline, move |work| authenticate::run(work, request), |_, _| None)
    }

    /// The next unsettled messages, oldest first. Never changes the mailbox.
    ///
    /// # Errors
    /// As [`Handle::authenticate`]; `Unsupported` for an outgoing handle; `ServerMisbehaved` when the server broke its
    /// protocol. What was already read is handed over first, the error comes with the next call.
    pub fn fetch_batch(&self, request: &str) -> Result<Batch> {
        let request = fetch_batch::parse(request)?;
        let deadline = request.deadline;
        let fetch = move |work: &mut Work| work.fetch.next_batch(&work.context, &request);
        self.call("fetch_batch", deadline, fetch, health::note)
    }

    /// Says what became of messages; then, and only then, the mailbox and the cursor change. Can be repeated.
    ///
    /// # Errors
    /// As [`Handle::fetch_batch`]. After an error the call can be repeated as it is: what was done is told again.
    pub fn settle_batch(&self, request: &str) -> Result<String> {
        let request = settle_batch::parse(request)?;
        let deadline = request.deadline;
        if request.results.is_empty() {
            self.front()?;
            return Ok(settle_batch::NOTHING.to_owned());
        }
        let settle = move |work: &mut Work| settle_batch::run(work, &request);
        let done = self.call("settle_batch", deadline, settle, |context, done| {
            health::note_trouble(context, done.as_ref().map_or_else(Some, |done| done.trouble.as_ref()))
        });
        done.map(|done| done.text)
    }

    /// Sends one message. `raw` empty: the request's content is composed. Else `raw` is sent to the request's envelope.
    ///
    /// # Errors
    /// Only for what stopped the call before the message was offered to a server; everything after is an outcome.
    pub fn send_message(&self, request: &str, raw: &[u8]) -> Result<String> {
        let request = send::parse(request, raw)?;
        let (progress, deadline) = (request.progress.clone(), request.deadline);
        let send = move |work: &mut Work| work.send.run(&work.context, request);
        self.call("send_message", deadline, send, health::note_outcome).or_else(|error| progress.answer_to(error))
    }

    /// Calls that run or wait on this handle come back at once, from any thread: with a `Transient` error, and a message that
    /// was offered to a server with the outcome `unknown`; one that was not is not sent any more. The handle stays open.
    pub fn cancel(&self) {
        if let Front::Running(worker) = &*self.lock() {
            worker.cancel();
        }
    }

    /// Ends what the handle started and frees its connections. Calls that run come back as after [`Handle::cancel`], later
    /// ones get a `Closed` error.
    pub fn close(&self) {
        let front = std::mem::replace(&mut *self.lock(), Front::Closed);
        if let Front::Running(worker) = &front {
            worker.cancel();
        }
        drop(front);
    }

    /// `note`: what the health of the mailbox makes of the result; what follows from it is done by the
    /// thread of the handle, never by the caller's.
    fn call<R: std::marker::Send + 'static>(
        &self,
        what: &'static str,
        deadline: Deadline,
        work: impl FnOnce(&mut Work) -> Result<R> + std::marker::Send + 'static,
        note: fn(&Arc<Context>, &Result<R>) -> FollowUp,
    ) -> Result<R> {
        let front = self.front()?;
        let context = self.context.clone();
        let result = front.call_then(what, deadline, work, move |result| note(&context, result));
        let result = result.unwrap_or_else(|missed| {
            let error = missed.into_error(what);
            health::remember(&self.context, Some(&error));
            Err(error)
        });
        if front.has_panicked() {
            self.close();
        }
        // Faults found at work (a client secret that the provider refuses) point into the form.
        result.map_err(|error| error.under(self.context.session.account.direction.pointer()))
    }

    fn front(&self) -> Result<Arc<Worker<Work>>> {
        let mut front = self.lock();
        match &*front {
            Front::Running(worker) => Ok(worker.clone()),
            Front::Closed => Err(Error::new(Kind::Closed, "The handle was closed.").remedy("Open the mailbox again.")),
            Front::Idle => {
                let fetch = Fetch::new(&self.context.session.account.username);
                let work = Work { context: self.context.clone(), fetch, send: Send::default() };
                let worker = Arc::new(Worker::start("oauth-mail", work)?);
                *front = Front::Running(worker.clone());
                Ok(worker)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Front> {
        // The guarded value is replaced whole, so it is never half-changed.
        seam::lock("handle.front", &self.front)
    }
}

/// What one `fetch_batch` hands over. `header`: `{"more","remaining","counts":{"listed","delivered","skipped",
/// "quarantined"},"skipped":[{"key","reason"}],"quarantined":[{"key","reason","tries","aside",…}],"resets":[…]}`, with 0 tries
/// what may be the server's trouble; also
/// `elsewhere_seconds` in an empty one: another node on the same PostgreSQL store fetches this mailbox, for at most so long.
pub struct Batch {
    pub header: String,
    pub messages: Vec<Message>,
    /// The share of the plugin's memory that the large ones take; given back when the batch is freed.
    _taken: Vec<memory::Taken>,
}

pub struct Message {
    /// Stable: mailbox (login and server) + folder + the provider's own id.
    pub key: String,
    pub raw: Vec<u8>,
    /// Facts and disposition, as JSON.
    pub facts: String,
}
