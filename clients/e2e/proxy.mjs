/**
 * A bad network, seeded: between a client and a server of HTTP/1.1 it loses, delays, duplicates and cuts requests and
 * answers. What happens to a connection's n-th request depends on the seed and on nothing else.
 */
import net from 'node:net';

/** What can happen to a request, in per cent; the rest goes well. */
export const FAULTS = { lose_request: 6, cut_request: 5, lose_answer: 12, cut_answer: 8, duplicate: 10, delay: 12 };

/** Numbers in [0, 1), the same for the same seed. */
export function dice(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Starts it on a free port of 127.0.0.1.
 * @returns {Promise<{ port: number, fired: Record<string, number>, close: () => Promise<void> }>} `fired` counts the faults
 */
export async function startProxy(targetPort, seed, faults = FAULTS) {
  const random = dice(seed);
  const fired = Object.fromEntries([...Object.keys(faults), 'none'].map((name) => [name, 0]));
  const open = new Set();
  const draw = () => {
    let left = random() * 100;
    for (const [name, share] of Object.entries(faults)) if ((left -= share) < 0) return name;
    return 'none';
  };
  const server = net.createServer((client) => {
    open.add(client);
    client.on('error', () => {});
    client.on('close', () => open.delete(client));
    let held = Buffer.alloc(0);
    let turn = Promise.resolve();
    client.on('data', (part) => {
      held = Buffer.concat([held, part]);
      for (let size = sizeOf(held); size !== null && held.length >= size; size = sizeOf(held)) {
        const request = held.subarray(0, size);
        held = held.subarray(size);
        turn = turn.then(() => pass(client, request));
      }
    });
  });

  async function pass(client, request) {
    const fault = draw();
    fired[fault] += 1;
    const at = random();
    if (fault === 'lose_request') return client.resetAndDestroy();
    if (fault === 'cut_request') {
      await ask(request.subarray(0, Math.max(1, Math.floor(at * request.length))), true);
      return client.resetAndDestroy();
    }
    if (fault === 'delay') await new Promise((resolve) => setTimeout(resolve, at * 40));
    const [answer] = await Promise.all([ask(request), fault === 'duplicate' ? ask(request) : null]);
    if (fault === 'lose_answer' || answer === null) return client.resetAndDestroy();
    if (fault === 'cut_answer') return client.end(answer.subarray(0, Math.floor(at * answer.length)));
    client.write(answer);
  }

  /** Asks on a connection of its own; null if it broke. `isCut`: hangs up without waiting for an answer. */
  function ask(request, isCut = false) {
    return new Promise((resolve) => {
      const socket = net.connect(targetPort, '127.0.0.1');
      open.add(socket);
      let answer = Buffer.alloc(0);
      socket.on('error', () => {});
      socket.on('close', () => {
        open.delete(socket);
        resolve(null);
      });
      socket.on('connect', () => (isCut ? socket.end(request) : socket.write(request)));
      socket.on('data', (part) => {
        answer = Buffer.concat([answer, part]);
        const size = sizeOf(answer);
        if (size === null || answer.length < size) return;
        resolve(answer.subarray(0, size));
        socket.destroy();
      });
    });
  }

  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: server.address().port,
    fired,
    close: () => {
      for (const socket of open) socket.destroy();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Bytes of the message at the beginning of `held`; null while its head is not whole. */
function sizeOf(held) {
  const end = held.indexOf('\r\n\r\n');
  if (end < 0) return null;
  const head = held.subarray(0, end).toString('latin1');
  return end + 4 + Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
}
