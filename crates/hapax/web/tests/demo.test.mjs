/**
 * The storefront of `hapax demo` in a real browser: what shoppers do, on a network that loses answers.
 */

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { closeBrowser, eventually, openBrowser, openShop } from './demo.mjs';
import { smaller } from './picture.mjs';

before(openBrowser);
after(closeBrowser);

test('a double click whose answers are lost is one order with hapax', async (t) => {
  const shop = await openShop(t);
  await shop.weather({ loss: 100 });
  await shop.page.dblclick('#confirm');
  await shop.both('silent');
  await shop.weather({ loss: 0 });
  await shop.press();
  await shop.both('confirmed');
  assert.deepEqual(await shop.charges(), { bare: 3, hapax: 1 });
  assert.equal((await shop.keys()).length, 1);
});

test('the network of the seed is one order with hapax, whatever it does', async (t) => {
  const shop = await openShop(t);
  for (let press = 0; press < 12; press += 1) {
    if (await shop.page.locator('.till[data-mood="confirmed"]').count() === 2) break;
    await shop.press();
    await eventually('both tills have ended', async () => (await shop.page.locator('.till[data-mood="sending"]').count()) === 0);
  }
  await shop.both('confirmed');
  const { bare, hapax } = await shop.charges();
  assert.equal(hapax, 1);
  assert.ok(bare > 1, `${bare}`);
});

test('a purchase that meets a break in the connection ends by itself when it is back', async (t) => {
  const shop = await openShop(t);
  await shop.weather({ loss: 100 });
  await shop.press();
  await shop.both('silent');
  await shop.weather({ loss: 0 });
  await shop.tab.setOffline(true);
  await shop.press();
  await shop.both('silent');
  await shop.tab.setOffline(false);
  await shop.mood('hapax', 'confirmed');
  assert.equal(await shop.page.getAttribute('#till-bare', 'data-mood'), 'silent');
  await shop.press();
  await shop.mood('bare', 'confirmed');
  assert.deepEqual(await shop.charges(), { bare: 2, hapax: 1 });
});

test('the button that takes the page offline does the same', async (t) => {
  const shop = await openShop(t);
  await shop.weather({});
  await shop.page.click('#offline');
  await shop.press();
  await shop.both('silent');
  assert.deepEqual(await shop.charges(), { bare: 0, hapax: 0 });
  await shop.page.click('#offline');
  await shop.mood('hapax', 'confirmed');
  assert.deepEqual(await shop.charges(), { bare: 0, hapax: 1 });
});

test('a reload amid a purchase is one order with hapax', async (t) => {
  const shop = await openShop(t);
  await shop.weather({});
  const sent = ['bare', 'hapax'].map((till) => shop.page.waitForRequest(`**/${till}/create-order`));
  await shop.press();
  await Promise.all(sent);
  await shop.page.reload();
  await shop.mood('hapax', 'confirmed');
  await shop.mood('bare', 'idle');
  await eventually('the first order', async () => (await shop.charges()).bare === 1);
  await shop.press();
  await shop.mood('bare', 'confirmed');
  assert.deepEqual(await shop.charges(), { bare: 2, hapax: 1 });
  assert.equal((await shop.keys()).length, 1);
});

test('a hapax that is killed with its answer on the wire still knows the order', async (t) => {
  const shop = await openShop(t);
  await shop.weather({ loss: 100 });
  await shop.press();
  await shop.both('silent');
  await shop.page.click('#kill-hapax');
  await shop.isAway('hapax', true);
  await shop.press();
  await shop.both('silent');
  await shop.isAway('hapax', false);
  await shop.weather({ loss: 0 });
  await shop.press();
  await shop.both('confirmed');
  assert.deepEqual(await shop.charges(), { bare: 3, hapax: 1 });
  assert.equal((await shop.state()).processes.hapax.starts, 2);
});

