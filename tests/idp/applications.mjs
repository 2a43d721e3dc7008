// Clients that sign in as themselves: registered while the server runs, with a certificate or a service account's key,
// and the grant of RFC 7523 section 2.1 as Google offers it.
import * as crypto from 'node:crypto';
import * as jose from 'jose';
import { errors } from 'oidc-provider';

import { readForm } from './pages.mjs';

export const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

// Client metadata with two fields of our own: `certificate` or `public_key` (PEM), which becomes the client's jwks.
// Registering again replaces: that is how a key is rotated at the provider.
export function register(storage, { certificate, public_key: publicKey, ...metadata }) {
  const key = certificate ? new crypto.X509Certificate(certificate).publicKey : publicKey && crypto.createPublicKey(publicKey);
  const payload = { ...metadata, ...(key && { jwks: { keys: [key.export({ format: 'jwk' })] } }) };
  storage.set(`Client:${metadata.client_id}`, { model: 'Client', payload });
}

// Google's assertion names nobody but its issuer; oidc-provider wants a client_id. Runs before the provider.
export async function nameTheIssuer(ctx, next) {
  if (ctx.method === 'POST' && ctx.path === '/token') {
    const form = await readForm(ctx.req);
    if (form.get('grant_type') === JWT_BEARER && !form.has('client_id')) {
      try {
        form.set('client_id', jose.decodeJwt(form.get('assertion')).iss);
      } catch {
        // Not a JWT: refused below.
      }
    }
    ctx.req.body = form.toString();
  }
  await next();
}

// `test_delegated`: addresses for which the service account may speak. Words of the refusals are Google's.
export function grantJwtBearer(provider, users) {
  async function handler(ctx) {
    const { client, params } = ctx.oidc;
    let claims;
    try {
      const key = await jose.importJWK(client.jwks.keys[0], 'RS256');
      const expected = { audience: ctx.oidc.urlFor('token'), issuer: client.clientId, algorithms: ['RS256'], maxTokenAge: '1h' };
      ({ payload: claims } = await jose.jwtVerify(params.assertion, key, expected));
    } catch {
      throw new errors.InvalidGrant('Invalid JWT Signature.');
    }
    const user = users.find(({ address }) => address === claims.sub);
    if (!user) {
      throw new errors.InvalidGrant('Invalid email or User ID');
    }
    if (!client.test_delegated?.includes(claims.sub)) {
      throw new errors.UnauthorizedClient('Client is unauthorized to retrieve access tokens using this method.');
    }
    const grant = new provider.Grant({ accountId: user.sub, clientId: client.clientId });
    grant.addOIDCScope(claims.scope);
    const token = new provider.AccessToken({
      accountId: user.sub, client, grantId: await grant.save(), gty: 'jwt-bearer', scope: claims.scope,
    });
    ctx.oidc.entity('AccessToken', token);
    const access_token = await token.save();
    ctx.body = { access_token, expires_in: token.expiration, token_type: 'Bearer' };
  }
  provider.registerGrantType(JWT_BEARER, handler, ['assertion', 'scope']);
}
