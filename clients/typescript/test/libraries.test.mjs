/** ky and axios over the safe fetch, as the README shows. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import axios from 'axios';
import ky from 'ky';
import { OutcomeUnknown, safeFetch } from '../dist/hapax-client.js';

/** Cuts the first two answers to every key, after the work is done. */
const seen = new Map();
const server = createServer((request, response) => {
  let body = '';
  request.on('data', (part) => (body += part));
  request.on('end', () => {
    const key = request.headers['idempotency-key'];
    const entry = seen.get(key) ?? { times: 0, bodies: new Set() };
    entry.times += 1;
    entry.bodies.add(body);
    seen.set(key, entry);
    if (entry.times <= 2 || request.url === '/never') return request.socket.destroy();
    response.writeHead(201, { 'content-type': 'application/json' }).end('{"order":1}');
  });
});
let origin;
before(async () => {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${server.address().port}`;
});
after(() => server.close());

const last = () => [...seen.values()].at(-1);

test('ky sends an order over a network that loses two answers', async () => {
  const api = ky.create({ fetch: safeFetch(), retry: 0, timeout: false });
  assert.deepEqual(await api.post(`${origin}/create-order`, { json: { item: 'book' } }).json(), { order: 1 });
  assert.deepEqual([last().times, [...last().bodies]], [3, ['{"item":"book"}']]);
});

test('axios sends an order over a network that loses two answers', async () => {
  const api = axios.create({ adapter: 'fetch', env: { fetch: safeFetch(), Request: null, Response: null } });
  const answer = await api.post(`${origin}/create-order`, { item: 'book' });
  assert.deepEqual([answer.status, answer.data], [201, { order: 1 }]);
  assert.deepEqual([last().times, [...last().bodies]], [3, ['{"item":"book"}']]);
});

test('an unknown outcome comes through ky and axios and can be resumed', async () => {
  const find = (error) => (error instanceof OutcomeUnknown ? error : error?.cause && find(error.cause));
  const viaKy = await ky.create({ fetch: safeFetch(), retry: 0, timeout: false }).post(`${origin}/never`, { json: {} }).catch((error) => error);
  const viaAxios = await axios
    .create({ adapter: 'fetch', env: { fetch: safeFetch(), Request: null, Response: null } })
    .post(`${origin}/never`, {})
    .catch((error) => error);
  for (const error of [viaKy, viaAxios]) {
    const unknown = find(error);
    assert.ok(unknown, String(error));
    assert.equal(typeof unknown.resume, 'function');
  }
});
