// Calls of the admin API. The token stays in this tab and goes nowhere but into the Authorization field.

const KEY = "hapax-token";
// A gateway that does not answer in so many milliseconds is away.
const PATIENCE = 5000;
let token = sessionStorage.getItem(KEY);
let whenUnauthenticated = () => {};

export function onUnauthenticated(call) {
  whenUnauthenticated = call;
}

export function useToken(text) {
  token = text || null;
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
}

export class Refused extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.kind = String(body.type || "").split("#").pop();
  }
}

async function send(method, path, { body, version, signal } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (version) headers["If-Match"] = `"${version}"`;
  const response = await fetch(path, {
    method, headers, signal: signal ?? AbortSignal.timeout(PATIENCE), cache: "no-store", credentials: "omit", redirect: "error",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) whenUnauthenticated();
  throw new Refused(response.status, problem);
}

export const get = async (path) => (await send("GET", `/api/v1/${path}`)).json();
export const post = async (path, body, version) => (await send("POST", `/api/v1/${path}`, { body, version })).json();
export const metrics = async () => (await send("GET", "/metrics")).text();

// Server-sent events over fetch, because an EventSource cannot send a token. `onText` gets text as it comes.
export async function events(path, onText, signal) {
  const response = await send("GET", `/api/v1/${path}`, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onText(value);
  }
}
