// The helpdesk's page in Debian's Chromium, as a person uses it: node walk.mjs ORDER.json
//
// The order says where the page and the provider are, what is typed, and where the screenshots go. Ends with 1 and a
// sentence at the first thing that is not as it should be.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const PATIENCE = 30_000;
const order = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
mkdirSync(order.screenshots, { recursive: true });

const offences = [];
const browser = await chromium.launch({
  executablePath: order.chromium,
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
  if (order.look) {
    await lookAtAll(context);
  }
  assert.deepEqual(offences, []);
  await browser.close();
} catch (error) {
  const pages = browser.contexts().flatMap((context) => context.pages());
  for (const [number, page] of pages.entries()) {
    await page.screenshot({ path: `${order.screenshots}/failed-${number}.png`, fullPage: true }).catch(() => {});
  }
  await browser.close();
  console.error(error.message);
  process.exit(1);
}

// Nothing is asked of anybody else, and no page breaks its own policy.
function watch(context) {
  context.on('request', (request) => {
    const asked = new URL(request.url());
    const page = request.isNavigationRequest() ? '' : request.frame().url();
    const other = page.startsWith(order.url) && asked.origin !== order.url;
    wrong(!other || !asked.protocol.startsWith('http'), `${page} asked ${asked.origin}`);
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

function by(page, id) {
  return page.getByTestId(id);
}

function shot(page, name) {
  return page.screenshot({ path: `${order.screenshots}/${name}.png`, fullPage: true });
}

// By keyboard alone.
async function logIn(page) {
  await page.goto(`${order.url}/login`);
  await shot(page, 'login');
  await type(page, 'login-name', 'admin');
  await type(page, 'login-password', order.password);
  await page.keyboard.press('Enter');
  await page.getByRole('link', { name: /new mailbox|add/i }).first().waitFor();
}

// Tab until the field has the focus, then type over what is there. Folded parts are opened on the way.
async function type(page, id, text) {
  await tabTo(page, id);
  const tag = await page.evaluate(() => document.activeElement.tagName);
  if (tag === 'SELECT') {
    await by(page, id).selectOption(text);
    return;
  }
  await page.keyboard.press('Control+A');
  await (text === '' ? page.keyboard.press('Delete') : page.keyboard.insertText(text));
}

async function tabTo(page, id) {
  for (let presses = 0; presses < 300; presses += 1) {
    const at = await page.evaluate((wanted) => {
      const { activeElement: element } = document;
      if (element.dataset.testid === wanted) {
        return 'there';
      }
      return element.tagName === 'SUMMARY' && !element.parentElement.open ? 'folded' : 'elsewhere';
    }, id);
    if (at === 'there') {
      return;
    }
    await page.keyboard.press(at === 'folded' ? 'Enter' : 'Tab');
  }
  assert.fail(`${id} cannot be reached by the keyboard`);
}

async function mailbox(page, walk) {
  await page.goto(`${order.url}/mailboxes/new`);
  await by(page, 'field-connection_protocol').selectOption(walk.fields.connection_protocol);
  for (const name of Object.keys(walk.wrong)) {
    await by(page, `field-${name}`).waitFor();
  }
  await fill(page, { ...walk.fields, ...walk.wrong }, walk.keyboard);
  await press(page, 'save-button', walk.keyboard);
  await by(page, 'error-summary').waitFor();
  for (const name of Object.keys(walk.wrong)) {
    const error = by(page, `field-${name}-error`);
    assert((await error.textContent()).trim().length > 10, `${walk.name}: no sentence at ${name}`);
    const described = await by(page, `field-${name}`).getAttribute('aria-describedby');
    assert(described?.includes(await error.getAttribute('id')), `${walk.name}: ${name} is not bound to its error`);
  }
  await shot(page, `${walk.name}-mistakes`);

  await fill(page, Object.fromEntries(Object.keys(walk.wrong).map((name) => [name, walk.fields[name] ?? ''])), false);
  if (walk.failures) {
    await failures(page, walk);
  } else {
    const popup = await opened(page, () => press(page, 'save-button', walk.keyboard));
    await consent(popup, walk, 'yes');
    await popup.getByTestId('window-success').waitFor();
    await shot(popup, `${walk.name}-window`);
    // The next consent would take the same window.
    await popup.close();
  }
  const success = by(page, 'consent-success');
  await success.waitFor();
  const told = await by(page, 'consent-identity').textContent();
  assert(told.includes(walk.identity ?? walk.login), `${walk.name}: the success does not say who consented: ${told}`);
  await shot(page, `${walk.name}-success`);

  await by(page, 'set-up-other').click();
  await by(page, 'field-connection_protocol').selectOption(walk.outgoing.connection_protocol);
  await fill(page, walk.outgoing, false);
  await by(page, 'save-button').click();
  await by(page, 'done').waitFor();
  const address = new URL(page.url()).pathname;

  await until(`${walk.name}: the sample mail`, async () => {
    await by(page, 'action-fetch').click();
    const done = await by(page, 'done').or(page.getByRole('alert')).first().textContent();
    return /Fetched/.test(done);
  });
  await shot(page, `${walk.name}-mailbox`);
  await page.goto(`${order.url}/requests`);
  await page.getByRole('link', { name: walk.subject }).first().click();
  await shot(page, `${walk.name}-request`);
  await by(page, 'reply-text').fill(walk.reply);
  await by(page, 'reply-button').click();
  await by(page, 'done').waitFor();

  await page.goto(order.url + address);
  await by(page, 'action-diagnose').click();
  await by(page, 'diagnosis-incoming').waitFor({ timeout: 60_000 });
  await shot(page, `${walk.name}-diagnosis`);
  await page.goto(`${order.url}${address}/transcript`);
  await until(`${walk.name}: the transcript`, async () => /C: |S: /.test(await page.locator('main').textContent())
    || (await page.reload(), false));
  if (walk.revoke) {
    await page.goto(order.url + address);
    await by(page, 'action-revoke-incoming').click();
    await by(page, 'done').waitFor();
    await shot(page, `${walk.name}-revoked`);
  }
}

async function fill(page, fields, keyboard) {
  for (const [name, value] of Object.entries(fields)) {
    if (name === 'connection_protocol') {
      continue;
    }
    const id = `field-${name}`;
    if (keyboard && typeof value === 'string') {
      await type(page, id, value);
      continue;
    }
    await by(page, id).evaluate((element) => element.closest('details')?.setAttribute('open', ''));
    if (typeof value === 'boolean') {
      await by(page, id).setChecked(value);
    } else if (await by(page, id).evaluate((element) => element.tagName === 'SELECT')) {
      await by(page, id).selectOption(value);
    } else {
      await by(page, id).fill(value);
    }
  }
}

async function press(page, id, keyboard) {
  if (keyboard) {
    await tabTo(page, id);
    await page.keyboard.press('Enter');
  } else {
    await by(page, id).click();
  }
}

async function opened(page, act) {
  const [popup] = await Promise.all([page.waitForEvent('popup'), act()]);
  return popup;
}

// The provider's own pages: signing in, and what the person answers.
async function consent(popup, walk, answer, login = walk.login) {
  await popup.locator('[name=login]').fill(login);
  await popup.locator('[name=password]').fill(order.people[login]);
  await popup.keyboard.press('Enter');
  await popup.locator(`[name=consent][value=${answer}]`).click();
}

// Blocked, closed, refused, the wrong account: each has its sentence and a way on.
async function failures(page, walk) {
  await page.evaluate(() => {
    window.kept = window.open;
    window.open = () => null;
  });
  await by(page, 'save-button').click();
  // The next page opens the window itself where the click could not.
  const early = await page.waitForEvent('popup', { timeout: 3_000 }).catch(() => null);
  await early?.close();
  await page.addInitScript(() => sessionStorage.getItem('blocked') && (window.open = () => null));
  await page.evaluate(() => sessionStorage.setItem('blocked', 'yes'));
  await page.reload();
  if (await by(page, 'consent-link').count()) {
    await by(page, 'consent-link').first().click({ noWaitAfter: true }).catch(() => {});
  }
  await by(page, 'consent-blocked').waitFor();
  assert((await by(page, 'consent-blocked').textContent()).trim().length > 20);
  await shot(page, 'blocked');
  await page.evaluate(() => sessionStorage.removeItem('blocked'));
  await page.reload();

  let popup = await opened(page, () => by(page, 'consent-link').first().click());
  await popup.locator('[name=login]').waitFor();
  await popup.close();
  await by(page, 'consent-closed').waitFor();
  await shot(page, 'closed');

  const again = () => by(page, 'try-again').or(by(page, 'consent-link')).first().click();
  for (const [name, answer, login] of [['refused', 'no', walk.login], ['wrong-account', 'yes', walk.other]]) {
    popup = await opened(page, again);
    await consent(popup, walk, answer, login);
    await popup.getByTestId('window-failure').waitFor();
    await shot(popup, name);
    await popup.close();
    await by(page, 'consent-failure').waitFor();
    // Else the provider remembers who signed in.
    await page.context().clearCookies({ domain: new URL(walk.provider).hostname });
  }
  popup = await opened(page, again);
  await consent(popup, walk, 'yes');
  await popup.getByTestId('window-success').waitFor();
  await popup.close();
}

// Every page: no violation of axe's rules in light and dark, nothing to scroll sideways at 320 px.
async function lookAtAll(context) {
  const state = await context.storageState();
  const pages = ['/', '/login', '/account', '/mailboxes/new', '/mailboxes/1', '/mailboxes/1/incoming', '/mailboxes/1/outgoing',
    '/mailboxes/1/connect/incoming', '/mailboxes/1/quarantine', '/mailboxes/1/transcript', '/requests', '/requests/1', '/audit'];
  for (const colorScheme of ['light', 'dark']) {
    // axe is not in the pages' policy.
    const looking = await browser.newContext({ bypassCSP: true, colorScheme, storageState: state });
    const page = await looking.newPage();
    for (const path of pages) {
      await page.setViewportSize({ width: 1000, height: 1400 });
      await page.goto(order.url + path);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run());
      const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 100)).slice(0, 3).join(' | ')}`);
      assert.deepEqual(told, [], `${path}, ${colorScheme}`);
      await page.setViewportSize({ width: 320, height: 800 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert(wide <= 320, `${path} is ${wide} px wide on a screen of 320`);
      await shot(page, `narrow-${colorScheme}${path.replaceAll('/', '-')}`);
    }
    await looking.close();
  }
}

async function until(what, holds) {
  const end = Date.now() + PATIENCE;
  while (!(await holds())) {
    assert(Date.now() < end, what);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}
