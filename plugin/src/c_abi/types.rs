//! What crosses the C interface. `include/oauth_mail.h` is generated from this file by `make gen`; append only.
//!
//! cbindgen copies the comments: they speak to somebody who reads C.

use std::ffi::c_void;

/// The interface that this library has: the `version` of its table.
pub const OAUTH_MAIL_ABI_VERSION: u32 = 1;

/// Everything is well. Any other status is a kind of error; numbers are never reused.
pub const OAUTH_MAIL_OK: u32 = 0;
/// A field of the settings is wrong; the error's "faults" say which.
pub const OAUTH_MAIL_SETTINGS: u32 = 1;
/// A person must open the consent window (again).
pub const OAUTH_MAIL_CONSENT_REQUIRED: u32 = 2;
/// An administrator of the provider must change something.
pub const OAUTH_MAIL_ADMIN_REQUIRED: u32 = 3;
/// The mailbox or the protocol was denied to this identity.
pub const OAUTH_MAIL_REFUSED: u32 = 4;
/// The provider asks to slow down: "retry_after_seconds", or back off.
pub const OAUTH_MAIL_THROTTLED: u32 = 5;
/// Nothing is wrong that waiting does not cure.
pub const OAUTH_MAIL_TRANSIENT: u32 = 6;
/// A message or an answer is larger than the limit that protects the host.
pub const OAUTH_MAIL_TOO_LARGE: u32 = 7;
/// The server broke its protocol.
pub const OAUTH_MAIL_SERVER_MISBEHAVED: u32 = 8;
/// The server, or this library, does not have what was asked for.
pub const OAUTH_MAIL_UNSUPPORTED: u32 = 9;
/// The host called a function with something that cannot be meant.
pub const OAUTH_MAIL_MISUSE: u32 = 10;
/// The handle was closed.
pub const OAUTH_MAIL_CLOSED: u32 = 11;
/// A bug of this library. The handle is closed; others live on.
pub const OAUTH_MAIL_INTERNAL: u32 = 12;

/// Names an object of the library: a plugin, an account, a batch, a text or an error. 0 names nothing, and no number is
/// used twice in a process. It is no pointer: one that was released, or made up, is answered by a status. Below 2^53, so
/// that a language whose numbers are doubles can hold it.
pub type OauthMailHandle = u64;

/// Whom the library calls. Any member but `size` may be NULL. Called from any thread, several at once; must not unwind
/// (no C++ exception, no longjmp). Nothing is called any more when `release` of the plugin has returned. Inside a callback
/// no function of the table may be called but `text`, `count` and `release` of a text or an error.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OauthMailCallbacks {
    /// sizeof(OauthMailCallbacks) of the host.
    pub size: usize,
    /// The host's own; handed back with each call.
    pub userdata: *mut c_void,
    /// One redacted line. `level`: 1 error, 2 warning, 3 info, 4 debug. `mailbox` has no bytes when the line is about the
    /// plugin itself. UTF-8, not terminated, borrowed for the call.
    pub log: Option<
        unsafe extern "C" fn(
            userdata: *mut c_void,
            level: u32,
            mailbox: *const u8,
            mailbox_len: usize,
            line: *const u8,
            line_len: usize,
        ),
    >,
    /// The health of a mailbox has changed: the document that "health" of `authenticate` {"action":"status"} holds. On the
    /// thread of the function that noticed it. UTF-8, not terminated, borrowed for the call.
    pub health: Option<
        unsafe extern "C" fn(
            userdata: *mut c_void,
            mailbox: *const u8,
            mailbox_len: usize,
            health: *const u8,
            health_len: usize,
        ),
    >,
    /// The key that seals the store, in place of "key" of the configuration: writes 32 bytes to `key` and answers 0; any
    /// other answer fails `plugin_new`. Called once, inside `plugin_new`. The library wipes its copy.
    pub secret_key: Option<unsafe extern "C" fn(userdata: *mut c_void, key: *mut u8, key_len: usize) -> u32>,
    /// The last call: from then on `userdata` may be freed. Called once, inside `release` of the plugin, or inside
    /// `plugin_new` when that fails.
    pub release: Option<unsafe extern "C" fn(userdata: *mut c_void)>,
}

