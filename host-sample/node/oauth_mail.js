'use strict';
// oauth-mail for Node.js: lift this file into your helpdesk. Needs koffi (MIT).
//
//   const plugin = new Library('/usr/lib/liboauth_mail.so').plugin({store: 'sqlite:mail.db', key: {file: 'mail.key'}});
//   const account = plugin.open({incoming: {...}});
//   const batch = await account.fetchBatch({max_messages: 100});
//   for (const message of batch) { ... }        // one transaction: your request, and message.key as a unique column
//   await account.settleBatch(Object.fromEntries([...batch].map(message => [message.key, 'imported'])));
//   batch.close();
//
// Requests and answers are the JSON documents of plugin/core/src/hooks/mod.rs. Hooks run on a thread of koffi's, so the
// event loop goes on; errors are OauthMailError with `kind`. close() frees a handle; a FinalizationRegistry catches what was
// forgotten.

const koffi = require('koffi');

const IN = 'const uint8_t *, size_t';
const OUT = '_Out_ uint64_t *, _Out_ uint64_t *';
const FUNCTIONS = {
  describe: OUT,
  plugin_new: `${IN}, void *, ${OUT}`,
  open: `uint64_t, ${IN}, ${OUT}`,
  authenticate: `uint64_t, ${IN}, ${OUT}`,
  fetch_batch: `uint64_t, ${IN}, ${OUT}`,
  settle_batch: `uint64_t, ${IN}, ${OUT}`,
  send_message: `uint64_t, ${IN}, ${IN}, ${OUT}`,
  cancel: 'uint64_t, _Out_ uint64_t *',
  close: 'uint64_t, _Out_ uint64_t *',
  text: 'uint64_t, _Out_ void **, _Out_ size_t *, _Out_ uint64_t *',
  count: 'uint64_t, _Out_ size_t *, _Out_ uint64_t *',
  part: 'uint64_t, size_t, uint32_t, uint32_t, _Out_ void **, _Out_ size_t *, _Out_ uint64_t *',
  release: 'uint64_t',
};
const PROTOTYPES = Object.fromEntries(
  Object.entries(FUNCTIONS).map(([name, args]) => [name, koffi.proto(`uint32_t oauth_mail_${name}(${args})`)]));
const Api = koffi.struct('OauthMailApi', {
  size: 'size_t', version: 'uint32_t', reserved: 'uint32_t',
  ...Object.fromEntries(Object.entries(PROTOTYPES).map(([name, prototype]) => [name, koffi.pointer(prototype)])),
});

/** What a hook answers when it cannot go on. `document` has kind, message, remedy, who, provider_code, faults, ... */
class OauthMailError extends Error {
  constructor(document) {
    super([document.message, document.remedy].filter(Boolean).join(' '));
    this.name = 'OauthMailError';
    this.document = document;
    this.kind = document.kind;
    this.faults = document.faults ?? [];
    this.retryAfterSeconds = document.retry_after_seconds;
  }
}

const json = document => Buffer.from(JSON.stringify(document));

class Library {
  /** The library is never unloaded. */
  constructor(path) {
    const entry = koffi.load(path).func('void *oauth_mail_v1_api(_Out_ size_t *size)');
    const table = koffi.decode(entry([0]), Api);
    this.api = Object.fromEntries(
      Object.keys(FUNCTIONS).map(name => [name, koffi.decode(table[name], PROTOTYPES[name])]));
    this.forgotten = new FinalizationRegistry(handle => this.api.release(handle));
  }

  describe() { return this.read(this.call('describe')); }

  plugin(config) {
    const text = json(config);
    return new Plugin(this, this.call('plugin_new', text, text.length, null));
  }

  /** At once: for what waits for nobody. */
  call(name, ...args) {
    const out = [0], error = [0];
    this.check(this.api[name](...args, out, error), error[0]);
    return out[0];
  }

  /** On another thread. */
  later(name, ...args) {
    return new Promise((resolve, reject) => {
      const out = [0], error = [0];
      this.api[name].async(...args, out, error, (failure, status) => {
        try {
          if (failure) throw failure;
          this.check(status, error[0]);
          resolve(out[0]);
        } catch (problem) { reject(problem); }
      });
    });
  }

  check(status, error) {
    if (status === 0) return;
    throw new OauthMailError(error ? this.read(error) : { kind: 'other', message: `status ${status}` });
  }

  /** A text or an error, once. */
  read(handle) {
    try {
      return JSON.parse(Buffer.from(this.view('text', handle)).toString());
    } finally {
      this.api.release(handle);
    }
  }

  /** The bytes in place, valid until their object is released. */
  view(name, ...args) {
    const data = [null], length = [0], error = [0];
    this.check(this.api[name](...args, data, length, error), error[0]);
    return length[0] ? new Uint8Array(koffi.view(data[0], Number(length[0]))) : new Uint8Array(0);
  }
}

class Owned {
  constructor(library, handle, keep) {
    Object.assign(this, { library, handle, keep });
    library.forgotten.register(this, handle, this);
  }

  close() {
    if (this.handle === 0) return;
    this.library.forgotten.unregister(this);
    this.library.api.release(this.handle);
    this.handle = 0;
  }
}

class Plugin extends Owned {
  /** One mailbox in one direction: {incoming: {...}} or {outgoing: {...}}. */
  open(settings) {
    const text = json(settings);
    return new Account(this.library, this.library.call('open', this.handle, text, text.length), this);
  }
}

class Account extends Owned {
  async authenticate(request) { return this.ask('authenticate', request); }

  async fetchBatch(bounds = {}) {
    const text = json(bounds);
    return new Batch(this.library, await this.library.later('fetch_batch', this.handle, text, text.length), this);
  }

  async settleBatch(results) { return (await this.ask('settle_batch', { results })).done; }

  async sendMessage(request, raw = Buffer.alloc(0)) {
    const text = json(request);
    return this.library.read(
      await this.library.later('send_message', this.handle, text, text.length, raw, raw.length));
  }

  /** What runs comes back at once. */
  cancel() {
    const error = [0];
    this.library.check(this.library.api.cancel(this.handle, error), error[0]);
  }

  async ask(name, request) {
    const text = json(request);
    return this.library.read(await this.library.later(name, this.handle, text, text.length));
  }
}

/** Messages in mailbox order. Their bytes live as long as the batch. */
class Batch extends Owned {
  get header() { return JSON.parse(Buffer.from(this.library.view('text', this.handle)).toString()); }

  get length() {
    const count = [0], error = [0];
    this.library.check(this.library.api.count(this.handle, count, error), error[0]);
    return Number(count[0]);
  }

  *[Symbol.iterator]() {
    for (let index = 0, length = this.length; index < length; index++) yield new Message(this, index);
  }
}

class Message {
  constructor(batch, index) { Object.assign(this, { batch, index }); }

  part(part, attachment = 0) {
    return this.batch.library.view('part', this.batch.handle, this.index, part, attachment);
  }

  get key() { return Buffer.from(this.part(0)).toString(); }
  /** A view on the library's bytes: nothing is copied. Buffer.from(message.raw) keeps them beyond the batch. */
  get raw() { return this.part(1); }
  get facts() { return JSON.parse(Buffer.from(this.part(2)).toString()); }
  get text() { return Buffer.from(this.part(3)).toString(); }
  get html() { return Buffer.from(this.part(4)).toString(); }
  /** Decoded; `partIndex` as facts.attachments lists it. */
  attachment(partIndex) { return this.part(5, partIndex); }
}

module.exports = { Library, OauthMailError };
