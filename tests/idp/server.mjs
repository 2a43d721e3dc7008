// The authorization server of the tests: npm oidc-provider, configured, nothing of it replaced.
//
//   node server.mjs CONFIG.json      see `Config` in tests/src/idp.rs; port 0 lets the system choose
//
// Prints one JSON line {"port","issuer"} when it is ready, appends one line per request to config.request_log, and ends
// with SIGTERM. What a test may do to it behind the provider's back is under /test/ (faults.mjs).
import { readFileSync } from 'node:fs';
import * as crypto from 'node:crypto';
import * as https from 'node:https';
import Provider from 'oidc-provider';

import { grantJwtBearer, nameTheIssuer } from './applications.mjs';
import { makeAdapter, makeFaults } from './faults.mjs';
import { makePages } from './pages.mjs';

const config = JSON.parse(readFileSync(process.argv[2], 'utf8'));
// A subject says nothing about the address, as at real providers.
const subject = (address) => crypto.createHash('sha256').update(address).digest('hex').slice(0, 20);
const users = config.users.map((user) => ({ ...user, sub: subject(user.address) }));
const accounts = new Map(users.map((user) => [user.sub, user]));
const { Adapter, storage } = makeAdapter();
const faults = makeFaults({ storage, users, requestLog: config.request_log });

let handle = (req, res) => res.writeHead(503).end();
const server = https.createServer(
  { key: readFileSync(config.tls_key), cert: readFileSync(config.tls_certificate) },
  (req, res) => handle(req, res),
);
// The issuer contains the port: the provider can only be made once the system has chosen it.
server.listen(config.port, '127.0.0.1', () => {
  const { port } = server.address();
  const issuer = `https://localhost:${port}`;
  const provider = new Provider(issuer, configuration());
  const pages = makePages(provider, users);
  grantJwtBearer(provider, users);
  provider.use(nameTheIssuer);
  provider.use(faults.observe);
  const callback = provider.callback();
  handle = (req, res) => faults.intercept(req, res, () => pages(req, res) || callback(req, res));
  console.log(JSON.stringify({ port, issuer }));
});
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => process.exit(0));
}

function configuration() {
  return {
    adapter: Adapter,
    clients: config.clients,
    // What a client of the tests may say about itself beyond the standard:
    // access token lifetime, refresh token lifetime, rotation, where its email claim appears, and whether an answer to
    // a refresh carries a refresh token at all (Google's and Microsoft's sometimes do not); for applications, the one
    // mailbox they may open, and the people a service account may speak for.
    extraClientMetadata: {
      properties: [
        'test_access_seconds',
        'test_refresh_seconds',
        'test_rotate',
        'test_email_in',
        'test_omit_refresh',
        'test_mailbox',
        'test_delegated',
      ],
    },
    // Default 15 s: tokens would live that much longer than they say.
    clockTolerance: 0,
    scopes: ['openid', 'offline_access', 'mail', 'email', 'profile'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'preferred_username'] },
    // Google and Microsoft put the address into the id_token; the strict default leaves it to userinfo.
    conformIdTokenClaims: false,
    cookies: { keys: [crypto.randomBytes(16).toString('hex')] },
    jwks: { keys: [signingKey()] },
    ttl: {
      AccessToken: (ctx, token, client) => client?.test_access_seconds ?? 3600,
      ClientCredentials: (ctx, token, client) => client?.test_access_seconds ?? 3600,
      RefreshToken: (ctx, token, client) => client?.test_refresh_seconds ?? 14 * 86400,
      AuthorizationCode: 60,
      DeviceCode: 600,
      IdToken: 3600,
      Grant: 14 * 86400,
      Interaction: 3600,
      Session: 14 * 86400,
    },
    rotateRefreshToken: (ctx) => ctx.oidc.client.test_rotate !== false,
    pkce: { required: () => true },
    findAccount: async (ctx, sub) => {
      const user = accounts.get(sub);
      return user && { accountId: sub, claims: async (use) => claims(user, use, ctx.oidc.client) };
    },
    // Dovecot reads `email` from the introspection answer, whatever the client itself may see.
    extraTokenClaims: async (ctx, token) => {
      const user = token.accountId && accounts.get(token.accountId);
      const email = user?.address ?? (token.kind === 'ClientCredentials' ? ctx.oidc.client?.test_mailbox : undefined);
      // A login must name an account that the token is good for; of a delegate it is the shared mailbox.
      return email ? { email, delegate_of: user?.delegate_of ?? email } : undefined;
    },
    features: {
      devInteractions: { enabled: false },
      deviceFlow: { enabled: true },
      clientCredentials: { enabled: true },
      introspection: {
        enabled: true,
        allowedPolicy: async (ctx, client, token) => client.clientId === 'dovecot' || client.clientId === token.clientId,
      },
      revocation: { enabled: true },
      rpInitiatedLogout: { enabled: false },
      resourceIndicators: { enabled: false },
    },
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  };
}

function claims(user, use, client) {
  const where = client?.test_email_in ?? 'both';
  const { sub, address } = user;
  if (where !== 'both' && where !== use) {
    return { sub };
  }
  return { sub, email: address, email_verified: true, name: address.split('@')[0], preferred_username: address };
}

function signingKey() {
  const { privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig', kid: crypto.randomBytes(4).toString('hex') };
}
