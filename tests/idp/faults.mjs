// What a test does to the authorization server behind the provider's back, and what it may count afterwards.
//
//   POST /test/fault   {"path","times","status","headers","body","delay_ms","drop","lose"}
//                      the next `times` requests to `path`: answered with `status` after `delay_ms` (status 0: only
//                      delayed), the connection closed unread (`drop`), or worked off and the answer lost (`lose`)
//   POST /test/revoke  {"address","only"}  forgets what that person granted; only: "access" | "refresh"
//   POST /test/client  {"client_id","certificate",…}  registers a client, or another key of it (applications.mjs)
//   POST /test/reset   {}                  forgets the faults that are still waiting
import { appendFileSync } from 'node:fs';

import { register } from './applications.mjs';
import { readForm } from './pages.mjs';

// Storage without oidc-provider's own limit of 1,000 entries, and which can be searched by account.
export function makeAdapter() {
  const storage = new Map();
  const alive = (entry) => (entry && (!entry.until || entry.until > Date.now()) ? entry.payload : undefined);
  const search = (model, test) =>
    [...storage.values()]
      .filter((entry) => entry.model === model)
      .map(alive)
      .find((payload) => payload && test(payload));

  class Adapter {
    constructor(model) {
      this.model = model;
    }

    key(id) {
      return `${this.model}:${id}`;
    }

    async upsert(id, payload, expiresIn) {
      const until = expiresIn ? Date.now() + expiresIn * 1000 : undefined;
      storage.set(this.key(id), { model: this.model, payload, until });
    }

    async find(id) {
      return alive(storage.get(this.key(id)));
    }

    async findByUid(uid) {
      return search(this.model, (payload) => payload.uid === uid);
    }

    async findByUserCode(userCode) {
      return search(this.model, (payload) => payload.userCode === userCode);
    }

    async consume(id) {
      const entry = storage.get(this.key(id));
      if (entry) {
        entry.payload.consumed = Math.floor(Date.now() / 1000);
      }
    }

    async destroy(id) {
      storage.delete(this.key(id));
    }

    async revokeByGrantId(grantId) {
      for (const [key, { payload }] of storage) {
        if (payload.grantId === grantId) {
          storage.delete(key);
        }
      }
    }
  }
  return { Adapter, storage };
}

export function makeFaults({ storage, users, requestLog }) {
  let pending = [];
  const log = (line) => appendFileSync(requestLog, `${JSON.stringify({ at_ms: Date.now(), ...line })}\n`);

  // Answers /test/… and what a fault is waiting for; everything else goes on to `pass`.
  function intercept(req, res, pass) {
    const path = req.url.split('?')[0];
    if (path.startsWith('/test/')) {
      admin(path, req, res).catch((error) => res.writeHead(400).end(String(error)));
      return;
    }
    const fault = pending.find((one) => one.path === path && one.times > 0);
    if (!fault) {
      pass();
      return;
    }
    fault.times -= 1;
    if (fault.lose) {
      // The provider works the request off; then the connection breaks before the first byte of the answer.
      res.writeHead = () => res;
      res.write = () => true;
      res.end = () => {
        req.socket.destroy();
        return res;
      };
      pass();
      return;
    }
    if (fault.drop) {
      log({ path, status: 0, fault: 'drop' });
      req.socket.destroy();
      return;
    }
    if (fault.status === 0) {
      setTimeout(pass, fault.delay_ms ?? 0);
      return;
    }
    readForm(req).then((form) => {
      const grant_type = form.get('grant_type') ?? undefined;
      log({ path, status: fault.status, grant_type, client_id: form.get('client_id') ?? undefined, fault: 'status' });
      const headers = { 'content-type': 'application/json', ...fault.headers };
      setTimeout(() => res.writeHead(fault.status, headers).end(fault.body ?? ''), fault.delay_ms ?? 0);
    });
  }

  async function admin(path, req, res) {
    const parts = [];
    for await (const part of req) {
      parts.push(part);
    }
    const body = JSON.parse(Buffer.concat(parts).toString() || '{}');
    let count = 0;
    if (path === '/test/fault') {
      pending.push({ path: '/token', times: 1, status: 503, ...body });
    } else if (path === '/test/reset') {
      pending = [];
    } else if (path === '/test/client') {
      register(storage, body);
    } else if (path === '/test/revoke') {
      count = revoke(body);
    } else {
      throw new Error(`there is no ${path}`);
    }
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ count }));
  }

  function revoke({ address, only }) {
    const user = users.find((one) => one.address === address);
    const everything = ['AccessToken', 'RefreshToken', 'AuthorizationCode', 'Grant'];
    const models = { access: ['AccessToken'], refresh: ['RefreshToken'] }[only] ?? everything;
    const keys = [...storage]
      .filter(([, { model, payload }]) => payload.accountId === user?.sub && models.includes(model))
      .map(([key]) => key);
    keys.forEach((key) => storage.delete(key));
    return keys.length;
  }

  // Koa middleware around the whole provider: one line per request, and answers without a refresh token.
  async function observe(ctx, next) {
    await next();
    const client = ctx.oidc?.client;
    const grantType = ctx.oidc?.params?.grant_type;
    if (grantType === 'refresh_token' && client?.test_omit_refresh && ctx.body?.refresh_token) {
      const { refresh_token: _, ...rest } = ctx.body;
      ctx.body = rest;
    }
    log({ path: ctx.path, status: ctx.status, grant_type: grantType, client_id: client?.clientId, error: ctx.body?.error });
  }

  return { intercept, observe };
}
