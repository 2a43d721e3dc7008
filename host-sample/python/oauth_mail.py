"""oauth-mail for Python: lift this file into your helpdesk. Python 3.8 and newer, no packages.

    with Library("/usr/lib/liboauth_mail.so").plugin({"store": "sqlite:mail.db", "key": {"file": "mail.key"}}) as plugin:
        with plugin.open({"incoming": {...}}) as account:
            with account.fetch_batch(max_messages=100) as batch:
                for message in batch:
                    ...                      # one transaction: your request, and message.key as a unique column
                account.settle_batch({message.key: "imported" for message in batch})

Requests and answers are the JSON documents of plugin/core/src/hooks/mod.rs, as dicts. Errors are exceptions, one class per
kind. ctypes releases the GIL during a call, so other threads go on. Handles are freed by `with`, by close(), or at last
by the garbage collector.
"""

import ctypes
import json
import weakref
from ctypes import CFUNCTYPE, POINTER, byref, c_size_t, c_ubyte, c_uint32, c_uint64, c_void_p

_Bytes, _Handle, _Size = POINTER(c_ubyte), POINTER(c_uint64), POINTER(c_size_t)
_LOG = CFUNCTYPE(None, c_void_p, c_uint32, c_void_p, c_size_t, c_void_p, c_size_t)
_HEALTH = CFUNCTYPE(None, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t)


class _Callbacks(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("userdata", c_void_p), ("log", _LOG), ("health", _HEALTH),
                ("secret_key", c_void_p), ("release", c_void_p)]


_IN = (ctypes.c_char_p, c_size_t)
_OUT = (_Handle, _Handle)


class _Api(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("reserved", c_uint32)] + [
        (name, CFUNCTYPE(c_uint32, *arguments)) for name, arguments in [
            ("describe", _OUT),
            ("plugin_new", _IN + (POINTER(_Callbacks),) + _OUT),
            ("open", (c_uint64,) + _IN + _OUT),
            ("authenticate", (c_uint64,) + _IN + _OUT),
            ("fetch_batch", (c_uint64,) + _IN + _OUT),
            ("settle_batch", (c_uint64,) + _IN + _OUT),
            ("send_message", (c_uint64,) + _IN + _IN + _OUT),
            ("cancel", (c_uint64, _Handle)),
            ("close", (c_uint64, _Handle)),
            ("text", (c_uint64, POINTER(c_void_p), _Size, _Handle)),
            ("count", (c_uint64, _Size, _Handle)),
            ("part", (c_uint64, c_size_t, c_uint32, c_uint32, POINTER(c_void_p), _Size, _Handle)),
            ("release", (c_uint64,)),
        ]
    ]


class OauthMailError(Exception):
    """What a hook answers when it cannot go on. `document` has kind, message, remedy, who, provider_code, faults, ..."""

    def __init__(self, document):
        self.document = document
        self.remedy = document.get("remedy")
        self.faults = document.get("faults") or []
        self.retry_after_seconds = document.get("retry_after_seconds")
        super().__init__(" ".join(filter(None, [document.get("message"), self.remedy])))


class SettingsError(OauthMailError): pass
class ConsentRequired(OauthMailError): pass
class AdminRequired(OauthMailError): pass
class Refused(OauthMailError): pass
class Throttled(OauthMailError): pass
class Transient(OauthMailError): pass
class TooLarge(OauthMailError): pass
class ServerMisbehaved(OauthMailError): pass
class Unsupported(OauthMailError): pass
class Misuse(OauthMailError): pass
class Closed(OauthMailError): pass
class Internal(OauthMailError): pass


_KINDS = [SettingsError, ConsentRequired, AdminRequired, Refused, Throttled, Transient, TooLarge, ServerMisbehaved,
          Unsupported, Misuse, Closed, Internal]


