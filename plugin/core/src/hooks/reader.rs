//! The connection to one mailbox on a thread of its own, reading ahead of the host.
//!
//! While the host works on one batch the next is on its way. What lies ready is bounded by `capacity`: with nobody
//! waiting the reader then asks for no more; with the front busy taking it pauses until there is room.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    guard::guarded,
    limits, seam,
    transport::{Entry, Inbox, Item, Raw},
    worker::Worker,
};

pub struct Reader {
    worker: Worker<Connection>,
    pipe: Arc<Pipe>,
    /// Bytes that came over the connection.
    received: Arc<AtomicU64>,
}

struct Connection {
    /// `None` once it failed: a connection that broke its protocol is never used again.
    inbox: Option<Box<dyn Inbox>>,
}

#[derive(Default)]
struct Pipe {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<(Entry, Item)>,
    ready_bytes: u64,
    /// Bytes that came since the front was last woken.
    unannounced: u64,
    capacity: u64,
    room: Room,
    /// The host waits in `fetch_batch`.
    wanted: bool,
    /// The reader waits for room.
    full: bool,
    reading: bool,
    stop: bool,
    /// Entries of the plan that were not asked for yet, or not handed over.
    plan: VecDeque<Entry>,
    failed: Option<Error>,
    /// While reading: how many bytes had come, and since when it is no more.
    silence: Option<(u64, Instant)>,
}

/// What still fits into the batch that the host waits for.
#[derive(Clone, Copy, Default)]
pub struct Room {
    pub messages: usize,
    pub bytes: u64,
}

/// What [`Reader::next`] found.
pub enum Next {
    Message(Entry, Item),
    /// The plan is through.
    End,
    /// The connection ended before the plan did.
    Failed(Error),
    /// Nothing came in time.
    NotYet,
}

impl Reader {
    pub fn new(inbox: Box<dyn Inbox>) -> Result<Self> {
        let received = inbox.received();
        let worker = Worker::start("oauth-mail-read", Connection { inbox: Some(inbox) })?;
        Ok(Self { worker, pipe: Arc::default(), received })
    }

