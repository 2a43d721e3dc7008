//! The C face: one exported symbol per major, a table of functions behind it. What they do is in `handle`; here pointers are
//! checked and answers become objects.
//!
//! | file | what |
//! |---|---|
//! | `types` | what crosses; `include/oauth_mail.h` is generated from it |
//! | `objects` | the objects behind the numbers, and what a wrong number is answered |
//! | `gate` | the host's callbacks, which end with its plugin |

mod gate;
mod objects;
mod types;

use std::{ffi::c_void, sync::Arc};

use oauth_mail_core::{Error, Kind, Result, guard::guarded, message, secret::Secret};
use serde_json::{Value, json};

use crate::{
    convert::{self, FetchedBatch},
    guard,
    handle::OpenPlugin,
};
use gate::{Gate, Host};
use objects::{Account, Batch, Object, Plugin, Registry};
use types::{
    OAUTH_MAIL_ABI_VERSION, OAUTH_MAIL_OK, OAUTH_MAIL_PART_ATTACHMENT, OAUTH_MAIL_PART_FACTS, OAUTH_MAIL_PART_HTML,
    OAUTH_MAIL_PART_KEY, OAUTH_MAIL_PART_RAW, OAUTH_MAIL_PART_TEXT, OauthMailApi, OauthMailCallbacks, OauthMailHandle,
};

/// [any] The table of version 1, for ever: it lives as long as the process. `size` receives its size, as its first member
/// says it, too; NULL, or the address of a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oauth_mail_v1_api(size: *mut usize) -> *const OauthMailApi {
    if !size.is_null() && size.is_aligned() {
        // SAFETY: the caller says so.
        unsafe { size.write(size_of::<OauthMailApi>()) };
    }
    &raw const API
}

static API: OauthMailApi = OauthMailApi {
    size: size_of::<OauthMailApi>(),
    version: OAUTH_MAIL_ABI_VERSION,
    reserved: 0,
    describe,
    plugin_new,
    open,
    authenticate,
    fetch_batch,
    settle_batch,
    send_message,
    cancel,
    close,
    text,
    count,
    part,
    release,
};

unsafe extern "C" fn describe(text: *mut OauthMailHandle, error: *mut OauthMailHandle) -> u32 {
    answer("describe", error, || {
        let text = Out::new(text, "text")?;
        text.write(objects::put(Object::Text(convert::describe().as_str().into())));
        Ok(())
    })
}

unsafe extern "C" fn plugin_new(
    config: *const u8,
    config_len: usize,
    callbacks: *const OauthMailCallbacks,
    plugin: *mut OauthMailHandle,
    error: *mut OauthMailHandle,
) -> u32 {
    guard::quiet();
    answer("plugin_new", error, || {
        // First, so that whatever fails after it releases them.
        let callbacks = read_callbacks(callbacks)?;
        let gate = Gate::new(callbacks.as_ref().map(|callbacks| Host {
            userdata: callbacks.userdata.expose_provenance(),
            log: callbacks.log,
            health: callbacks.health,
            release: callbacks.release,
        }));
        let made = (|| {
            let plugin = Out::new(plugin, "plugin")?;
            let config = with_key(utf8(config, config_len, "config")?, callbacks.as_ref())?;
            let watcher = callbacks.is_some_and(|callbacks| callbacks.health.is_some()).then(|| gate.watcher());
            let open = OpenPlugin::new(config.expose(), gate.logger(), watcher)?;
            Ok((plugin, open))
        })();
        let (plugin, open) = made.inspect_err(|_| gate.close())?;
        plugin.write(objects::put(Object::Plugin(Arc::new(Plugin { open, gate }))));
        Ok(())
    })
}

unsafe extern "C" fn open(
    plugin: OauthMailHandle,
    settings: *const u8,
    settings_len: usize,
    account: *mut OauthMailHandle,
    error: *mut OauthMailHandle,
) -> u32 {
    answer("open", error, || {
        let account = Out::new(account, "account")?;
        let settings = utf8(settings, settings_len, "settings")?;
        let open = objects::plugin(plugin)?.open.open(settings)?;
        account.write(objects::put(Object::Account(Arc::new(Account { open, plugin }))));
        Ok(())
    })
}

unsafe extern "C" fn authenticate(
    account: OauthMailHandle,
    request: *const u8,
    request_len: usize,
    text: *mut OauthMailHandle,
    error: *mut OauthMailHandle,
) -> u32 {
    answer("authenticate", error, || {
        let text = Out::new(text, "text")?;
        let request = utf8(request, request_len, "request")?;
        text.write_text(&objects::account(account)?.open.authenticate(request)?);
        Ok(())
    })
}

