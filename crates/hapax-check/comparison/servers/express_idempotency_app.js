// express-idempotency with its Redis adapter, as the two READMEs have them, before the same order handler.
'use strict';
const fs = require('node:fs');
const crypto = require('node:crypto');
const express = require('express');
const idempotency = require('express-idempotency');
const RedisAdapter = require('express-idempotency-redis-adapter').default;

const { LEDGER, REDIS_URL, PORT } = process.env;
const half = Number(process.env.WORK_MS) / 2;
const pause = () => new Promise((resolve) => setTimeout(resolve, half));

const adapter = new RedisAdapter({ connectionConfig: { url: REDIS_URL } });
adapter.connect().catch((error) => { throw error; });

const app = express();
app.use(express.json());
app.use(idempotency.idempotency({ dataAdapter: adapter }));
app.post('/create-order', async (request, response) => {
  if (idempotency.getSharedIdempotencyService().isHit(request)) return;
  await pause();
  const order = { id: crypto.randomUUID(), item: request.body.item, quantity: request.body.quantity };
  const ledger = fs.openSync(LEDGER, 'a');
  fs.writeSync(ledger, JSON.stringify(order) + '\n');
  fs.fsyncSync(ledger);
  fs.closeSync(ledger);
  await pause();
  response.status(201).set('Location', `/order/${order.id}`).json(order);
});
app.get('/ledger', (_request, response) => {
  const lines = fs.existsSync(LEDGER) ? fs.readFileSync(LEDGER, 'utf8').split('\n').length - 1 : 0;
  response.json({ count: lines });
});
app.listen(Number(PORT), '127.0.0.1');
