/**
 * The storefront: one shopper, two tills, and everything that can be broken in between.
 * @module
 */

import * as demo from './demo.js';
import { byId, h, many, memory, money } from './demo.js';
import { Drawer } from './drawer.js';
import { Story } from './story.js';
import { Till } from './till.js';

/** How often the demo is asked how it is, in milliseconds, and how long a killed hapax stays away. */
const LOOK_EVERY_MS = 500;
const AWAY_MS = 3_000;
/** How long the verdict stands still before it is read out, in milliseconds. */
const SETTLE_MS = 900;

let isOffline = false;
let lastSerial = 0;
let hasLooked = false;
let looking = null;
let verdictTimer;
let counts;

const page = { offline: () => isOffline || !navigator.onLine, changed: () => void look() };
const bare = new Till('bare', page);
const withHapax = new Till('hapax', page);
const tills = { bare, hapax: withHapax };
const drawer = new Drawer();

const shop = {
  async press() {
    const pressed = Object.values(tills).filter((till) => !till.isDone);
    if (pressed.length === 0) {
      byId('pressed').textContent = 'Both tills have confirmed. “Buy another” is a new purchase, with a new key.';
      return;
    }
    const { click = 0, presses = 0 } = memory.read();
    memory.write({ click: click + 1, presses: presses + 1 });
    await Promise.all(pressed.map((till) => till.press()));
  },
  another() {
    const { intent = 1 } = memory.read();
    memory.write({ intent: intent + 1, click: 0 });
    for (const till of Object.values(tills)) till.renew();
    byId('pressed').textContent = 'A new purchase: the next press makes a new key, and a new order.';
  },
  reload: () => location.reload(),
  weather: async (weather) => {
    await demo.setWeather(weather);
    showWeather(weather);
  },
  async startOver() {
    await demo.startOver();
    const { story } = memory.read();
    memory.clear();
    if (story) memory.write({ story });
    counts = emptyCounts();
    drawer.clear();
    for (const till of Object.values(tills)) till.renew();
    await look();
  },
  trouble,
};
const story = new Story(shop);

function trouble(error) {
  byId('trouble').textContent = error ? `The demo does not answer: ${error.message}` : '';
}

function emptyCounts() {
  return { bare: { requests: 0, lost: 0, copies: 0 }, hapax: { requests: 0, lost: 0, copies: 0 } };
}

/** Asks how everything is; calls in between share one question. */
function look() {
  looking ??= lookNow()
    .catch((error) => {
      if (!page.offline()) trouble(error);
    })
    .finally(() => {
      looking = null;
    });
  return looking;
}

async function lookNow() {
  if (!navigator.onLine) return;
  const state = await demo.state(lastSerial);
  // What was on the wire before this page was there is counted, and not shown as if it happened now.
  const isFirst = !hasLooked;
  hasLooked = true;
  trouble(null);
  for (const entry of state.wire) {
    if (entry.serial <= lastSerial) continue;
    lastSerial = entry.serial;
    note(entry, isFirst);
  }
  for (const [name, till] of Object.entries(tills)) till.show(state.ledgers[name], state.processes);
  showMachines(state.processes);
  showVerdict(state.ledgers);
  return state;
}

function note(entry, isOld) {
  const count = counts[entry.till];
  if (entry.is_copy) count.copies += 1;
  else if (entry.place !== null) count.requests += 1;
  if (['lost', 'cut'].includes(entry.outcome)) count.lost += 1;
  if (!isOld && entry.place !== null) tills[entry.till].observe(entry);
  drawer.add(entry);
}

function showMachines(processes) {
  const names = { 'bare-shop': 'Shop without hapax', hapax: 'hapax', shop: 'Shop behind hapax' };
  const rows = Object.entries(names).map(([role, name]) => {
    const { pid, starts } = processes[role];
    const says = pid === null ? 'away' : `process ${pid}${starts > 1 ? `, start ${starts}` : ''}`;
    return h('li', { class: pid === null ? 'away' : '' }, h('span', {}, name), h('span', {}, says));
  });
  byId('machines').replaceChildren(...rows);
}

