// The two pages that a person sees: sign in, consent.

// Answers /interaction/… and says whether it did.
export function makePages(provider, users) {
  return (req, res) => {
    if (!req.url.startsWith('/interaction/')) {
      return false;
    }
    interaction(provider, users, req, res).catch((error) => {
      if (!res.headersSent) {
        res.writeHead(400, { 'content-type': 'text/plain; charset=utf-8' });
      }
      res.end(String(error.message));
    });
    return true;
  };
}

async function interaction(provider, users, req, res) {
  const details = await provider.interactionDetails(req, res);
  const action = `/interaction/${details.uid}`;
  if (req.method === 'GET') {
    send(res, 200, details.prompt.name === 'login' ? loginPage(action, details.params) : consentPage(action, details.params));
    return;
  }
  const form = await readForm(req);
  if (details.prompt.name === 'login') {
    const user = users.find(({ address }) => address === form.get('login'));
    if (!user || user.password !== form.get('password')) {
      send(res, 401, `<p>Wrong login or password.</p>${loginPage(action, details.params)}`);
      return;
    }
    await provider.interactionFinished(req, res, { login: { accountId: user.sub } }, { mergeWithLastSubmission: false });
  } else if (form.get('consent') === 'yes') {
    const result = { consent: { grantId: await extendGrant(provider, details) } };
    await provider.interactionFinished(req, res, result, { mergeWithLastSubmission: true });
  } else {
    const result = { error: 'access_denied', error_description: 'The person denied the request' };
    await provider.interactionFinished(req, res, result, { mergeWithLastSubmission: false });
  }
}

async function extendGrant(provider, { grantId, session, params, prompt }) {
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  const { missingOIDCScope, missingOIDCClaims } = prompt.details;
  if (missingOIDCScope) {
    grant.addOIDCScope(missingOIDCScope.join(' '));
  }
  if (missingOIDCClaims) {
    grant.addOIDCClaims(missingOIDCClaims);
  }
  return grant.save();
}

function loginPage(action, params) {
  return `<form method="post" action="${action}">
    <label>Address <input name="login" value="${escape(params.login_hint ?? '')}"></label>
    <label>Password <input name="password" type="password"></label>
    <button>Sign in</button></form>`;
}

function consentPage(action, params) {
  return `<p>${escape(params.client_id)} asks for: ${escape(params.scope)}</p><form method="post" action="${action}">
    <button name="consent" value="yes">Allow</button> <button name="consent" value="no">Deny</button></form>`;
}

function send(res, status, body) {
  res.writeHead(status, { 'content-type': 'text/html; charset=utf-8' });
  res.end(`<!doctype html><meta charset="utf-8"><title>Sandbox sign-in</title>${body}`);
}

function escape(text) {
  return String(text).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

export async function readForm(req) {
  const parts = [];
  for await (const part of req) {
    parts.push(part);
  }
  return new URLSearchParams(Buffer.concat(parts).toString());
}
