// The helpdesk's page in Debian's Chromium, as a person uses it: node walk.mjs ORDER.json
//
// The order says where the page and the provider are, what is typed, and where the screenshots go. Ends with 1 and a
// sentence at the first thing that is not as it should be.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

import { PATIENCE, by, choose, consent, fill, look, opened, pause, press, tabTo, type, until } from './hands.mjs';

// Chromium lets a page open a window for five seconds after a click.
const TOO_LATE_MS = 6_000;
const order = JSON.parse(readFileSync(process.argv[2], 'utf8'));
mkdirSync(order.screenshots, { recursive: true });

const offences = [];
const browser = await chromium.launch({
  executablePath: order.chromium,
  ignoreDefaultArgs: ['--disable-popup-blocking'],
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1000, height: 1400 } });
  context.setDefaultTimeout(PATIENCE);
  watch(context);
  const page = await context.newPage();
  await logIn(page);
  for (const walk of order.walks) {
    await mailbox(page, walk);
  }
  await theRest(page);
  assert.deepEqual(offences, []);
  await browser.close();
} catch (error) {
  const pages = browser.contexts().flatMap((context) => context.pages());
  for (const [number, page] of pages.entries()) {
    await page.screenshot({ path: `${order.screenshots}/failed-${number}.png`, fullPage: true }).catch(() => {});
  }
  await browser.close();
  console.error(error.stack, pages.map((page) => page.url()), offences);
  process.exit(1);
}

// Nothing is asked of anybody else, nothing that a page needs is kept from it, and no page breaks its own policy.
function watch(context) {
  const isOurs = (request) => !request.isNavigationRequest() && request.frame().url().startsWith(order.url);
  context.on('request', (request) => {
    const asked = new URL(request.url());
    wrong(!isOurs(request) || asked.origin === order.url || !asked.protocol.startsWith('http'), `asked ${asked.origin}`);
  });
  context.on('requestfailed', (request) => {
    const why = request.failure()?.errorText ?? '';
    wrong(why === 'net::ERR_ABORTED' || !request.url().startsWith(`${order.url}/static/`), `${request.url()}: ${why}`);
  });
  context.on('console', (message) => {
    wrong(!/Content Security Policy/.test(message.text()), message.text());
  });
  context.on('weberror', (error) => wrong(false, `a script failed: ${error.error()}`));
}

// In an event nobody would hear an exception: told at the end.
function wrong(right, sentence) {
  if (!right) {
    offences.push(sentence);
  }
}

function seen(page, name) {
  return look(page, order.screenshots, name);
}

// By the keyboard alone.
async function logIn(page) {
  await page.goto(order.url);
  await seen(page, 'login');
  for (const password of ['not the password', order.password]) {
    await type(page, '[data-testid="login-name"]', 'admin');
    await type(page, '[data-testid="login-password"]', password);
    await page.keyboard.press('Enter');
    await by(page, password === order.password ? 'new-mailbox' : 'login-error').waitFor();
    await seen(page, password === order.password ? 'no-mailboxes' : 'login-refused');
  }
}

async function mailbox(page, walk) {
  const { keyboard } = walk;
  const name = (what) => `${walk.name}-${what}`;
  if (keyboard) {
    await press(page, 'new-mailbox', keyboard);
  } else {
    await page.goto(`${order.url}/mailboxes/new`);
  }
  await (walk.hasty ? hasty : protocol)(page, walk.fields.connection_protocol, Object.keys(walk.wrong), keyboard);
  await seen(page, name('new'));
  await fill(page, { ...walk.fields, ...walk.wrong }, keyboard);
  await mistakes(page, walk, name);
  const corrected = Object.keys(walk.wrong).map((field) => [field, walk.fields[field] ?? '']);
  await fill(page, Object.fromEntries(corrected), keyboard);
  await { code, device, application, failures }[walk.connect](page, walk, name);
  const told = await by(page, 'consent-identity').textContent();
  assert(told.includes(walk.identity), `${walk.name}: the success does not say who consented: ${told}`);
  await seen(page, name('connected'));
  if (!walk.outgoing) {
    return;
  }

  await press(page, 'set-up-other', keyboard);
  await by(page, 'save-button').waitFor();
  await protocol(page, walk.outgoing.connection_protocol, Object.keys(walk.outgoing), keyboard);
  await fill(page, walk.outgoing, keyboard);
  await seen(page, name('outgoing'));
  await press(page, 'save-button', keyboard);
  await by(page, 'done').waitFor();
  const address = page.url().split('?')[0];

  await fetched(page, walk, name);
  await request(page, walk, name);
  await page.goto(address);
  await press(page, 'action-diagnose', keyboard);
  await by(page, 'diagnosis-incoming').waitFor({ timeout: 2 * PATIENCE });
  await seen(page, name('diagnosis'));
  await page.goto(`${address}/transcript`);
  await until(`${walk.name}: the transcript`, async () => /C: |S: /.test(await page.locator('main').textContent())
    || (await page.reload(), false));
  await seen(page, name('transcript'));
  if (walk.quarantine) {
    await quarantine(page, walk, address, name);
  }
  await page.goto(address);
  await press(page, 'action-revoke-incoming', keyboard);
  await by(page, 'done').waitFor();
  await seen(page, name('revoked'));
}

