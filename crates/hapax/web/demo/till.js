/**
 * A till: sends the shopper's presses to a shop, and shows what comes back, what is on the wire and what is in the books.
 *
 * The till with hapax sends through `hapax-client.js`, the file that `clients/typescript` makes: it keeps one key per
 * purchase, stored before the first byte is sent. The other one does what a plain page does: a fetch per press.
 * @module
 */

import { intent, session, OutcomeUnknown } from './hapax-client.js';
import { h, isStill, many, memory, money, ordersOf } from './demo.js';

const ORDER = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ item: 'a lamp' }) };

/** What the shopper reads, by what the till knows. */
const SAYS = {
  idle: ['Your basket', 'One lamp. Nothing has been sent yet.'],
  sending: ['One moment …', 'The order is on its way.'],
  silent: {
    bare: ['Something went wrong', 'No answer. Was it ordered, or not? The page cannot tell; the shopper presses again.'],
    hapax: ['No answer yet', 'The key of this purchase is kept. To press again is safe: it is the same order.'],
  },
  confirmed: ['Thank you! It is ordered', ''],
  unknown: ['Nobody can know', 'The shop died between its commit and its answer. hapax says so, and does not run it again on a guess.'],
  found: ['It is ordered', 'The shop’s own books have it. Nothing was run twice to find out.'],
  absent: ['It is not ordered', 'The shop’s own books do not have it: a new purchase is safe.'],
};

const SIGNS = { idle: '○', sending: '…', silent: '?', confirmed: '✓', unknown: '?', found: '✓', absent: '○' };

export class Till {
  /**
   * @param {'bare' | 'hapax'} name
   * @param {{ offline: () => boolean, changed: () => void }} page
   */
  constructor(name, page) {
    this.name = name;
    this.page = page;
    this.underWay = 0;
    this.purchases = 0;
    this.mood = 'idle';
    this.key = null;
    this.#draw();
  }

