/** A scripted server behind `fetch`, and time that passes only when somebody waits. */

/** Answers in turn; an entry that is an Error is thrown. Keeps what it was asked. */
export function script(...answers) {
  const asked = [];
  const fetch = async (url, init) => {
    asked.push({ url: String(url), method: init.method, key: init.headers.get('idempotency-key'), headers: init.headers, body: init.body && new TextDecoder().decode(init.body) });
    const answer = answers[Math.min(asked.length, answers.length) - 1];
    const made = typeof answer === 'function' ? await answer(init) : answer;
    if (made instanceof Error) throw made;
    return made.clone();
  };
  return { fetch, asked };
}

export function clock() {
  let nowMs = 1_700_000_000_000;
  const waits = [];
  return {
    waits,
    nowMs: () => nowMs,
    pass: (ms) => void (nowMs += ms),
    sleep: async (ms) => {
      waits.push(ms);
      nowMs += ms;
    },
  };
}

export const reset = () => Object.assign(new TypeError('fetch failed'), { cause: { code: 'ECONNRESET' } });
export const refused = () => Object.assign(new TypeError('fetch failed'), { cause: { code: 'ECONNREFUSED' } });
export const made = (body = '{"order":1}') => new Response(body, { status: 201, headers: { 'content-type': 'application/json' } });
export const order = (body = '{"item":"book"}') => ({ method: 'POST', body, headers: { 'content-type': 'application/json' } });

/** Keeps everything in memory and can be cut off at a write, as a dying machine would. */
export function disk(kept = new Map()) {
  const log = [];
  return {
    kept,
    log,
    get: async (name) => kept.get(name) ?? null,
    set: async (name, text) => {
      log.push(['set', JSON.parse(text)]);
      kept.set(name, text);
    },
    remove: async (name) => {
      log.push(['remove', name]);
      kept.delete(name);
    },
    names: async (prefix) => [...kept.keys()].filter((name) => name.startsWith(prefix)),
  };
}