unsafe extern "C" fn fetch_batch(
    account: OauthMailHandle,
    request: *const u8,
    request_len: usize,
    batch: *mut OauthMailHandle,
    error: *mut OauthMailHandle,
) -> u32 {
    answer("fetch_batch", error, || {
        let out = Out::new(batch, "batch")?;
        let request = utf8(request, request_len, "request")?;
        let batch = FetchedBatch::new(objects::account(account)?.open.fetch_batch(request)?);
        out.write(objects::put(Object::Batch(Arc::new(Batch::new(batch)))));
        Ok(())
    })
}

unsafe extern "C" fn settle_batch(
    account: OauthMailHandle,
    request: *const u8,
    request_len: usize,
    text: *mut OauthMailHandle,
    error: *mut OauthMailHandle,
) -> u32 {
    answer("settle_batch", error, || {
        let text = Out::new(text, "text")?;
        let request = utf8(request, request_len, "request")?;
        text.write_text(&objects::account(account)?.open.settle_batch(request)?);
        Ok(())
    })
}

unsafe extern "C" fn send_message(
    account: OauthMailHandle,
    request: *const u8,
    request_len: usize,
    raw: *const u8,
    raw_len: usize,
    text: *mut OauthMailHandle,
    error: *mut OauthMailHandle,
) -> u32 {
    answer("send_message", error, || {
        let text = Out::new(text, "text")?;
        let (request, raw) = (utf8(request, request_len, "request")?, bytes(raw, raw_len, "raw")?);
        text.write_text(&objects::account(account)?.open.send_message(request, raw)?);
        Ok(())
    })
}

unsafe extern "C" fn cancel(account: OauthMailHandle, error: *mut OauthMailHandle) -> u32 {
    answer("cancel", error, || objects::account(account)?.open.cancel())
}

unsafe extern "C" fn close(account: OauthMailHandle, error: *mut OauthMailHandle) -> u32 {
    answer("close", error, || {
        objects::account(account)?.open.close();
        Ok(())
    })
}

unsafe extern "C" fn text(
    object: OauthMailHandle,
    data: *mut *const u8,
    len: *mut usize,
    error: *mut OauthMailHandle,
) -> u32 {
    answer_inside("text", error, || {
        let view = View::new(data, len)?;
        match objects::get(object)? {
            Object::Text(text) => view.write(text.as_bytes()),
            Object::Batch(batch) => view.write(batch.batch.header().as_bytes()),
            _ => return Err(misuse(format!("The handle {object} names an object that has no text."))),
        }
        Ok(())
    })
}

unsafe extern "C" fn count(batch: OauthMailHandle, messages: *mut usize, error: *mut OauthMailHandle) -> u32 {
    answer_inside("count", error, || {
        let messages = Out::new(messages, "messages")?;
        messages.write(objects::batch(batch)?.batch.len());
        Ok(())
    })
}

