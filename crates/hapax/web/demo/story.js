/**
 * The story: six steps, told by pressing the same buttons that the reader has. It goes on over the reload in its middle.
 * @module
 */

import * as demo from './demo.js';
import { byId, h, isStill, memory } from './demo.js';

/** A network that loses everything, and one that loses nothing. */
const STORM = { loss_percent: 100, delay_ms: 300, duplicate_percent: 0 };
const CALM = { loss_percent: 0, delay_ms: 300, duplicate_percent: 0 };

/**
 * What happens, and how long it is left to be read. `shop` is the page's own set of actions. A step is over when what it
 * began has ended: hapax is killed between orders, not amid one.
 */
const STEPS = [
  {
    title: 'The shopper confirms',
    text: 'Both shops make the order. The network loses both answers.',
    ms: 4_000,
    do: async (shop) => {
      await shop.startOver();
      await shop.weather(STORM);
      await shop.press();
    },
  },
  {
    title: 'No answer: press again',
    text: 'Without hapax that is a second order. With hapax it is the same key, so the same order.',
    ms: 3_500,
    do: (shop) => shop.press(),
  },
  {
    title: 'hapax dies: kill -9',
    text: 'The shopper presses a third time. Nothing gets past the dead hapax.',
    ms: 3_500,
    do: async (shop) => {
      await demo.kill('hapax');
      await shop.press();
    },
  },
  {
    title: 'hapax comes back',
    text: 'Its records are on the disk: it still knows the key, and the answer that got lost.',
    ms: 3_000,
    do: () => demo.start('hapax'),
  },
  {
    title: 'The page is reloaded',
    text: 'The network recovers. One till kept its key, and has its answer now. The other has forgotten.',
    ms: 4_000,
    do: async (shop) => {
      await shop.weather(CALM);
      shop.reload();
    },
  },
  {
    title: 'A last press',
    text: 'One lamp was wanted. One was paid for with hapax; four without.',
    ms: 0,
    do: (shop) => shop.press(),
  },
];

export class Story {
  #timer;
  #turn = Promise.resolve();

  /** @param {Record<string, Function>} shop what a step can do */
  constructor(shop) {
    this.shop = shop;
    this.items = STEPS.map(({ title, text }) =>
      h('li', {}, h('b', {}, title), h('span', {}, text)));
    byId('steps').replaceChildren(...this.items);
    byId('play').addEventListener('click', () => (this.isPlaying ? this.pause() : this.play()));
    byId('next').addEventListener('click', () => {
      this.pause();
      void this.next();
    });
    this.#show();
  }

  get #kept() {
    return memory.read().story ?? { step: -1, isPlaying: false };
  }

  get isPlaying() {
    return this.#kept.isPlaying;
  }

  #keep(changes) {
    memory.write({ story: { ...this.#kept, ...changes } });
    this.#show();
  }

  /** After a load: goes on where a reload was a step of it. */
  wake(mayBegin) {
    this.#show();
    if (this.isPlaying) this.#later();
    else if (mayBegin && this.#kept.step < 0 && !isStill()) this.play();
  }

  play() {
    this.#keep({ isPlaying: true });
    void this.next();
  }

  pause() {
    clearTimeout(this.#timer);
    if (this.isPlaying) this.#keep({ isPlaying: false });
  }

  /** The reader does something: the story waits. */
  interrupt() {
    this.pause();
  }

  /** Does the next step, when the one before is over; after the last one, the first. */
  next() {
    this.#turn = this.#turn.then(() => this.#step());
    return this.#turn;
  }

  async #step() {
    clearTimeout(this.#timer);
    const step = (this.#kept.step + 1) % STEPS.length;
    this.#keep({ step });
    byId('steps').setAttribute('aria-busy', 'true');
    try {
      await STEPS[step].do(this.shop);
      if (step === STEPS.length - 1) this.#keep({ isPlaying: false });
      else if (this.isPlaying) this.#later();
    } catch (error) {
      this.pause();
      this.shop.trouble(error);
    }
    byId('steps').removeAttribute('aria-busy');
  }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.next(), STEPS[Math.max(0, this.#kept.step)].ms);
  }

  #show() {
    const { step, isPlaying } = this.#kept;
    this.items.forEach((item, at) => {
      item.className = at < step ? 'past' : at === step ? 'now' : '';
      if (at === step) item.setAttribute('aria-current', 'step');
      else item.removeAttribute('aria-current');
    });
    const isOver = step === STEPS.length - 1 && !isPlaying;
    byId('play').textContent = isPlaying ? 'Pause' : isOver ? 'Play again' : step < 0 ? 'Play' : 'Go on';
    byId('next').textContent = step < 0 || isOver ? 'Step by step' : `Next: step ${step + 2}`;
  }
}