test('a shop that dies amid an order leaves an outcome that nobody knows and hapax does not run again', async (t) => {
  const shop = await openShop(t);
  await shop.weather({});
  await shop.page.click('#kill-shops');
  await shop.mood('hapax', 'unknown');
  await shop.mood('bare', 'silent');
  await shop.page.waitForSelector('#till-hapax >> text=504 from hapax: it arrived');
  await shop.page.waitForSelector('#till-bare >> text=The connection broke: the shop died before it answered');
  for (const role of ['shop', 'bare-shop']) await shop.isAway(role, false);
  await shop.press();
  await shop.mood('bare', 'confirmed');
  await shop.mood('hapax', 'unknown');
  assert.deepEqual(await shop.charges(), { bare: 2, hapax: 1 });
  await shop.page.click('#till-hapax >> text=Ask the shop');
  await shop.mood('hapax', 'found');
  assert.deepEqual(await shop.charges(), { bare: 2, hapax: 1 });
});

test('buying another is a new key and a second order', async (t) => {
  const shop = await openShop(t);
  await shop.weather({});
  await shop.press();
  await shop.both('confirmed');
  await shop.press();
  assert.deepEqual(await shop.charges(), { bare: 1, hapax: 1 });
  await shop.page.click('#another');
  await shop.press();
  await shop.both('confirmed');
  assert.deepEqual(await shop.charges(), { bare: 2, hapax: 2 });
  assert.equal((await shop.keys()).length, 2);
});

test('the story tells itself and ends as it says', async (t) => {
  const shop = await openShop(t, { autoplay: true, reducedMotion: 'no-preference' });
  await shop.page.waitForFunction(() => document.querySelector('#play').textContent === 'Play again', null, { timeout: 90_000 });
  await shop.both('confirmed');
  assert.deepEqual(await shop.charges(), { bare: 4, hapax: 1 });
  const verdict = shop.page.locator('#verdict');
  await eventually('the verdict', async () => /4 orders, 196 €[\s\S]*1 order, 49 €/.test(await verdict.innerText()));
  assert.match(await verdict.innerText(), /wanted 1 lamp and pressed 4 times/);
});

test('the story can be paused, and waits for a reader who does something', async (t) => {
  const shop = await openShop(t, { autoplay: true, reducedMotion: 'no-preference' });
  await shop.page.waitForSelector('#steps li:nth-child(2)[aria-current]');
  await shop.page.click('#play');
  assert.equal(await shop.page.innerText('#play'), 'Go on');
  await shop.page.click('#play');
  assert.equal(await shop.page.innerText('#play'), 'Pause');
  await shop.page.click('#offline');
  assert.equal(await shop.page.innerText('#play'), 'Go on');
});

test('with reduced motion nothing moves unasked, and the story is told step by step', async (t) => {
  const shop = await openShop(t, { autoplay: true });
  assert.equal(await shop.page.innerText('#play'), 'Play');
  for (let step = 1; step <= 6; step += 1) {
    await shop.step(step);
    if (step === 3) await shop.isAway('hapax', true);
    if (step === 4) await shop.isAway('hapax', false);
  }
  await shop.both('confirmed');
  assert.deepEqual(await shop.charges(), { bare: 4, hapax: 1 });
  assert.equal(await shop.page.locator('.packet').count(), 0);
});

test('every request is in the drawer, with its answer, and its curl gets the same answer from hapax', async (t) => {
  const shop = await openShop(t);
  await shop.tab.grantPermissions(['clipboard-read', 'clipboard-write']);
  await shop.weather({ loss: 100 });
  await shop.press();
  await shop.both('silent');
  await shop.page.click('#drawer > summary');
  await eventually('four requests', async () => (await shop.page.locator('#requests > li').count()) === 4);
  const request = shop.page.locator('#requests > li', { hasText: 'replayed' }).first();
  await request.locator('summary').click();
  assert.match(await request.innerText(), /HTTP\/1\.1 201[\s\S]*idempotent-replayed: true/);
  await request.getByText('Copy as curl').click();
  const curl = await shop.page.evaluate(() => navigator.clipboard.readText());
  const [, url] = /'(http[^']+)'/.exec(curl);
  const [, key] = /Idempotency-Key: ([^']+)'/.exec(curl);
  const [, body] = /-d '([^']+)'/.exec(curl);
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key },
    body,
  });
  assert.equal(answer.headers.get('idempotent-replayed'), 'true');
  assert.deepEqual(await shop.charges(), { bare: 1, hapax: 1 });
});