unsafe extern "C" fn part(
    batch: OauthMailHandle,
    message: usize,
    part: u32,
    attachment: u32,
    data: *mut *const u8,
    len: *mut usize,
    error: *mut OauthMailHandle,
) -> u32 {
    answer("part", error, || {
        let view = View::new(data, len)?;
        let object = objects::batch(batch)?;
        let batch = &object.batch;
        if message >= batch.len() {
            return Err(misuse(format!("There is no message {message}: the batch has {}.", batch.len())));
        }
        match part {
            OAUTH_MAIL_PART_KEY => view.write(batch.key(message).as_bytes()),
            OAUTH_MAIL_PART_RAW => view.write(batch.raw(message)),
            OAUTH_MAIL_PART_FACTS => view.write(batch.facts(message).as_bytes()),
            OAUTH_MAIL_PART_TEXT | OAUTH_MAIL_PART_HTML => {
                let field = if part == OAUTH_MAIL_PART_TEXT { "text" } else { "html" };
                view.write(&object.decoded((message, part, 0), || {
                    let facts: Value = serde_json::from_str(batch.facts(message)).unwrap_or_default();
                    Ok(facts[field].as_str().unwrap_or_default().as_bytes().to_vec())
                })?);
            }
            OAUTH_MAIL_PART_ATTACHMENT => {
                let decode =
                    || guarded("decoding an attachment", || message::attachment(batch.raw(message), attachment));
                view.write(&object.decoded((message, part, attachment), decode)?);
            }
            other => {
                return Err(misuse(format!("There is no part {other}; see OAUTH_MAIL_PART_KEY and those after it.")));
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn release(object: OauthMailHandle) -> u32 {
    answer_inside("release", std::ptr::null_mut(), || {
        if gate::inside_callback() && !matches!(objects::get(object)?, Object::Text(_)) {
            return Err(inside());
        }
        let (object, accounts) = objects::take(object)?;
        for account in &accounts {
            account.open.close();
        }
        match &object {
            Object::Account(account) => account.open.close(),
            Object::Plugin(plugin) => plugin.gate.close(),
            Object::Batch(_) | Object::Text(_) => {}
        }
        Ok(())
    })
}

/// Runs one function's body; what goes wrong becomes its status and an error object.
fn answer(name: &str, error: *mut OauthMailHandle, body: impl FnOnce() -> Result<()>) -> u32 {
    answer_inside(name, error, || if gate::inside_callback() { Err(inside()) } else { body() })
}

/// Also inside a callback.
fn answer_inside(name: &str, error: *mut OauthMailHandle, body: impl FnOnce() -> Result<()>) -> u32 {
    match guarded(name, body) {
        Ok(()) => OAUTH_MAIL_OK,
        Err(failure) => {
            // The status says enough to whoever wants no words.
            if let Ok(out) = Out::new(error, "error") {
                out.write_text(&failure.to_json().to_string());
            }
            failure.kind() as u32
        }
    }
}

fn inside() -> Error {
    misuse("A callback may not call this function.").remedy("Note what is to be done, and do it after the callback.")
}

fn misuse(sentence: impl Into<String>) -> Error {
    Error::new(Kind::Misuse, sentence)
}

/// Where an answer goes: checked before the work, so that none is lost.
struct Out<T>(*mut T);

impl<T> Out<T> {
    fn new(pointer: *mut T, name: &str) -> Result<Self> {
        if pointer.is_null() || !pointer.is_aligned() {
            return Err(misuse(format!("`{name}` is {}.", if pointer.is_null() { "NULL" } else { "not aligned" }))
                .remedy("Hand in the address of a variable that receives the answer."));
        }
        Ok(Self(pointer))
    }

    fn write(self, value: T) {
        // SAFETY: neither NULL nor misaligned; the header says that it points to a variable of this type.
        unsafe { self.0.write(value) };
    }
}

impl Out<OauthMailHandle> {
    fn write_text(self, text: &str) {
        self.write(objects::put(Object::Text(text.into())));
    }
}

/// Where a view on bytes goes.
struct View(Out<*const u8>, Out<usize>);

impl View {
    fn new(data: *mut *const u8, len: *mut usize) -> Result<Self> {
        Ok(Self(Out::new(data, "data")?, Out::new(len, "len")?))
    }

    /// `bytes` lie in an object that lives until the host releases it.
    fn write(self, bytes: &[u8]) {
        self.0.write(bytes.as_ptr());
        self.1.write(bytes.len());
    }
}

fn bytes<'a>(data: *const u8, len: usize, name: &str) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(misuse(format!("`{name}` is NULL, but {len} bytes long.")));
    }
    if isize::try_from(len).is_err() {
        return Err(Error::new(Kind::TooLarge, format!("`{name}` is {len} bytes long, which no memory holds.")));
    }
    // SAFETY: not NULL; the header says that `len` bytes can be read there for the call, and nothing here keeps them longer.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

fn utf8<'a>(data: *const u8, len: usize, name: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes(data, len, name)?).map_err(|error| {
        misuse(format!("`{name}` is not UTF-8 from byte {} on.", error.valid_up_to()))
            .remedy("Hand in JSON as UTF-8, with its length in bytes.")
    })
}

/// As much of them as the host knows; the rest is empty.
fn read_callbacks(callbacks: *const OauthMailCallbacks) -> Result<Option<OauthMailCallbacks>> {
    if callbacks.is_null() {
        return Ok(None);
    }
    let whole = size_of::<OauthMailCallbacks>();
    if !callbacks.is_aligned() {
        return Err(misuse("`callbacks` is not aligned."));
    }
    // SAFETY: the header says that the struct begins with its size.
    let size = unsafe { (&raw const (*callbacks).size).read() };
    // A host of a later version knows more callbacks than this library calls; one that knows less than userdata and log
    // has not set `size`.
    let least = std::mem::offset_of!(OauthMailCallbacks, health);
    if size < least || size > 64 * whole {
        return Err(misuse(format!(
            "`callbacks.size` is {size}; it must be sizeof(OauthMailCallbacks), here {whole}."
        )));
    }
    let mut known = OauthMailCallbacks {
        size: whole,
        userdata: std::ptr::null_mut(),
        log: None,
        health: None,
        secret_key: None,
        release: None,
    };
    // SAFETY: `size` bytes can be read, and no more than `known` has are written; a callback that is not set is NULL.
    unsafe {
        std::ptr::copy_nonoverlapping(callbacks.cast::<u8>(), (&raw mut known).cast::<u8>(), size.min(whole));
    }
    Ok(Some(known))
}

/// The configuration with the key that the host's callback gave.
fn with_key(config: &str, callbacks: Option<&OauthMailCallbacks>) -> Result<Secret> {
    let Some((secret_key, userdata)) = callbacks.and_then(|host| Some((host.secret_key?, host.userdata))) else {
        return Ok(Secret::new(config));
    };
    let mut document: Value =
        serde_json::from_str(config).map_err(|error| misuse(format!("The configuration is not JSON: {error}.")))?;
    let key = convert::key_from(|key| {
        // SAFETY: the buffer is as long as is said; the header forbids to unwind.
        unsafe { secret_key(userdata, key.as_mut_ptr(), key.len()) }
    })
    .map_err(|status| {
        Error::new(Kind::Settings, format!("The host's callback for the key answered {status}."))
            .remedy("It must write 32 bytes and answer 0.")
    })?;
    document["key"] = json!({"value": key.expose()});
    Ok(Secret::new(document.to_string()))
}

type LogFn = unsafe extern "C" fn(*mut c_void, u32, *const u8, usize, *const u8, usize);
type HealthFn = unsafe extern "C" fn(*mut c_void, *const u8, usize, *const u8, usize);
type ReleaseFn = unsafe extern "C" fn(*mut c_void);

fn call_log(log: LogFn, userdata: usize, level: u32, mailbox: &str, line: &str) {
    let userdata = std::ptr::with_exposed_provenance_mut(userdata);
    // SAFETY: as the header describes it; the texts live for the call.
    unsafe { log(userdata, level, mailbox.as_ptr(), mailbox.len(), line.as_ptr(), line.len()) };
}

fn call_health(health: HealthFn, userdata: usize, mailbox: &str, document: &str) {
    let userdata = std::ptr::with_exposed_provenance_mut(userdata);
    // SAFETY: as the header describes it; the texts live for the call.
    unsafe { health(userdata, mailbox.as_ptr(), mailbox.len(), document.as_ptr(), document.len()) };
}

fn call_release(release: ReleaseFn, userdata: usize) {
    // SAFETY: as the header describes it.
    unsafe { release(std::ptr::with_exposed_provenance_mut(userdata)) };
}

fn leaked(registry: *mut Registry) -> Option<&'static Registry> {
    // SAFETY: NULL, or made by `Box::leak` and never freed.
    unsafe { registry.as_ref() }
}