// Fields follow it.
async function protocol(page, chosen, fields, keyboard) {
  await choose(page, 'field-connection_protocol', chosen, keyboard);
  for (const field of fields) {
    await by(page, `field-${field}`).waitFor({ state: 'attached' });
  }
}

// The same by somebody who is faster than the page's script and its answers: nothing typed is lost or comes elsewhere.
async function hasty(page, chosen, fields) {
  const held = () => {
    let release;
    const until = new Promise((resolve) => { release = resolve; });
    return { until, release };
  };
  const [script, answer] = [held(), held()];
  const typed = by(page, 'field-username');
  await page.route('**/static/app.js', async (route) => { await script.until; await route.continue(); }, { times: 1 });
  await page.reload({ waitUntil: 'commit' });
  await typed.fill('somebody');
  await by(page, 'field-connection_protocol').selectOption(chosen);
  await page.route('**/mailboxes/new', async (route) => { await answer.until; await route.continue(); }, { times: 1 });
  const [asked] = await Promise.all([page.waitForRequest(/\/mailboxes\/new/), script.release()]);
  assert.match(asked.postData(), /_refresh=1/);
  await typed.selectText();
  answer.release();
  for (const field of fields) {
    await by(page, `field-${field}`).waitFor({ state: 'attached' });
  }
  await page.keyboard.insertText('alice');
  assert.equal(await typed.inputValue(), 'alice', 'typed while the fields changed');
}

// All at once, each at its field, and what was typed stays.
async function mistakes(page, walk, name) {
  await press(page, 'save-button', walk.keyboard);
  const summary = by(page, 'error-summary');
  await summary.waitFor();
  const fields = Object.keys(walk.wrong);
  assert.match(await summary.textContent(), new RegExp(`${fields.length} settings need attention`));
  for (const field of fields) {
    const error = by(page, `field-${field}-error`);
    assert((await error.textContent()).trim().length > 10, `${walk.name}: no sentence at ${field}`);
    const described = await by(page, `field-${field}`).getAttribute('aria-describedby');
    assert(described?.includes(await error.getAttribute('id')), `${walk.name}: ${field} is not bound to its error`);
    assert.equal(await by(page, `field-${field}`).inputValue(), walk.wrong[field], `${walk.name}: ${field} lost what was typed`);
  }
  await seen(page, name('mistakes'));
}

// Save, the window, and the success in both.
async function code(page, walk, name) {
  const popup = await opened(page, () => press(page, 'save-button', walk.keyboard));
  await by(page, 'consent-waiting').waitFor();
  await seen(page, name('waiting'));
  await consented(page, popup, walk, name);
}

async function consented(page, popup, walk, name) {
  await consent(popup, walk.login, order.people[walk.login], 'yes');
  await by(popup, 'window-success').waitFor();
  await seen(popup, name('window'));
  // The redirect a second time: known no more.
  await popup.reload();
  assert.match(await by(popup, 'problem').textContent(), /opened too long ago, or it was completed already/);
  await seen(popup, name('expired'));
  // The next consent would take the same window.
  await popup.close();
  await by(page, 'consent-success').waitFor();
}