/** From the books of both shops; only presses, requests and losses are the page's own count. */
function showVerdict(ledgers) {
  const { presses = 0, intent = 1 } = memory.read();
  const line = (name, label) => {
    const { requests, lost, copies } = counts[name];
    const ledger = ledgers[name];
    const doubled = copies > 0 ? ` (${copies} doubled by the network)` : '';
    const found = ledger ? `${many(ledger.charges, 'order')}, ${money(ledger.total)}` : 'the shop is away';
    const judged = ledger === null ? 'open' : ledger.charges > intent ? 'wrong' : 'right';
    return h('p', { class: `${name} ${judged}` },
      h('span', { class: 'who' }, `${label} `),
      h('strong', {}, found),
      h('span', { class: 'how' }, ` ${many(requests, 'request')}${doubled}, ${many(lost, 'answer')} lost`));
  };
  const wanted = presses === 0
    ? 'Nothing has been bought yet.'
    : `The shopper wanted ${many(intent, 'lamp')} and pressed ${presses === 1 ? 'once' : `${presses} times`}.`;
  const verdict = [h('p', { class: 'wanted' }, wanted), line('bare', 'Without hapax'), line('hapax', 'With hapax')];
  const text = verdict.map((part) => part.textContent).join('\n');
  const place = byId('verdict');
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  // A live region is read out at every change: wait until a burst of requests is over.
  clearTimeout(verdictTimer);
  verdictTimer = setTimeout(() => place.replaceChildren(...verdict), place.childElementCount === 0 ? 0 : SETTLE_MS);
}

const SLIDERS = [
  ['loss', 'loss_percent', (value) => `${value} %`],
  ['delay', 'delay_ms', (value) => `${value} ms`],
  ['duplicates', 'duplicate_percent', (value) => `${value} %`],
];

function showWeather(weather) {
  for (const [id, member, text] of SLIDERS) {
    byId(id).value = weather[member];
    byId(`${id}-out`).textContent = text(weather[member]);
  }
}

function readWeather() {
  return Object.fromEntries(SLIDERS.map(([id, member]) => [member, Number(byId(id).value)]));
}

/** What a reader does by hand stops the story; what fails is said. */
function on(id, event, act) {
  byId(id).addEventListener(event, async () => {
    story.interrupt();
    try {
      await act();
    } catch (error) {
      trouble(error);
    }
    void look();
  });
}

function setOffline(is) {
  isOffline = is;
  byId('offline').setAttribute('aria-pressed', String(is));
  byId('offline').textContent = is ? 'Go online' : 'Go offline';
  document.body.classList.toggle('offline', is);
  if (!is) void withHapax.resume();
}

on('confirm', 'click', () => shop.press());
on('another', 'click', () => shop.another());
on('reload', 'click', () => shop.reload());
on('offline', 'click', () => setOffline(!isOffline));
on('over', 'click', async () => {
  memory.clear();
  await shop.startOver();
  showWeather((await demo.state(lastSerial)).weather);
});
on('kill-hapax', 'click', () => demo.kill('hapax', AWAY_MS));
on('kill-shops', 'click', async () => {
  if ((memory.read().click ?? 0) > 0) shop.another();
  await demo.killShopsMidOrder();
  shop.press();
});
for (const [id] of SLIDERS) {
  byId(id).addEventListener('input', () => showWeather(readWeather()));
  on(id, 'change', () => demo.setWeather(readWeather()));
}
window.addEventListener('online', () => void withHapax.resume());

async function open() {
  counts = emptyCounts();
  const state = await look();
  if (!state) return;
  byId('seed').textContent = state.seed;
  showWeather(state.weather);
  for (const [role, { pid }] of Object.entries(state.processes)) {
    // Left behind by a page that was closed; a story that killed it starts it again itself.
    if (pid === null && !story.isPlaying) void demo.start(role).catch(trouble);
  }
  const isFresh = Object.values(state.ledgers).every((ledger) => ledger?.charges === 0);
  // Without a memory of its own, this tab comes to books that others have written in.
  story.wake(state.autoplay && isFresh);
  await Promise.all(Object.values(tills).map((till) => till.wake()));
  document.body.dataset.ready = '';
}

await open();
setInterval(() => void look(), LOOK_EVERY_MS);