// The numbers of the header are those of the core.
const _: () = {
    use types::*;
    assert!(Kind::Settings as u32 == OAUTH_MAIL_SETTINGS);
    assert!(Kind::ConsentRequired as u32 == OAUTH_MAIL_CONSENT_REQUIRED);
    assert!(Kind::AdminRequired as u32 == OAUTH_MAIL_ADMIN_REQUIRED);
    assert!(Kind::Refused as u32 == OAUTH_MAIL_REFUSED);
    assert!(Kind::Throttled as u32 == OAUTH_MAIL_THROTTLED);
    assert!(Kind::Transient as u32 == OAUTH_MAIL_TRANSIENT);
    assert!(Kind::TooLarge as u32 == OAUTH_MAIL_TOO_LARGE);
    assert!(Kind::ServerMisbehaved as u32 == OAUTH_MAIL_SERVER_MISBEHAVED);
    assert!(Kind::Unsupported as u32 == OAUTH_MAIL_UNSUPPORTED);
    assert!(Kind::Misuse as u32 == OAUTH_MAIL_MISUSE);
    assert!(Kind::Closed as u32 == OAUTH_MAIL_CLOSED);
    assert!(Kind::Internal as u32 == OAUTH_MAIL_INTERNAL);
};

// Frozen for 64 bit: `include/oauth_mail-1.0.h` and the hosts count on these places.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<OauthMailCallbacks>() == 48 && offset_of!(OauthMailCallbacks, release) == 40);
    assert!(offset_of!(OauthMailApi, version) == 8 && offset_of!(OauthMailApi, describe) == 16);
    assert!(offset_of!(OauthMailApi, release) == 16 + 12 * 8 && size_of::<OauthMailApi>() == 16 + 13 * 8);
    // For `dlsym`.
    let _: types::OauthMailV1Api = oauth_mail_v1_api;
};