  /** What it keeps over a reload: counters, so that no two requests have the same place. */
  get #kept() {
    return memory.read()[this.name] ?? { request: 0, mood: 'idle' };
  }

  #keep(changes) {
    memory.write({ [this.name]: { ...this.#kept, ...changes } });
  }

  get isDone() {
    return ['confirmed', 'found'].includes(this.mood);
  }

  /** After a load: shows what was known, and finishes what was begun, if that is possible. */
  async wake() {
    const kept = this.#kept;
    this.key = kept.key ?? null;
    // What a plain page knows is gone with the page: the shopper sees the basket again.
    const isLost = this.name === 'bare' && !['confirmed', 'found'].includes(kept.mood);
    this.#feel(isLost ? 'idle' : kept.mood);
    if (this.name === 'hapax' && !this.isDone && kept.mood !== 'absent') await this.resume();
  }

  /** A new thing is wanted: a new intent, and with it a new key. */
  renew() {
    this.key = null;
    this.purchases += 1;
    this.underWay = 0;
    this.#keep({ request: 0, key: null });
    this.#feel('idle');
  }

  /** The shopper presses the button. */
  press() {
    this.#keep({ request: 0 });
    return this.#attempt((purchase, wire) =>
      this.name === 'hapax' ? purchase.send('/hapax/create-order', ORDER) : wire('/bare/create-order', ORDER));
  }

  /** Finishes a purchase that is pending: after a reload, and when the network is back. */
  async resume() {
    if (this.name !== 'hapax' || this.underWay > 0 || this.mood === 'unknown') return;
    if ((await this.#purchase().state()) === 'vacant') {
      if (this.mood === 'sending') this.#feel('idle');
      return;
    }
    await this.#attempt((purchase) => purchase.resume());
  }

  /** Asks the shop what hapax cannot know. */
  async askTheShop() {
    try {
      const { orders } = await ordersOf(this.name, this.key);
      this.#feel(orders.length > 0 ? 'found' : 'absent');
    } catch {
      this.note.textContent = 'The shop is still away. Ask again in a moment.';
    }
    this.page.changed();
  }

  #purchase() {
    return intent(`purchase-${memory.read().intent ?? 1}`, {
      storage: session(),
      fetch: this.#wire,
      attemptMs: 15_000,
      // A reload may come between the answer and the moment at which it is shown.
      rememberMs: 600_000,
    });
  }

  async #attempt(send) {
    const { purchases } = this;
    this.underWay += 1;
    if (!this.isDone) this.#feel('sending');
    let mood;
    let answer = '';
    try {
      const response = await send(this.#purchase(), this.#wire);
      if (response?.ok) {
        mood = 'confirmed';
        answer = response.headers.get('idempotent-replayed') === 'true'
          ? 'A repeat: the first answer, replayed.'
          : 'The first answer got through.';
      } else mood = 'silent';
    } catch (error) {
      mood = error instanceof OutcomeUnknown && error.why === 'answer' ? 'unknown' : 'silent';
    }
    // Meanwhile another purchase may have begun, or another press may have been answered.
    if (purchases !== this.purchases) return;
    this.underWay -= 1;
    if (!this.isDone) {
      if (mood === 'silent' && this.underWay > 0) mood = 'sending';
      this.#feel(mood, answer);
    }
    this.page.changed();
  }

  /** One request over the bad network: a fetch that says which request it is. */
  #wire = async (url, init) => {
    if (this.page.offline()) {
      this.#tell('Offline: nothing left this page.');
      throw new TypeError('the page is offline');
    }
    const headers = new Headers(init.headers);
    const { intent: purchase = 1, click = 1 } = memory.read();
    const request = this.#kept.request + 1;
    // Stored before it is sent: after a reload no request may have the place of an earlier one.
    this.#keep({ request, key: headers.get('Idempotency-Key') });
    this.key = headers.get('Idempotency-Key');
    headers.set('Demo-Place', `${purchase}.${click}.${request}`);
    this.#showKey();
    this.#fly('request', 'page', this.name === 'hapax' ? 'hapax' : 'shop');
    try {
      return await fetch(url, { ...init, headers });
    } finally {
      this.page.changed();
    }
  };

  /** What the network says about a request: the answer that the page may never have seen. */
  observe(entry) {
    const isReplay = entry.fields.some(([name, value]) => name === 'idempotent-replayed' && value === 'true');
    const isOfHapax = isReplay || entry.content.includes('"urn:hapax:problems#');
    const source = this.name === 'hapax' && isOfHapax ? 'hapax' : 'shop';
    const who = source === 'hapax' ? 'hapax' : 'the shop';
    if (entry.is_copy) {
      this.#tell(entry.status === 201 && !isReplay
        ? 'The network delivered a request twice: the shop carried out both.'
        : 'The network delivered a request twice: hapax stopped the second.');
      if (this.name === 'bare') this.#fly('request', 'page', 'shop');
      return;
    }
    switch (entry.outcome) {
      case 'lost':
        void this.#execute(entry).then(() => this.#fly('answer', source, 'wire', true));
        this.#tell(`${entry.status} from ${who}: lost on the wire.`);
        break;
      case 'delivered':
        void this.#execute(entry).then(() => this.#fly('answer', source, 'page'));
        this.#tell(`${entry.status} from ${who}: it arrived${isReplay ? ', the first answer again' : ''}.`);
        break;
      case 'unreachable':
        this.#tell(`Nobody listens: ${this.name === 'hapax' ? 'hapax' : 'the shop'} is away. Nothing was sent.`);
        break;
      default:
        this.#tell(`The connection broke: ${this.name === 'hapax' ? 'hapax' : 'the shop'} died before it answered.`);
    }
  }

  /** What hapax let through to its shop is seen to arrive there, before its answer leaves. */
  async #execute(entry) {
    const isExecuted = entry.fields.some(([name, value]) => name === 'idempotency-status' && value === 'executed');
    if (isExecuted) await this.#fly('request', 'hapax', 'shop');
  }

  /** Shows the shop's books and whose process is away. */
  show(ledger, processes) {
    const away = (role) => processes[role]?.pid === null;
    this.stations.shop.classList.toggle('away', away(this.name === 'bare' ? 'bare-shop' : 'shop'));
    this.stations.hapax?.classList.toggle('away', away('hapax'));
    if (!ledger) {
      this.books.dataset.away = '';
      return;
    }
    delete this.books.dataset.away;
    const signature = JSON.stringify([ledger.charges, ledger.total]);
    if (this.books.dataset.shown === signature) return;
    this.books.dataset.shown = signature;
    const lines = ledger.entries.slice(-6).map((entry, at, shown) =>
      h('li', { class: at === shown.length - 1 ? 'new' : '' },
        h('span', {}, `Lamp ${entry.order.slice(0, 6)}`), h('span', {}, (entry.amount / 100).toFixed(2))));
    const more = ledger.charges - lines.length;
    if (more > 0) lines.unshift(h('li', {}, h('span', {}, `and ${many(more, 'earlier one')}`), h('span', {}, '…')));
    if (lines.length === 0) lines.push(h('li', { class: 'none' }, 'No orders yet'));
    this.lines.replaceChildren(...lines);
    this.sum.replaceChildren(h('span', {}, many(ledger.charges, 'order')), h('span', {}, money(ledger.total)));
  }

  #feel(mood, answer) {
    this.mood = mood;
    this.#keep({ mood });
    const says = SAYS[mood];
    const [head, text] = Array.isArray(says) ? says : says[this.name];
    this.element.dataset.mood = mood;
    this.sign.textContent = SIGNS[mood];
    this.head.textContent = head;
    this.note.textContent = answer || text;
    this.ask.hidden = !['unknown', 'absent'].includes(mood);
    this.#showKey();
  }

  #showKey() {
    if (this.name === 'hapax') this.keyText.textContent = this.key ? `${this.key.slice(0, 13)}…` : 'made at the first press';
  }

  #tell(text) {
    this.trace.textContent = text;
  }

  #draw() {
    const isHapax = this.name === 'hapax';
    this.element = document.getElementById(`till-${this.name}`);
    const station = (name, label) => h('span', { class: `station ${name}` }, label);
    this.stations = { page: station('page', 'page'), wire: station('wire', 'network'), shop: station('shop', 'shop') };
    if (isHapax) this.stations.hapax = station('hapax', 'hapax');
    this.track = h('div', { class: 'track' }, ...['page', 'wire', 'hapax', 'shop'].flatMap((name) => this.stations[name] ?? []));
    this.trace = h('p', { class: 'trace' }, 'Nothing on the wire.');
    this.sign = h('span', { class: 'sign', 'aria-hidden': 'true' });
    this.head = h('h4', {});
    this.note = h('p', { class: 'note' });
    this.ask = h('button', { type: 'button', class: 'small', hidden: true, onclick: () => this.askTheShop() }, 'Ask the shop');
    this.keyText = h('code', {});
    this.lines = h('ul', {});
    this.sum = h('p', { class: 'sum' });
    this.books = h('div', { class: 'receipt' }, h('h4', {}, 'The shop’s books'), this.lines, this.sum,
      h('p', { class: 'closed' }, 'The shop is away'));
    this.element.replaceChildren(
      h('header', {},
        h('h3', { id: `${this.name}-title` }, isHapax ? 'With hapax' : 'Without hapax'),
        h('p', {}, ...(isHapax ? ['Key ', this.keyText] : ['A plain ', h('code', {}, 'fetch'), ' per press, no key']))),
      this.track,
      this.trace,
      h('div', { class: 'screen' }, this.sign, h('div', {}, this.head, this.note, this.ask)),
      this.books,
    );
  }

  /** Lets a message travel from one station to another; a lost one dies on the way. */
  #fly(kind, from, to, dies = false) {
    if (isStill() || document.hidden) return Promise.resolve();
    const track = this.track.getBoundingClientRect();
    const middle = (name) => {
      const box = (this.stations[name] ?? this.stations.shop).getBoundingClientRect();
      return box.left + box.width / 2 - track.left;
    };
    const packet = h('span', { class: `packet ${kind}`, 'aria-hidden': 'true' });
    this.track.append(packet);
    const at = (x, y = 0, more = {}) => ({ transform: `translate(${x}px, ${y}px)`, ...more });
    const [begin, end] = [middle(from), middle(to)];
    const duration = 250 + Math.abs(end - begin) * 1.6;
    const flight = packet.animate([at(begin), at(end)], { duration, easing: 'ease-in-out', fill: 'forwards' });
    return flight.finished
      .then(() => {
        if (!dies) return null;
        packet.classList.add('dead');
        this.stations.wire.classList.add('struck');
        return packet.animate(
          [at(end, 0, { opacity: 1 }), at(end - 6, 8, { opacity: 1 }), at(end - 14, 46, { opacity: 0 })],
          { duration: 1_100, easing: 'ease-in', fill: 'forwards' },
        ).finished;
      })
      .catch(() => {})
      .finally(() => {
        packet.remove();
        this.stations.wire.classList.remove('struck');
      });
  }
}
