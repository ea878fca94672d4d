/**
 * What the page asks the demo's own server: how everything is, what to kill, how bad the network shall be.
 * @module
 */

/** A question to the demo; throws when it does not answer with what was asked for. */
async function ask(path, init) {
  const response = await fetch(path, init);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${(await response.text()).trim()}`);
  return response.status === 204 ? null : response.json();
}

const post = (path, body) =>
  ask(path, {
    method: 'POST',
    ...(body && { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }),
  });

/** How everything is, with what went over the wire after `serial`. */
export const state = (serial) => ask(`/demo/state?after=${serial}`);

/** What a till's shop knows of a key: asked for at the shop itself, not at hapax. */
export const ordersOf = (till, key) => ask(`/demo/orders/${till}?request=${encodeURIComponent(key)}`);

export const setWeather = (weather) => post('/demo/weather', weather);
export const startOver = () => post('/demo/start-over');
export const start = (role) => post(`/demo/start/${role}`);
export const killShopsMidOrder = () => post('/demo/kill-shops-mid-order');

/** `kill -9`. Without `backAfterMs` it stays away. */
export const kill = (role, backAfterMs) =>
  post(`/demo/kill/${role}${backAfterMs === undefined ? '' : `?back_after_ms=${backAfterMs}`}`);

/** Whatever this tab must still know after a reload. */
export const memory = {
  read() {
    try {
      return JSON.parse(sessionStorage.getItem('demo') ?? '{}');
    } catch {
      return {};
    }
  },
  write(changes) {
    sessionStorage.setItem('demo', JSON.stringify({ ...this.read(), ...changes }));
  },
  clear() {
    sessionStorage.clear();
  },
};

/** An element with attributes and children; `on…` are listeners, and text is never read as HTML. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith('on')) element.addEventListener(attribute.slice(2), value);
    else if (value === true) element.setAttribute(attribute, '');
    else if (value !== false && value !== undefined) element.setAttribute(attribute, value);
  }
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

const count = new Intl.NumberFormat('en');
/** `3 orders`, `1 order`. */
export const many = (number, one, more = `${one}s`) => `${count.format(number)} ${number === 1 ? one : more}`;

/** Minor units as people write them: `49 €`. */
export function money(minor) {
  const digits = minor % 100 === 0 ? 0 : 2;
  const number = new Intl.NumberFormat('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return `${number.format(minor / 100)} €`;
}

export const isStill = () => matchMedia('(prefers-reduced-motion: reduce)').matches;
