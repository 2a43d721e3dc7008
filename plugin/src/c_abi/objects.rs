//! The objects behind the numbers. Numbers instead of pointers: what was released, or never was, is answered by a status and
//! never followed into memory.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
};

use oauth_mail_core::{Error, Kind, Result};

use super::{gate::Gate, leaked};
use crate::{
    convert::FetchedBatch,
    handle::{OpenAccount, OpenPlugin},
};

#[derive(Clone)]
pub enum Object {
    Plugin(Arc<Plugin>),
    Account(Arc<Account>),
    Batch(Arc<Batch>),
    Text(Arc<str>),
}

pub struct Plugin {
    pub open: OpenPlugin,
    pub gate: Arc<Gate>,
}

pub struct Account {
    pub open: OpenAccount,
    pub plugin: u64,
}

pub struct Batch {
    pub batch: FetchedBatch,
    /// What was decoded: it must not move while the host reads it.
    decoded: Mutex<HashMap<Which, Arc<[u8]>>>,
}

/// Message, part and attachment.
type Which = (usize, u32, u32);

impl Batch {
    pub fn new(batch: FetchedBatch) -> Self {
        Self { batch, decoded: Mutex::default() }
    }

    /// Decoded once; the same bytes at the same place until the batch is freed.
    pub fn decoded(&self, which: Which, decode: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<[u8]>> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = decoded.get(&which) {
            return Ok(bytes.clone());
        }
        let bytes: Arc<[u8]> = decode()?.into();
        decoded.insert(which, bytes.clone());
        Ok(bytes)
    }
}

impl Object {
    /// Above the counter's bits, so that a number shows what it names.
    fn tag(&self) -> u64 {
        match self {
            Self::Plugin(_) => 1,
            Self::Account(_) => 2,
            Self::Batch(_) => 3,
            Self::Text(_) => 4,
        }
    }
}

const COUNTER_BITS: u32 = 48;

/// Of one process. A child of fork begins with an empty one: its parent's threads, locks and connections are not its own.
pub struct Registry {
    process: u32,
    /// There was one before it, of the parent.
    is_forked: bool,
    next: AtomicU64,
    objects: Mutex<HashMap<u64, Object>>,
}

static CURRENT: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());

fn registry() -> &'static Registry {
    let process = std::process::id();
    let current = CURRENT.load(Ordering::Acquire);
    if let Some(registry) = leaked(current).filter(|registry| registry.process == process) {
        return registry;
    }
    let fresh = Box::leak(Box::new(Registry {
        process,
        is_forked: !current.is_null(),
        // A child goes on counting, so that no number of its parent's ever names something of its own.
        next: AtomicU64::new(leaked(current).map_or(1, |parent| parent.next.load(Ordering::Relaxed))),
        objects: Mutex::default(),
    }));
    match CURRENT.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(other) => leaked(other).unwrap_or(fresh),
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn put(object: Object) -> u64 {
    let registry = registry();
    let number = (object.tag() << COUNTER_BITS) | registry.next.fetch_add(1, Ordering::Relaxed);
    registry.lock().insert(number, object);
    number
}

pub fn plugin(handle: u64) -> Result<Arc<Plugin>> {
    match get(handle)? {
        Object::Plugin(plugin) => Ok(plugin),
        other => Err(wrong(handle, "a plugin", &other)),
    }
}

pub fn account(handle: u64) -> Result<Arc<Account>> {
    match get(handle)? {
        Object::Account(account) => Ok(account),
        other => Err(wrong(handle, "an account", &other)),
    }
}

pub fn batch(handle: u64) -> Result<Arc<Batch>> {
    match get(handle)? {
        Object::Batch(batch) => Ok(batch),
        other => Err(wrong(handle, "a batch", &other)),
    }
}

pub fn get(handle: u64) -> Result<Object> {
    let found = registry().lock().get(&handle).cloned();
    found.ok_or_else(|| nothing(handle))
}

/// Takes it out; an account of a plugin that is taken out goes with it.
pub fn take(handle: u64) -> Result<(Object, Vec<Arc<Account>>)> {
    let mut objects = registry().lock();
    let object = objects.remove(&handle).ok_or_else(|| nothing(handle))?;
    let mut accounts = Vec::new();
    if let Object::Plugin(_) = object {
        let of_it = |object: &Object| matches!(object, Object::Account(account) if account.plugin == handle);
        let numbers: Vec<u64> = objects.iter().filter(|(_, object)| of_it(object)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(Object::Account(account)) = objects.remove(&number) {
                accounts.push(account);
            }
        }
    }
    Ok((object, accounts))
}

fn name(object: &Object) -> &'static str {
    match object {
        Object::Plugin(_) => "a plugin",
        Object::Account(_) => "an account",
        Object::Batch(_) => "a batch",
        Object::Text(_) => "a text",
    }
}

fn wrong(handle: u64, needed: &str, found: &Object) -> Error {
    Error::new(Kind::Misuse, format!("The handle {handle} names {}, and {needed} is needed.", name(found)))
        .remedy("Hand in what the function's description asks for.")
}

fn nothing(handle: u64) -> Error {
    if handle == 0 {
        return Error::new(Kind::Misuse, "The handle is 0, which names nothing.")
            .remedy("Check the status of the function that was to write it.");
    }
    if registry().is_forked {
        return Error::new(Kind::Misuse, format!("The handle {handle} was made before fork, in another process."))
            .remedy("Make a plugin of its own in the child: what its parent opened cannot be used here.");
    }
    let (tag, counter) = (handle >> COUNTER_BITS, handle & ((1 << COUNTER_BITS) - 1));
    let was_given = (1..=4).contains(&tag) && counter < registry().next.load(Ordering::Relaxed) && counter > 0;
    if was_given {
        // An account whose plugin was released reads as one that was closed.
        let kind = if tag == 2 { Kind::Closed } else { Kind::Misuse };
        return Error::new(kind, format!("The handle {handle} was released."))
            .remedy("Use a handle only until its release.");
    }
    Error::new(Kind::Misuse, format!("The handle {handle} was never given out."))
        .remedy("Hand in handles as they were written.")
}