    /// Runs `work` on the connection, when what is being read has ended.
    pub fn with_inbox<R: Send + 'static>(
        &self,
        what: &'static str,
        deadline: Deadline,
        work: impl FnOnce(&mut dyn Inbox) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.pipe.lock().stop = true;
        self.pipe.changed.notify_all();
        self.worker.call(what, deadline, move |connection| {
            let inbox = connection.inbox.as_mut().ok_or_else(gone)?;
            let result = work(inbox.as_mut());
            if result.as_ref().is_err_and(breaks) {
                connection.inbox = None;
            }
            result
        })
    }

    /// Replaces the plan: what to read from now on, in this order.
    pub fn plan(&self, entries: Vec<Entry>) {
        let mut state = self.pipe.lock();
        state.plan = entries.into();
        state.ready.clear();
        (state.ready_bytes, state.unannounced) = (0, 0);
        state.failed = None;
    }

    /// A message that [`Reader::next`] gave is the next one again.
    pub fn put_back(&self, entry: Entry, item: Item) {
        let mut state = self.pipe.lock();
        state.ready_bytes += bytes_of(&item);
        state.ready.push_front((entry, item));
    }

    /// Messages that are planned or lie ready.
    pub fn remaining(&self) -> usize {
        let state = self.pipe.lock();
        state.plan.len() + state.ready.len()
    }

    /// The next message of the plan that did not come yet.
    pub fn peek_entry(&self) -> Option<Entry> {
        let state = self.pipe.lock();
        state.plan.front().cloned()
    }

    /// The size of the next message: as it came, or as it was listed.
    pub fn peek_size(&self) -> Option<u64> {
        let state = self.pipe.lock();
        state.ready.front().map(|(_, item)| bytes_of(item)).or_else(|| state.plan.front().map(|entry| entry.size))
    }

    /// Ends the connection without waiting for a thread that may hang on it; it ends by its own timeouts.
    pub fn leave(mut self) {
        self.worker.leave();
    }

    /// The next message of the plan. Starts reading when nothing is being read.
    pub fn next(&self, capacity: u64, room: Room, deadline: Deadline) -> Result<Next> {
        let mut state = self.pipe.lock();
        (state.capacity, state.room) = (capacity, room);
        state.stop = false;
        loop {
            if let Some((entry, item)) = state.ready.pop_front() {
                state.ready_bytes -= bytes_of(&item);
                state.unannounced = state.unannounced.min(state.ready_bytes);
                state.wanted = true;
                if state.full && state.ready_bytes <= state.capacity / 2 {
                    self.pipe.changed.notify_all();
                }
                return Ok(Next::Message(entry, item));
            }
            if let Some(error) = state.failed.take() {
                return Ok(Next::Failed(error));
            }
            if state.plan.is_empty() && !state.reading {
                return Ok(Next::End);
            }
            state.wanted = true;
            if !state.reading {
                state.reading = true;
                state.silence = None;
                drop(state);
                self.start_reading()?;
                state = self.pipe.lock();
                continue;
            }
            let silent = self.silence(&mut state);
            if silent >= limits::READ_SILENCE {
                return Ok(Next::Failed(silent_server()));
            }
            let left = deadline.left();
            if left.is_zero() {
                return Ok(Next::NotYet);
            }
            let wait = left.min(limits::READ_SILENCE - silent);
            state = self.pipe.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The host has its batch: read ahead up to the capacity, no further. Resumes reading that had paused.
    pub fn rest(&self) -> Result<()> {
        let mut state = self.pipe.lock();
        state.wanted = false;
        let resume = !state.reading
            && !state.stop
            && state.failed.is_none()
            && !state.plan.is_empty()
            && state.ready_bytes < state.capacity;
        if resume {
            state.reading = true;
            state.silence = None;
        }
        self.pipe.changed.notify_all();
        drop(state);
        if resume { self.start_reading() } else { Ok(()) }
    }

    /// How long nothing has come although something is being read. Outlives the call: a host with short deadlines must
    /// get rid of a connection that stands still, too.
    fn silence(&self, state: &mut State) -> Duration {
        let received = self.received.load(Ordering::Relaxed);
        match state.silence {
            Some((before, since)) if before == received => seam::instant().saturating_duration_since(since),
            _ => {
                state.silence = Some((received, seam::instant()));
                Duration::ZERO
            }
        }
    }

    fn start_reading(&self) -> Result<()> {
        let pipe = self.pipe.clone();
        let started = self.worker.start_job("reading mail", move |connection| pipe.read_plan(connection));
        if started.is_err() {
            self.pipe.lock().reading = false;
        }
        started
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.pipe.lock();
        state.stop = true;
        state.wanted = false;
        drop(state);
        self.pipe.changed.notify_all();
    }
}

impl State {
    fn fills_the_batch(&self) -> bool {
        self.ready.len() >= self.room.messages || self.ready_bytes >= self.room.bytes.min(self.capacity)
    }
}

impl Pipe {
    fn read_plan(&self, connection: &mut Connection) {
        let entries: Vec<Entry> = self.lock().plan.iter().cloned().collect();
        let end = guarded("reading mail", || {
            let inbox = connection.inbox.as_mut().ok_or_else(gone)?;
            let deadline = Deadline::after(limits::READ_AHEAD_MAX);
            inbox.read(&entries, deadline, &mut |_, item| self.push(item)).map(drop)
        });
        if end.is_err() {
            connection.inbox = None;
        }
        let mut state = self.lock();
        state.reading = false;
        state.failed = end.err();
        self.changed.notify_all();
    }

    fn push(&self, item: Item) -> ControlFlow<()> {
        let mut state = self.lock();
        if let Some(entry) = state.plan.pop_front() {
            let bytes = bytes_of(&item);
            state.ready_bytes += bytes;
            state.unannounced += bytes;
            state.ready.push_back((entry, item));
        }
        // Waking the front costs both threads more than a small message does, so it is woken for many at once; also when
        // the batch is complete, and in `read_plan` at the end. Its deadline wakes it by itself.
        if state.unannounced >= limits::READ_ANNOUNCE_BYTES || state.fills_the_batch() {
            state.unannounced = 0;
            self.changed.notify_all();
        }
        loop {
            state.full = false;
            if state.stop {
                return ControlFlow::Break(());
            }
            if state.ready_bytes < state.capacity {
                return ControlFlow::Continue(());
            }
            if !state.wanted {
                return ControlFlow::Break(());
            }
            // The front is taking: room comes soon. Woken when half is taken, or after a while to look again.
            state.full = true;
            let wait = Duration::from_millis(100);
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        seam::lock("reader.pipe", &self.state)
    }
}

/// Bytes of memory that an item takes (a spooled one takes disk until the host gets it).
fn bytes_of(item: &Item) -> u64 {
    match item {
        Item::Read(Raw::Memory(bytes)) => bytes.len() as u64,
        Item::Read(Raw::Spool { len, .. }) => *len,
        Item::Gone | Item::LeftOut | Item::Failed(_) => 0,
    }
}

/// Errors after which the state of the connection is not known.
fn breaks(error: &Error) -> bool {
    match error.kind() {
        Kind::Transient | Kind::Throttled | Kind::Internal | Kind::TooLarge => true,
        // With a code of the server it was an answer.
        Kind::ServerMisbehaved => error.code().is_none() && error.status().is_none(),
        _ => false,
    }
}

fn silent_server() -> Error {
    Error::new(Kind::Transient, "The mail server stopped in the middle of an answer.")
        .remedy("It is tried again; if it keeps happening, check the network between here and the server.")
}

fn gone() -> Error {
    Error::new(Kind::Transient, "The connection to the mail server was lost.")
        .remedy("It is opened again at the next fetch.")
}