// Blocked, closed, refused, the wrong account: each has its sentence and a way on.
async function failures(page, walk, name) {
  // By the browser itself: the helpdesk answers so late that the click no longer counts.
  await page.route('**/mailboxes/new', async (route) => {
    await pause(TOO_LATE_MS);
    await route.continue();
  });
  const answered = page.waitForResponse(/\/connect\/incoming$/);
  await press(page, 'save-button', walk.keyboard);
  // Whatever is asked of a page from here counts as a click, too: so nothing is asked.
  await answered;
  await pause(TOO_LATE_MS);
  await by(page, 'consent-blocked').waitFor();
  assert.match(await by(page, 'consent-blocked').textContent(), /Allow pop-ups/);
  await page.unroute('**/mailboxes/new');
  await seen(page, name('blocked'));

  let popup = await opened(page, () => press(page, 'consent-link', walk.keyboard));
  await popup.locator('[name=login]').waitFor();
  await popup.close();
  await by(page, 'consent-closed').waitFor();
  await seen(page, name('closed'));

  popup = await opened(page, () => press(page, 'consent-link', walk.keyboard));
  await refused(page, popup, walk, walk.login, 'no', /declined/, name, 'refused');
  // On in the same window, and the page follows.
  await press(popup, 'try-again', walk.keyboard);
  await by(page, 'consent-waiting').waitFor();
  await refused(page, popup, walk, walk.other, 'yes', new RegExp(walk.wrongAccount), name, 'wrong-account');
  await popup.close();
  // However long the provider takes: the page does not take the end before for this one's.
  await page.context().route('**/consent/incoming', async (route) => {
    await pause(TOO_LATE_MS);
    await route.continue();
  }, { times: 1 });
  popup = await opened(page, () => press(page, 'consent-link', walk.keyboard));
  await popup.locator('[name=login]').waitFor();
  await by(page, 'consent-waiting').waitFor();
  // Also when it is loaded anew meanwhile.
  await page.reload();
  await by(page, 'consent-link').waitFor();
  await consented(page, popup, walk, name);
}

async function refused(page, popup, walk, login, answer, words, name, end) {
  await consent(popup, login, order.people[login], answer);
  await by(popup, 'window-failure').waitFor();
  await seen(popup, name(`window-${end}`));
  await page.locator('#consent-failure', { hasText: words }).waitFor();
  await seen(page, name(end));
  await otherPerson(page, walk);
}

// Else the provider remembers who signed in.
function otherPerson(page, walk) {
  return page.context().clearCookies({ domain: new URL(walk.provider).hostname });
}

// A code, entered on another device.
async function device(page, walk, name) {
  await otherPerson(page, walk);
  await press(page, 'save-button', walk.keyboard);
  const shown = await by(page, 'user-code').textContent();
  await seen(page, name('device'));
  const other = await page.context().newPage();
  await other.goto(await by(page, 'verification-uri').getAttribute('href'));
  const entry = other.locator('[name=user_code]:not([type=hidden])');
  await entry.fill(shown);
  await entry.press('Enter');
  await entry.waitFor({ state: 'detached' });
  if (await other.locator('[name=login]').count() === 0) {
    await other.getByRole('button', { name: /continue|yes|confirm/i }).first().click();
  }
  await consent(other, walk.login, order.people[walk.login], 'yes');
  await by(page, 'consent-success').waitFor();
  await other.close();
}

// Nobody is asked.
async function application(page, walk, name) {
  await press(page, 'save-button', walk.keyboard);
  await by(page, 'window-success').waitFor();
  await seen(page, name('application'));
  await press(page, 'back-to-mailbox', walk.keyboard);
  await by(page, 'consent-success').waitFor();
}

// The scheduler may have been first: then the page says so, or there is nothing left.
async function fetched(page, walk, name) {
  await until(`${walk.name}: the sample mail`, async () => {
    await press(page, 'action-fetch', walk.keyboard);
    const done = await by(page, 'done').or(page.getByRole('alert')).first().textContent();
    return /Fetched/.test(done);
  });
  await seen(page, name('fetched'));
}

