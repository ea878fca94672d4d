/**
 * The drawer: every request as it went over the wire, copyable as curl.
 * @module
 */

import { byId, h, many } from './demo.js';

const MAX_SHOWN = 200;

const OUTCOMES = {
  delivered: 'answered',
  lost: 'answer lost',
  unreachable: 'nobody listened',
  cut: 'broken off',
  discarded: 'copy made by the network',
};

/** A command that sends the same request, around the bad network. */
function asCurl(entry) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const parts = ['curl -i', quoted(`${location.origin}/${entry.till}${entry.target}`)];
  if (entry.method !== 'GET') {
    parts.push("-H 'Content-Type: application/json'");
    if (entry.key) parts.push(`-H ${quoted(`Idempotency-Key: ${entry.key}`)}`);
    parts.push(`-d ${quoted('{"item":"a lamp"}')}`);
  }
  return parts.join(' \\\n  ');
}

export class Drawer {
  #count = 0;

  constructor() {
    this.list = byId('requests');
  }

  clear() {
    this.#count = 0;
    this.list.replaceChildren();
    byId('drawer-count').textContent = 'No requests yet';
  }

  add(entry) {
    this.#count += 1;
    byId('drawer-count').textContent = many(this.#count, 'request');
    const curl = asCurl(entry);
    const said = h('span', { role: 'status' });
    const copy = h('button', {
      type: 'button',
      class: 'small',
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(curl);
          said.textContent = ' Copied';
        } catch {
          said.textContent = ' Select it above: the browser does not let this page copy';
        }
      },
    }, 'Copy as curl');
    const status = entry.fields.find(([name]) => name === 'idempotency-status')?.[1];
    const head = entry.status === null
      ? 'no answer'
      : [`HTTP/1.1 ${entry.status}`, ...entry.fields.map(([name, value]) => `${name}: ${value}`)].join('\n');
    this.list.prepend(
      h('li', {},
        h('details', {},
          h('summary', {},
            h('span', { class: `tag ${entry.till}` }, entry.till === 'hapax' ? 'with' : 'without'),
            h('span', { class: 'what' }, `${entry.method} ${entry.target}`),
            h('span', { class: 'key' }, entry.key ? `key ${entry.key.slice(0, 8)}` : 'no key'),
            h('span', { class: `outcome ${entry.outcome}` },
              [entry.status, status, OUTCOMES[entry.outcome]].filter(Boolean).join(' · '))),
          h('p', {}, `Place ${entry.place ?? 'none'}, delayed by ${entry.delay_ms} ms`,
            entry.key ? h('span', {}, ', key ', h('code', {}, entry.key)) : ''),
          h('pre', { tabindex: '0', role: 'region', 'aria-label': 'The answer' }, `${head}\n\n${entry.content}`.trim()),
          h('pre', { tabindex: '0', role: 'region', 'aria-label': 'As curl' }, curl),
          h('p', {}, copy, said))));
    while (this.list.children.length > MAX_SHOWN) this.list.lastElementChild.remove();
  }
}
