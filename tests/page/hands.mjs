// What a person does in a browser, by the mouse or by the keyboard alone, and what is looked at on the way.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

export const PATIENCE = 60_000;
const TABS_MAX = 400;
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export function by(page, id) {
  return page.getByTestId(id);
}

// axe's rules and nothing to scroll sideways, wide in light colours and narrow in dark ones; the screenshots stay.
export async function look(page, folder, name) {
  for (const [width, colorScheme] of [[320, 'dark'], [1000, 'light']]) {
    await page.setViewportSize({ width, height: 1400 });
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    if (!(await page.evaluate(() => 'axe' in window))) {
      await page.evaluate(axe);
    }
    // The frame of a mail has no rights: axe could not get in.
    const violations = await page.evaluate(async () => {
      const { violations: found } = await window.axe.run(document, { iframes: false });
      return found.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html }) => html.slice(0, 100)).join(' | ')}`);
    });
    assert.deepEqual(violations, [], `${name}, ${width} px, ${colorScheme}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert(wide <= width, `${name} is ${wide} px wide on a screen of ${width}`);
    await page.screenshot({ path: `${folder}/${name}-${width}.png`, fullPage: true });
  }
}

// Tab until the element has the focus. Folded parts are opened on the way.
export async function tabTo(page, selector, text = '') {
  await page.locator(selector).first().waitFor({ state: 'attached' });
  for (let presses = 0; presses < TABS_MAX; presses += 1) {
    const at = await page.evaluate(([wanted, part]) => {
      const { activeElement: element } = document;
      if (element.matches(wanted) && element.textContent.includes(part)) {
        return 'there';
      }
      return element.tagName === 'SUMMARY' && !element.parentElement.open ? 'folded' : 'elsewhere';
    }, [selector, text]);
    if (at === 'there') {
      return;
    }
    await page.keyboard.press(at === 'folded' ? 'Enter' : 'Tab');
  }
  assert.fail(`${selector} ${text} cannot be reached by the keyboard`);
}

// Over what is there.
export async function type(page, selector, text) {
  await tabTo(page, selector);
  await page.keyboard.press('Control+A');
  await (text === '' ? page.keyboard.press('Delete') : page.keyboard.insertText(text));
}

// Buttons and links.
export async function press(page, id, keyboard) {
  if (!keyboard) {
    return by(page, id).click();
  }
  await by(page, id).waitFor();
  await tabTo(page, `[data-testid="${id}"]`);
  await page.keyboard.press('Enter');
}

export async function choose(page, id, text, keyboard) {
  if (!keyboard) {
    await by(page, id).selectOption(text);
    return;
  }
  await tabTo(page, `[data-testid="${id}"]`);
  await page.keyboard.type(text);
  assert.equal(await by(page, id).inputValue(), text, `${id} by the keyboard`);
}

export async function fill(page, fields, keyboard) {
  for (const [name, value] of Object.entries(fields)) {
    const id = `field-${name}`;
    const field = by(page, id);
    await field.waitFor({ state: 'attached' });
    if (!keyboard) {
      await field.evaluate((element) => element.closest('details')?.setAttribute('open', ''));
    }
    if (await field.evaluate((element) => element.tagName === 'SELECT')) {
      // Chosen already, it would be no change to anybody.
      if (await field.inputValue() !== value) {
        await choose(page, id, value, keyboard);
      }
    } else if (typeof value === 'boolean' && keyboard) {
      await tabTo(page, `[data-testid="${id}"]`);
      if (await field.isChecked() !== value) {
        await page.keyboard.press('Space');
      }
    } else if (typeof value === 'boolean') {
      await field.setChecked(value);
    } else if (keyboard) {
      await type(page, `[data-testid="${id}"]`, value);
    } else {
      await field.fill(value);
    }
  }
}

export async function opened(page, act) {
  const [popup] = await Promise.all([page.waitForEvent('popup'), act()]);
  return popup;
}

// The provider's own pages: signing in, and what the person answers.
export async function consent(page, login, password, answer) {
  await page.locator('[name=login]').waitFor();
  await type(page, '[name=login]', login);
  await type(page, '[name=password]', password);
  await page.keyboard.press('Enter');
  await page.locator(`[name=consent][value=${answer}]`).waitFor();
  await tabTo(page, `[name=consent][value=${answer}]`);
  await page.keyboard.press('Enter');
}

export async function until(what, holds) {
  const end = Date.now() + PATIENCE;
  while (!(await holds())) {
    assert(Date.now() < end, what);
    await pause(300);
  }
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