/// The functions. All are thread-safe; each says which threads may call it. Inputs are borrowed for the call. Texts are
/// UTF-8 with their length in bytes, not terminated. Outputs are written only when the status is OAUTH_MAIL_OK, `error`
/// only when it is not. What was written through `plugin`, `account`, `batch`, `text` and `error` belongs to the host,
/// which releases it once.
///
/// Thread tags: [any] any thread, at any time. [one] any thread, but one call at a time for one account: others wait for
/// their turn within their deadline.
#[repr(C)]
pub struct OauthMailApi {
    /// sizeof(OauthMailApi) of the library: what lies behind it, an older library does not have.
    pub size: usize,
    /// OAUTH_MAIL_ABI_VERSION.
    pub version: u32,
    /// 0.
    pub reserved: u32,
    /// [any] Name, version, protocols, grants, schemas, extensions: a JSON text.
    pub describe: unsafe extern "C" fn(text: *mut OauthMailHandle, error: *mut OauthMailHandle) -> u32,
    /// [any] A plugin from {"store":"sqlite:PATH" or "postgres://...","key":{"file":PATH},...}. `callbacks` may be NULL.
    pub plugin_new: unsafe extern "C" fn(
        config: *const u8,
        config_len: usize,
        callbacks: *const OauthMailCallbacks,
        plugin: *mut OauthMailHandle,
        error: *mut OauthMailHandle,
    ) -> u32,
    /// [any] One mailbox in one direction from {"incoming":{...}} or {"outgoing":{...}}. Nothing is connected yet.
    /// OAUTH_MAIL_SETTINGS with every fault at once. With the extension oauth-mail/label/1, "label":TEXT beside the
    /// form names the mailbox in log lines and changes of health; without it they name the username.
    pub open: unsafe extern "C" fn(
        plugin: OauthMailHandle,
        settings: *const u8,
        settings_len: usize,
        account: *mut OauthMailHandle,
        error: *mut OauthMailHandle,
    ) -> u32,
    /// [one] {"action":"status"/"start"/"complete"/"poll"/"revoke"/"diagnose",...}: a JSON text with "state".
    pub authenticate: unsafe extern "C" fn(
        account: OauthMailHandle,
        request: *const u8,
        request_len: usize,
        text: *mut OauthMailHandle,
        error: *mut OauthMailHandle,
    ) -> u32,
    /// [one] {"max_messages","max_bytes","deadline_ms"}: the next unsettled messages. The mailbox is not changed.
    pub fetch_batch: unsafe extern "C" fn(
        account: OauthMailHandle,
        request: *const u8,
        request_len: usize,
        batch: *mut OauthMailHandle,
        error: *mut OauthMailHandle,
    ) -> u32,
    /// [one] {"results":{KEY:"imported"/"duplicate"/"refused"/"retry"/"failed"}}: a JSON text with what was done. Can be
    /// repeated.
    pub settle_batch: unsafe extern "C" fn(
        account: OauthMailHandle,
        request: *const u8,
        request_len: usize,
        text: *mut OauthMailHandle,
        error: *mut OauthMailHandle,
    ) -> u32,
    /// [one] {"to","subject","text",...}, or with `raw` {"envelope":{"to":[...]}}: a JSON text with "outcome". `raw` may be
    /// NULL with length 0.
    pub send_message: unsafe extern "C" fn(
        account: OauthMailHandle,
        request: *const u8,
        request_len: usize,
        raw: *const u8,
        raw_len: usize,
        text: *mut OauthMailHandle,
        error: *mut OauthMailHandle,
    ) -> u32,
    /// [any] Calls of this account that run or wait come back at once: OAUTH_MAIL_TRANSIENT, and a message that was offered
    /// to a server with the outcome "unknown". The account stays open.
    pub cancel: unsafe extern "C" fn(account: OauthMailHandle, error: *mut OauthMailHandle) -> u32,
    /// [any] Ends what the account does: calls that run come back as by `cancel`, later ones answer OAUTH_MAIL_CLOSED. `release`
    /// closes, too.
    pub close: unsafe extern "C" fn(account: OauthMailHandle, error: *mut OauthMailHandle) -> u32,
    /// [any] The bytes of a text, of an error (JSON: kind, message, remedy, who, provider_code, ...), or of a batch's header.
    /// They live until the object is released; nothing is copied.
    pub text: unsafe extern "C" fn(
        object: OauthMailHandle,
        data: *mut *const u8,
        len: *mut usize,
        error: *mut OauthMailHandle,
    ) -> u32,
    /// [any] How many messages a batch has.
    pub count: unsafe extern "C" fn(batch: OauthMailHandle, messages: *mut usize, error: *mut OauthMailHandle) -> u32,
    /// [any] One part of one message: OAUTH_MAIL_PART_... The bytes live until the batch is released. Key, raw and facts are
    /// not copied; text, HTML and attachments are decoded once, when first asked for. A message without text or HTML answers
    /// OAUTH_MAIL_OK with no bytes.
    pub part: unsafe extern "C" fn(
        batch: OauthMailHandle,
        message: usize,
        part: u32,
        attachment: u32,
        data: *mut *const u8,
        len: *mut usize,
        error: *mut OauthMailHandle,
    ) -> u32,
    /// [any] Frees an object. An account is closed before; a plugin closes its accounts before, waits for callbacks that run,
    /// and calls none after. Never from inside a callback, but for texts and errors.
    pub release: unsafe extern "C" fn(object: OauthMailHandle) -> u32,
}

/// Stable key of a message: file it with the request, as a unique column.
pub const OAUTH_MAIL_PART_KEY: u32 = 0;
/// The message as the server has it, byte for byte.
pub const OAUTH_MAIL_PART_RAW: u32 = 1;
/// Facts and disposition as JSON.
pub const OAUTH_MAIL_PART_FACTS: u32 = 2;
/// The text/plain body, UTF-8.
pub const OAUTH_MAIL_PART_TEXT: u32 = 3;
/// The text/html body, UTF-8, not sanitised.
pub const OAUTH_MAIL_PART_HTML: u32 = 4;
/// An attachment, decoded; `attachment` is its "part_index" in the facts.
pub const OAUTH_MAIL_PART_ATTACHMENT: u32 = 5;

/// The type of `oauth_mail_v1_api`, for dlsym.
pub type OauthMailV1Api = unsafe extern "C" fn(size: *mut usize) -> *const OauthMailApi;
