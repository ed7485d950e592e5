// Everything the page asks of the server over HTTP. All addresses are relative to the page's own, so it works below any path of a proxy.
// A request waits for the board by itself: while it does not answer, while it is busy, and until the access word is right.

import { $, fromBase64, hush, pause, say } from './ui.js';

const KEPT_AS = 'rockshard.token';
let token = '';

/** An answer that says no. `status` is HTTP's; `param` names the setting it is about, or is null. */
export class BoardError extends Error {
  constructor(status, message, code = null, param = null) {
    super(message);
    this.name = 'BoardError';
    Object.assign(this, { status, code, param });
  }
}

/** Takes the access word from the address (`#token=...`, removed from it) or from where this browser keeps it. Returns what else the `#` holds. */
export function takeToken() {
  try { token = localStorage.getItem(KEPT_AS) || ''; } catch { /* a browser that keeps nothing */ }
  const parts = location.hash.slice(1).split('&');
  const given = parts.find((part) => part.startsWith('token='));
  const rest = parts.filter((part) => part && part !== given).join('&');
  if (given) {
    let word = given.slice('token='.length);
    try { word = decodeURIComponent(word); } catch { /* as it stands */ }
    setToken(word);
    history.replaceState(null, '', `${location.pathname}${location.search}${rest ? `#${rest}` : ''}`);
  }
  return rest;
}

/** The access word, or ''. */
export const accessToken = () => token;

function setToken(word) {
  if (!/^[\x21-\x7e]+$/.test(word)) return; // no header can hold others
  token = word;
  try { localStorage.setItem(KEPT_AS, word); } catch { /* asked again next time */ }
}

let asking = null;

/** Asks the person for the access word; one dialog for all who wait. */
function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = $('access'), form = $('access-form'), field = $('access-word');
    $('access-wrong').hidden = !token;
    field.value = '';
    const stay = (event) => event.preventDefault(); // Esc would leave a page that can do nothing
    const done = (event) => {
      event.preventDefault();
      if (!field.value.trim()) return;
      setToken(field.value.trim());
      dialog.removeEventListener('cancel', stay);
      form.removeEventListener('submit', done);
      dialog.close();
      asking = null;
      resolve();
    };
    dialog.addEventListener('cancel', stay);
    form.addEventListener('submit', done);
    if (!dialog.open) dialog.showModal();
    field.focus();
  });
  return asking;
}

/** The full address of a path such as `v1/models`. */
export const address = (path) => new URL(path, document.baseURI);

async function refusal(response) {
  let error = {};
  try { error = (await response.json()).error ?? {}; } catch { /* not from the server itself */ }
  const said = error.message ? error.message.replace(/\.$/, '') : `the answer was ${response.status}`;
  const words = {
    404: `The board does not have that: ${said}.`,
    413: 'That picture is too large for the board. Take a smaller one.',
    500: `Something went wrong on the board: ${said}. Try again.`,
  };
  return new BoardError(response.status, words[response.status] ?? `The board says no: ${said}.`, error.code ?? null, error.param ?? null);
}

async function busyFor(seconds, signal) {
  for (let left = Math.ceil(seconds); left > 0; left -= 1) {
    say('busy', `The board is busy: about ${left} s. It goes on by itself.`, { kind: 'wait' });
    await pause(1000, signal);
  }
}

/**
 * A request that waits for the board; the response is one that says yes.
 * @param {string} path  such as `v1/models`
 * @param {RequestInit} options  of fetch; `signal` stops the waiting too
 * @returns {Promise<Response>}
 * @throws {BoardError|DOMException}
 */
export async function request(path, options = {}) {
  const { signal } = options;
  try {
    for (let failures = 0; ;) {
      const used = token;
      const headers = new Headers(options.headers);
      if (used) headers.set('Authorization', `Bearer ${used}`);
      let response = null;
      try { response = await fetch(address(path), { cache: 'no-store', ...options, headers }); } catch (error) { if (signal?.aborted) throw error; }
      if (!response || response.status === 502 || response.status === 504) {
        failures += 1;
        say('gone', 'The board does not answer. Trying again...', { kind: 'wait' });
        await pause(Math.min(5000, 500 * 2 ** failures), signal);
        continue;
      }
      hush('gone');
      const after = Number(response.headers.get('Retry-After'));
      if (response.status === 401) {
        if (used === token) await askToken();
      } else if (response.status === 429 || (response.status === 503 && after > 0)) {
        await busyFor(after > 0 ? after : 2, signal);
      } else if (response.ok) {
        return response;
      } else {
        throw await refusal(response);
      }
    }
  } finally {
    hush('busy');
    if (signal?.aborted) hush('gone');
  }
}

/** The models of the server: `GET v1/models`, its `data`. */
export async function models(signal) {
  return (await (await request('v1/models', { signal })).json()).data ?? [];
}

/** What the cores do: `GET v1/cores`. Times are in microseconds of the server's clock. */
export async function cores(signal) {
  return (await request('v1/cores', { signal })).json();
}

function pictures(answer, format) {
  const type = `image/${answer.output_format ?? format}`;
  return { ...answer, pictures: answer.data.map((one) => ({ blob: fromBase64(one.b64_json, type), seed: one.seed })) };
}

/** Draws pictures: `POST v1/images/generations` with these fields. Adds `pictures: [{blob, seed}]` to the answer. */
export async function generate(fields, signal) {
  const format = fields.output_format ?? 'png';
  const body = JSON.stringify({ response_format: 'b64_json', output_format: format, ...fields });
  return pictures(await (await request('v1/images/generations', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body, signal })).json(), format);
}

/** Changes a picture: `POST v1/images/edits`. Blobs are sent as files; null fields are left out. */
export async function edit(fields, signal) {
  const body = new FormData();
  for (const [name, value] of Object.entries({ response_format: 'b64_json', output_format: 'png', ...fields })) {
    if (value === null || value === undefined) continue;
    if (value instanceof Blob) body.append(name, value, `${name}.png`);
    else body.append(name, String(value));
  }
  return pictures(await (await request('v1/images/edits', { method: 'POST', body, signal })).json(), 'png');
}

/**
 * Asks about a picture: `POST v1/chat/completions`, words as they come.
 * @param {{model: string, question: string, picture: string, tokens: number}} fields  picture: a data URL; tokens: the most there may be
 * @param {(words: string) => void} onWords
 * @returns {Promise<string|null>} why it ended, such as "stop" or "length"
 */
export async function chat({ model, question, picture, tokens }, onWords, signal) {
  const content = [{ type: 'text', text: question }, { type: 'image_url', image_url: { url: picture } }];
  const body = JSON.stringify({ model, messages: [{ role: 'user', content }], stream: true, max_tokens: tokens });
  const response = await request('v1/chat/completions', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', ended = null;
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? '')).split(/\r\n|\n|\r/);
    rest = done ? '' : lines.pop();
    for (const line of lines) {
      if (!line.startsWith('data:')) continue;
      const data = line.slice(5).trim();
      if (data === '[DONE]') return ended;
      const part = JSON.parse(data);
      if (part.error) throw new BoardError(200, `The board stopped: ${part.error.message}.`, part.error.code);
      const choice = part.choices?.[0];
      if (choice?.delta?.content) onWords(choice.delta.content);
      ended = choice?.finish_reason ?? ended;
    }
    if (done) {
      if (!ended) throw new BoardError(200, 'The answer broke off. Ask again.');
      return ended;
    }
  }
}
