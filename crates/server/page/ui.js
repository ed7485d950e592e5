// Small helpers for elements, messages and words. No module state but the messages that are shown.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** A new element. `props` are attributes, but for `text`, `on` (event: handler) and `data` (name: value); null and false are left out. */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'text') made.textContent = value;
    else if (name === 'on') for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    else if (name === 'data') Object.assign(made.dataset, value);
    else made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const shown = new Map(); // key -> {text, kind, action}, the newest last

function paintMessages() {
  const newest = [...shown].pop();
  const box = $('message');
  box.replaceChildren();
  box.dataset.kind = newest ? newest[1].kind : '';
  if (!newest) return;
  const [key, { text, kind, action }] = newest;
  box.append(el('span', { text }));
  if (action) box.append(el('button', { type: 'button', text: action.text, on: { click: () => { hush(key); action.run(); } } }));
  if (kind !== 'wait') box.append(el('button', { type: 'button', class: 'close', 'aria-label': 'Close this message', text: '\u00d7', on: { click: () => hush(key) } }));
}

/**
 * Shows a message above the page; one with the same key is replaced.
 * @param {string} key  what the message is about
 * @param {string} text
 * @param {{kind?: 'error'|'wait'|'done', seconds?: number, action?: {text: string, run: () => void}}} more
 *   `wait` goes when whoever said it hushes it; `seconds` (s) is how long it stays, else until closed.
 */
export function say(key, text, { kind = 'error', seconds = 0, action = null } = {}) {
  clearTimeout(shown.get(key)?.timer);
  if (shown.get(key)?.text === text && !seconds) return;
  shown.delete(key);
  const timer = seconds ? setTimeout(() => hush(key), seconds * 1000) : 0;
  shown.set(key, { text, kind, action, timer });
  paintMessages();
}

/** Takes the message with this key away, if it is shown. */
export function hush(key) {
  clearTimeout(shown.get(key)?.timer);
  if (shown.delete(key)) paintMessages();
}

/** Takes the newest message away that a person may close; true if there was one. */
export function hushNewest() {
  const newest = [...shown].pop();
  if (!newest || newest[1].kind === 'wait') return false;
  hush(newest[0]);
  return true;
}

/** Resolves after `ms` milliseconds; rejects with AbortError when the signal is aborted before. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stopped = () => { clearTimeout(timer); reject(new DOMException('stopped', 'AbortError')); };
    if (signal?.aborted) { reject(new DOMException('stopped', 'AbortError')); return; }
    const timer = setTimeout(() => { signal?.removeEventListener('abort', stopped); resolve(); }, ms);
    signal?.addEventListener('abort', stopped, { once: true });
  });
}

/** True for the error of something that a person stopped. */
export const wasStopped = (error) => error?.name === 'AbortError';

/** A duration given in milliseconds, in words: "85 ms", "2.4 s", "3 min 5 s". */
export function duration(ms) {
  if (ms < 995) return `${Math.max(1, Math.round(ms))} ms`;
  if (ms < 59_500) return `${(ms / 1000).toFixed(ms < 9_950 ? 1 : 0)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round(ms / 1000) % 60} s`;
}

/** A number of bytes in words: "1.4 GB". */
export function bytes(count) {
  if (count < 1000) return `${count} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let value = count / 1000, at = 0;
  while (value >= 999.5 && at < units.length - 1) { value /= 1000; at += 1; }
  return `${value.toFixed(value < 9.95 ? 1 : 0)} ${units[at]}`;
}

/** "64x64" as people write it. */
export const sizeWords = (size) => String(size).replace('x', ' \u00d7 ');

/** Width and height in pixels of "64x64". */
export function extent(size) {
  const [width, height] = String(size || '512x512').split('x').map(Number);
  return { width: width || 512, height: height || 512 };
}

/** Gives the frame around a picture its shape; pictures below 128 pixels are enlarged with sharp pixels. Pixels. */
export function fit(mount, { width, height }) {
  mount.style.setProperty('--aspect', String(width / height));
  mount.classList.toggle('tiny', Math.max(width, height) < 128);
}

/** The blob of base64 text. */
export function fromBase64(text, type) {
  const raw = atob(text);
  const data = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at += 1) data[at] = raw.charCodeAt(at);
  return new Blob([data], { type });
}

/** The blob's data URL. */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** Draws the middle of a picture over the whole of a context's canvas, with the canvas's shape. Pixels. */
export function drawCropped(context, picture, width, height) {
  const { canvas } = context;
  const scale = Math.max(canvas.width / width, canvas.height / height);
  const w = canvas.width / scale, h = canvas.height / scale;
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h, 0, 0, canvas.width, canvas.height);
}

/** The canvas as a blob; rejects where the browser cannot write the type. */
export function canvasBlob(canvas, type = 'image/png', quality = 0.9) {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('this browser could not write the picture'))), type, quality);
  });
}

/** Shows a blob in an image without a flash; `said` is its text for those who do not see it. Resolves once it is shown. */
export async function showBlob(image, blob, said) {
  const url = URL.createObjectURL(blob);
  const ahead = new Image();
  ahead.src = url;
  try { await ahead.decode(); } catch (error) { URL.revokeObjectURL(url); throw error; }
  if (image.dataset.url) URL.revokeObjectURL(image.dataset.url);
  image.dataset.url = url;
  image.src = url;
  image.alt = said;
  image.hidden = false;
  return { width: ahead.naturalWidth, height: ahead.naturalHeight };
}

/** Makes an element take dropped picture files; `take(file)` gets the first. */
export function takesDrops(element, take) {
  let depth = 0;
  const over = (change) => { depth = Math.max(0, depth + change); element.classList.toggle('over', depth > 0); };
  element.addEventListener('dragenter', (event) => { event.preventDefault(); over(1); });
  element.addEventListener('dragleave', () => over(-1));
  element.addEventListener('dragover', (event) => event.preventDefault());
  element.addEventListener('drop', (event) => {
    event.preventDefault();
    depth = 0;
    over(0);
    const file = [...event.dataTransfer.files].find((one) => one.type.startsWith('image/'));
    if (file) take(file);
    else say('file', 'That is no picture file. PNG, JPEG and WebP pictures can be read.', { seconds: 8 });
  });
}

/** Fills a description list with pairs of words; pairs without a second are left out. */
export function facts(list, pairs) {
  list.replaceChildren(...pairs.filter(([, value]) => value !== null && value !== undefined && value !== '')
    .map(([name, value]) => el('div', {}, el('dt', { text: name }), el('dd', { text: String(value) }))));
}

/** Keeps an output beside a slider in step; `words(value)` says the value. Calls `changed` on every move. */
export function slider(input, output, words, changed = () => {}) {
  const write = () => {
    if (output) output.textContent = words(Number(input.value));
    input.setAttribute('aria-valuetext', words(Number(input.value)));
    const share = (input.value - input.min) / (input.max - input.min);
    input.style.setProperty('--share', `${share * 100}%`);
  };
  input.addEventListener('input', () => { write(); changed(); });
  write();
  return write;
}