test('all of it is done with the keyboard, and the focus is seen', async (t) => {
  const shop = await openShop(t);
  const reached = [];
  for (let tab = 0; tab < 40; tab += 1) {
    await shop.page.keyboard.press('Tab');
    const focus = await shop.page.evaluate(() => {
      const element = document.activeElement;
      if (!element || element === document.body) return null;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      return { id: element.id || element.className || element.tagName, isSeen: outlineStyle !== 'none' && outlineWidth !== '0px' };
    });
    if (focus === null) break;
    assert.ok(focus.isSeen, `${focus.id} has no visible focus`);
    reached.push(focus.id);
  }
  for (const id of ['skip', 'confirm', 'another', 'reload', 'offline', 'play', 'next', 'loss', 'delay', 'duplicates', 'kill-hapax', 'kill-shops', 'over']) {
    assert.ok(reached.includes(id), `${id} is not reached: ${reached}`);
  }
  await shop.weather({});
  await shop.page.locator('#confirm').focus();
  await shop.page.keyboard.press('Enter');
  await shop.both('confirmed');
});

for (const colorScheme of ['light', 'dark']) {
  test(`axe finds nothing wrong with the page in ${colorScheme} colours`, async (t) => {
    const shop = await openShop(t, { colorScheme });
    assert.deepEqual(await shop.axe(), [], 'at the beginning');
    await shop.weather({ loss: 100 });
    await shop.press();
    await shop.both('silent');
    await shop.page.click('#drawer > summary');
    await shop.page.locator('#requests > li summary').first().click();
    assert.deepEqual(await shop.axe(), [], 'without an answer');
    await shop.weather({ loss: 0 });
    await shop.page.click('#kill-shops');
    await shop.mood('hapax', 'unknown');
    assert.deepEqual(await shop.axe(), [], 'in the unknown');
    await shop.isAway('bare-shop', false);
    await shop.press();
    await shop.mood('bare', 'confirmed');
    assert.deepEqual(await shop.axe(), [], 'at the end');
  });
}

test('axe does find something when there is something', async (t) => {
  const shop = await openShop(t);
  await shop.page.evaluate(() => document.querySelector('#confirm').replaceChildren());
  assert.match((await shop.axe()).join('\n'), /button-name/);
});

/** The page after the story, told by its own steps. */
async function afterTheStory(t, context) {
  const shop = await openShop(t, context);
  for (let step = 1; step <= 6; step += 1) await shop.step(step);
  await shop.both('confirmed');
  await eventually('the verdict', async () => /4 orders[\s\S]*1 order,/.test(await shop.page.innerText('#verdict')));
  await shop.page.mouse.move(0, 0);
  await shop.page.evaluate(() => document.activeElement?.blur());
  return shop;
}

const PICTURES = [
  { name: 'light', context: { viewport: { width: 1100, height: 900 } }, width: 1100 },
  { name: 'dark', context: { colorScheme: 'dark' }, width: 1280 },
  { name: 'narrow', context: { viewport: { width: 320, height: 640 } }, width: 320 },
];

for (const { name, context, width } of PICTURES) {
  test(`the page fits its window: ${name}`, async (t) => {
    const shop = await afterTheStory(t, context);
    const isWide = () => shop.page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    assert.equal(await isWide(), false, 'it scrolls sideways');
    const end = await shop.page.evaluate(() => document.querySelector('.verdict').getBoundingClientRect().bottom + window.scrollY);
    const picture = smaller(await shop.page.screenshot({ fullPage: true, clip: { x: 0, y: 0, width, height: Math.ceil(end) + 24 } }));
    assert.equal(picture.readUInt32BE(16), width, 'the width in the head of the PNG');
    await shop.page.click('#drawer > summary');
    await shop.page.locator('#requests > li summary').first().click();
    assert.equal(await isWide(), false, 'it scrolls sideways with the drawer open');
    assert.ok(name !== 'light' || picture.length < 200_000, `${picture.length} bytes are much for a document`);
    // HAPAX_SCREENSHOTS=folder keeps them; HAPAX_BLESS=1 renews the one in the documents.
    if (process.env.HAPAX_SCREENSHOTS) await writeFile(`${process.env.HAPAX_SCREENSHOTS}/demo-${name}.png`, picture);
    if (process.env.HAPAX_BLESS === '1' && name === 'light') {
      await writeFile(new URL('../../../../docs/images/demo.png', import.meta.url), picture);
    }
  });
}