class _Owned:
    """A handle that is released once."""

    def __init__(self, library, handle, *kept):
        self._library, self._handle = library, handle
        # Kept alive by the finalizer, too: callbacks of a plugin, the plugin of an account.
        self._finalizer = weakref.finalize(self, lambda release, handle, *_: release(handle), library._api.release, handle, *kept)

    def close(self):
        self._finalizer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Library:
    """The loaded library. It is never unloaded."""

    def __init__(self, path):
        entry = ctypes.CDLL(path).oauth_mail_v1_api
        entry.restype, entry.argtypes = POINTER(_Api), [_Size]
        self._api = entry(None).contents

    def describe(self):
        """Name, version, protocols, grants, schemas, extensions."""
        return self._text(self._call("describe"))

    def plugin(self, config, log=None, health=None):
        """`log(level, mailbox, line)` and `health(mailbox, document)` are called from any thread, until close()."""
        read = lambda data, length: ctypes.string_at(data, length).decode()
        on_log = _LOG(lambda _, level, m, ml, l, ll: log(level, read(m, ml), read(l, ll))) if log else _LOG()
        on_health = _HEALTH(lambda _, m, ml, h, hl: health(read(m, ml), json.loads(read(h, hl)))) if health else _HEALTH()
        callbacks = _Callbacks(ctypes.sizeof(_Callbacks), None, on_log, on_health, None, None)
        return Plugin(self, self._call("plugin_new", *_json(config), byref(callbacks)), callbacks)

    def _call(self, name, *arguments):
        out, error = c_uint64(), c_uint64()
        status = getattr(self._api, name)(*arguments, byref(out), byref(error))
        self._check(status, error)
        return out.value

    def _check(self, status, error):
        if status:
            kind = _KINDS[status - 1] if status <= len(_KINDS) else OauthMailError
            raise kind(self._text(error.value) if error.value else {"message": "status %d" % status})

    def _text(self, handle):
        try:
            return json.loads(bytes(self._view("text", handle)))
        finally:
            self._api.release(handle)

    def _view(self, name, *arguments):
        """The bytes in place, valid until the object is released: a read-only memoryview."""
        data, length, error = c_void_p(), c_size_t(), c_uint64()
        self._check(getattr(self._api, name)(*arguments, byref(data), byref(length), byref(error)), error)
        if not length.value:
            return memoryview(b"")
        return memoryview((c_ubyte * length.value).from_address(data.value)).cast("B").toreadonly()


def _json(document):
    text = json.dumps(document).encode()
    return text, len(text)


class Plugin(_Owned):
    def __init__(self, library, handle, callbacks):
        super().__init__(library, handle, callbacks)

    def open(self, settings):
        """One mailbox in one direction: {"incoming": {...}} or {"outgoing": {...}}."""
        return Account(self._library, self._library._call("open", self._handle, *_json(settings)), self)


class Account(_Owned):
    def __init__(self, library, handle, plugin):
        super().__init__(library, handle, plugin)

    def authenticate(self, action, **fields):
        return self._ask("authenticate", dict(fields, action=action))

    def fetch_batch(self, **bounds):
        return Batch(self._library, self._library._call("fetch_batch", self._handle, *_json(bounds)))

    def settle_batch(self, results):
        return self._ask("settle_batch", {"results": results})["done"]

    def send_message(self, raw=b"", **request):
        raw = bytes(raw)
        library = self._library
        return library._text(library._call("send_message", self._handle, *_json(request), raw, len(raw)))

    def cancel(self):
        """From another thread: what runs comes back at once."""
        error = c_uint64()
        self._library._check(self._library._api.cancel(self._handle, byref(error)), error)

    def _ask(self, name, request):
        return self._library._text(self._library._call(name, self._handle, *_json(request)))


class Batch(_Owned):
    """Messages in mailbox order; a sequence. Their bytes live as long as the batch."""

    @property
    def header(self):
        return json.loads(bytes(self._library._view("text", self._handle)))

    def __len__(self):
        count, error = c_size_t(), c_uint64()
        self._library._check(self._library._api.count(self._handle, byref(count), byref(error)), error)
        return count.value

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Message(self, index)


class Message:
    def __init__(self, batch, index):
        self._batch, self._index = batch, index

    def _part(self, part, attachment=0):
        return self._batch._library._view("part", self._batch._handle, self._index, part, attachment)

    key = property(lambda self: str(self._part(0), "utf-8"))
    #: A memoryview on the library's bytes: nothing is copied. bytes(message.raw) keeps them beyond the batch.
    raw = property(lambda self: self._part(1))
    facts = property(lambda self: json.loads(bytes(self._part(2))))
    text = property(lambda self: str(self._part(3), "utf-8"))
    html = property(lambda self: str(self._part(4), "utf-8"))

    def attachment(self, part_index):
        """Decoded; `part_index` as facts["attachments"] lists it."""
        return self._part(5, part_index)