async function request(page, walk, name) {
  const { keyboard } = walk;
  await press(page, 'nav-requests', keyboard);
  const link = page.getByRole('link', { name: walk.subject }).first();
  await link.waitFor();
  await seen(page, name('requests'));
  if (keyboard) {
    await tabTo(page, 'main a', walk.subject);
    await page.keyboard.press('Enter');
  } else {
    await link.click();
  }
  // It has no text but its HTML, which is there at once: with its style, without its script and its image.
  const frame = page.frameLocator('iframe.mail');
  await frame.locator('b').waitFor();
  assert.equal((await frame.locator('main').textContent()).trim(), 'It burns.');
  const { x } = await frame.locator('main').boundingBox();
  const { x: around } = await page.locator('iframe.mail').boundingBox();
  assert.equal(Math.round(x - around), 12, 'the margin that mail.css gives; without it there are 8 px');
  await seen(page, name('request'));
  if (keyboard) {
    await type(page, '[data-testid="reply-text"]', walk.reply);
  } else {
    await by(page, 'reply-text').fill(walk.reply);
  }
  await press(page, 'reply-button', keyboard);
  await by(page, 'done').waitFor();
  await seen(page, name('replied'));
}

// Two messages that the provider cannot hand out: put aside, downloaded and fetched again once it can, the other forgotten.
async function quarantine(page, walk, address, name) {
  const sandbox = (path) => `${walk.provider}/_sandbox/${path}`;
  await page.goto(`${address}/quarantine`);
  await by(page, 'quarantine-empty').waitFor();
  await seen(page, name('quarantine-empty'));
  await page.request.post(sandbox('faults'), { data: walk.quarantine.fault });
  for (const subject of walk.quarantine.subjects) {
    const raw = `From: Bob <bob@example.test>\r\nTo: ${walk.login}\r\nSubject: ${subject}\r\n\r\nIt came later.\r\n`;
    await page.request.post(sandbox('deliver'), { data: { from: 'bob@example.test', to: walk.login, raw } });
  }
  const aside = by(page, 'quarantined');
  await until(`${walk.name}: two messages put aside`, async () => {
    // A failure counts in a round in which another message can be read.
    const raw = `From: Bob <bob@example.test>\r\nTo: ${walk.login}\r\nSubject: A well one\r\n\r\nRead me.\r\n`;
    await page.request.post(sandbox('deliver'), { data: { from: 'bob@example.test', to: walk.login, raw } });
    await page.goto(address);
    await by(page, 'action-fetch').click();
    await by(page, 'done').or(page.getByRole('alert')).first().waitFor();
    await page.goto(`${address}/quarantine`);
    return await aside.count() === walk.quarantine.subjects.length;
  });
  assert.match(await by(page, 'quarantine-reason').first().textContent(), /\.$/);
  await seen(page, name('quarantine'));
  await page.request.delete(sandbox('faults'));

  const [download] = await Promise.all([page.waitForEvent('download'), by(page, 'quarantine-raw').first().click()]);
  const bytes = readFileSync(await download.path(), 'utf8');
  const again = walk.quarantine.subjects.find((subject) => bytes.includes(`Subject: ${subject}`));
  assert(again, bytes);
  await by(page, 'quarantine-replay').first().click();
  await by(page, 'done').waitFor();
  await seen(page, name('replay'));
  await by(page, 'quarantine-drop').last().click();
  await page.getByText('Forgotten here').waitFor();
  await page.goto(address);
  await fetched(page, { ...walk, keyboard: false }, name);
  await page.goto(`${order.url}/requests`);
  await page.getByRole('link', { name: again }).waitFor();
  for (const other of walk.quarantine.subjects.filter((subject) => subject !== again)) {
    assert.equal(await page.getByRole('link', { name: other }).count(), 0, 'the forgotten one stays away');
  }
  await page.goto(`${address}/quarantine`);
  await by(page, 'quarantine-empty').waitFor();
}

// What belongs to no single mailbox; the last mailbox goes.
async function theRest(page) {
  for (const path of ['/', '/audit', '/account', '/nowhere']) {
    await page.goto(order.url + path);
    await seen(page, path === '/' ? 'mailboxes' : path.slice(1));
  }
  await page.goto(`${order.url}/mailboxes/1`);
  await by(page, 'remove').locator('summary').click();
  await page.getByLabel(/^Yes, remove/).check();
  await seen(page, 'remove');
  await press(page, 'action-remove', false);
  await by(page, 'done').waitFor();
  await press(page, 'logout-button', false);
  await by(page, 'login-name').waitFor();
}
