#!/bin/sh
# What: an authorization request with offline_access in its scope and without prompt=consent ends well, and gives neither
#       a refresh token nor an error: oidc-provider drops the scope (OpenID Connect Core section 11 asks for the prompt).
#       The mailbox works for an hour and then wants a person.
# With: oidc-provider 9.13.3 from npm, Node.js 20 or newer, its own development pages for login and consent.
# Seen: without the prompt: refresh token no, scope "openid"; with prompt=consent: refresh token yes.
# So:   send prompt=consent when offline_access is asked for; when no refresh token comes, say exactly that.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund oidc-provider@9.13.3
cat > probe.mjs <<'JS'
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';

console.log('oidc-provider', JSON.parse(readFileSync('node_modules/oidc-provider/package.json')).version);
console.warn = () => {}; console.info = () => {};
const { default: Provider } = await import('oidc-provider');
const server = createServer();
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const base = `http://127.0.0.1:${server.address().port}`;
const redirect = 'https://desk.example.org/cb';
const provider = new Provider(base, {
  clients: [{ client_id: 'desk', client_secret: 'secret', redirect_uris: [redirect],
    grant_types: ['authorization_code', 'refresh_token'] }],
  scopes: ['openid', 'offline_access'],
  cookies: { keys: ['probe'] },
});
server.on('request', provider.callback());

const encode = (fields) => new URLSearchParams(fields).toString();

async function consent(prompt) {
  const jar = new Map();
  const go = async (url, fields) => {
    const answer = await fetch(url, { redirect: 'manual', method: fields ? 'POST' : 'GET',
      headers: { cookie: [...jar].map((pair) => pair.join('=')).join('; '),
        ...(fields && { 'content-type': 'application/x-www-form-urlencoded' }) },
      body: fields && encode(fields) });
    for (const line of answer.headers.getSetCookie()) {
      const [name, value] = line.split(';')[0].split('=');
      jar.set(name, value);
    }
    return answer;
  };
  const verifier = randomBytes(32).toString('base64url');
  let url = `${base}/auth?` + encode({ client_id: 'desk', response_type: 'code', redirect_uri: redirect,
    scope: 'openid offline_access', ...(prompt && { prompt }), code_challenge_method: 'S256',
    code_challenge: createHash('sha256').update(verifier).digest('base64url') });
  for (let step = 0; step < 12 && !url.startsWith(redirect); step += 1) {
    let answer = await go(url);
    if (answer.status === 200) { // a page of the development interactions: login, then consent
      const page = await answer.text();
      const action = page.match(/action="([^"]+)"/)[1];
      const name = page.match(/name="prompt" value="([^"]+)"/)[1];
      answer = await go(new URL(action, base), name === 'login' ? { prompt: name, login: 'ann', password: 'x' } : { prompt: name });
    }
    url = new URL(answer.headers.get('location'), base).toString();
  }
  const token = await (await fetch(`${base}/token`, { method: 'POST',
    headers: { authorization: 'Basic ' + btoa('desk:secret'), 'content-type': 'application/x-www-form-urlencoded' },
    body: encode({ grant_type: 'authorization_code', code: new URL(url).searchParams.get('code'),
      redirect_uri: redirect, code_verifier: verifier }) })).json();
  return { refresh: 'refresh_token' in token, scope: token.scope };
}

const without = await consent();
const withPrompt = await consent('consent');
console.log('without prompt:     refresh token', without.refresh, 'scope', JSON.stringify(without.scope));
console.log('with prompt=consent: refresh token', withPrompt.refresh, 'scope', JSON.stringify(withPrompt.scope));
server.close(); server.closeAllConnections();
if (without.refresh || without.scope !== 'openid' || !withPrompt.refresh) {
  console.error('the behaviour has changed');
  process.exit(1);
}
JS
node probe.mjs
echo "as seen: offline_access is dropped without a word"
