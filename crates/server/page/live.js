// The live way of changing pictures: frames of a source go out, changed pictures come back, and both are shown side by side.

import { asParams, keep, settings, way } from './change.js';
import { LiveSocket, nowUs } from './socket.js';
import { cameraHint, openSource } from './sources.js';
import { $, canvasBlob, drawCropped, extent, hush, say } from './ui.js';

const WINDOW_MS = 2000; // over which rates and delays are averaged

let source = null, socket = null;
let opening = false;
let file = null;
let seq = 0, shown = -1, dropped = 0;
let encoding = false;
let last = null; // the newest changed picture, {blob, of}
let incoming = [], outgoing = [], delays = [];
let numbersTimer = 0;
let frame = null; // the canvas that is encoded

const recent = (list, now) => list.filter((one) => now - (one.at ?? one) < WINDOW_MS);

function numbers() {
  const now = performance.now();
  incoming = recent(incoming, now);
  outgoing = recent(outgoing, now);
  delays = recent(delays, now);
  const rate = (list) => (list.length / (WINDOW_MS / 1000)).toFixed(1);
  $('fps-in').textContent = rate(incoming);
  $('fps-out').textContent = rate(outgoing);
  $('delay-out').textContent = delays.length ? String(Math.round(delays.reduce((sum, one) => sum + one.ms, 0) / delays.length)) : '-';
  $('dropped-out').textContent = String(dropped);
}

/** Says how it stands, in the place of the changed picture too while there is none. */
function status(words) {
  if (way() !== 'live') return;
  $('change-status').textContent = words;
  $('result-words').textContent = words || 'The changed picture comes here.';
}


function mark(state) {
  $('result-frame').dataset.state = state;
  $('result-mount').classList.toggle('busy', state === 'drawing');
}

/** True while it goes on. */
export const running = () => Boolean(source) || opening;

/** Brings buttons and hints in step with what is chosen. */
export function refresh() {
  if (way() !== 'live') return;
  const kind = $('source').value;
  const hint = kind === 'webcam' || kind === 'screen' ? cameraHint() : null;
  $('source-hint').hidden = !hint;
  $('source-hint').textContent = hint ?? '';
  $('file-field').hidden = kind !== 'file';
  $('start-live').textContent = running() ? 'Stop' : 'Start';
  $('start-live').disabled = Boolean(hint);
  $('keep-change').disabled = !last;
  $('source-blank').hidden = running() || $('source-frame').width > 1;
  $('result-blank').hidden = Boolean(last);
  $('live-numbers').hidden = !running() && !last;
  $('tab-change').classList.toggle('running', running());
}

async function send(takenMs) {
  encoding = true;
  try {
    const small = Math.max(frame.width, frame.height) < 128;
    const blob = await canvasBlob(frame, small ? 'image/png' : 'image/jpeg', 0.9);
    if (!socket) return;
    seq = (seq + 1) >>> 0;
    if (await socket.frame(seq, takenMs * 1000, blob)) incoming.push(performance.now());
  } finally { encoding = false; }
}

/** One picture of the source: it is shown, and sent if the board takes one. */
function taken(takenMs) {
  if (!source) return;
  const context = $('source-frame').getContext('2d');
  drawCropped(context, source.picture, source.width, source.height);
  if (socket?.mayFrame && !encoding) {
    frame.getContext('2d').drawImage($('source-frame'), 0, 0);
    send(takenMs).catch((error) => say('live', `The picture could not be sent: ${error.message}`));
  }
  source.each(taken);
}

async function show({ blob, seq: of, generation, clientUs, skipped, preview, stale }, mine) {
  if (!preview) outgoing.push(performance.now());
  const result = $('result-frame');
  if (blob && !stale) {
    const bitmap = await createImageBitmap(blob);
    if (socket !== mine || of < shown) { bitmap.close(); return; }
    shown = of;
    if (result.width !== bitmap.width || result.height !== bitmap.height) Object.assign(result, { width: bitmap.width, height: bitmap.height });
    result.getContext('2d').drawImage(bitmap, 0, 0);
    bitmap.close();
    last = { blob, of: { ...mine.first } };
    result.dataset.generation = String(generation);
    result.dataset.seq = String(of);
    mark('done');
    if (!$('result-blank').hidden || $('keep-change').disabled) refresh();
  }
  if (!preview && !skipped) requestAnimationFrame(() => { const now = nowUs(); delays.push({ at: now / 1000, ms: (now - clientUs) / 1000 }); });
}

function connect(of) {
  const small = Math.max(...Object.values(extent(of.size))) < 128;
  const mine = new LiveSocket({ source: 'pictures', format: small ? 'png' : 'jpeg', ...of }, {
    state(name, detail) {
      if (socket !== mine) return;
      if (name === 'connecting') status('Asking the board...');
      if (name === 'queued') status(`You are number ${detail.position} in line${detail.wait_s ? `, about ${Math.ceil(detail.wait_s)} s` : ''}.`);
      if (name === 'live') { hush('live'); status(''); shown = -1; mark(last ? 'done' : 'drawing'); }
      if (name === 'lost') status('The connection was lost. Trying again...');
      if (name === 'busy') status('The board is busy. Trying again...');
      if (name === 'blocked') status('The board answers, but no live connection comes through. A proxy on the way may have to let WebSockets pass. Trying again...');
      if (name === 'refused') { say('live', detail.message); stop(); mark('error'); }
    },
    picture(got) { if (socket === mine) show(got, mine).catch(() => { mark('error'); }); },
    dropped() { dropped += 1; },
    confirmed() { hush('live'); },
    problem({ message }) { say('live', `The board says: ${message}`); },
  });
  socket = mine;
  mine.open();
}

/** Opens the source and the connection. */
export async function start() {
  const of = settings();
  if (!of || running()) return;
  if (!of.prompt) {
    say('live', 'First say what it should become.', { seconds: 6 });
    $('change-prompt').focus();
    return;
  }
  opening = true;
  hush('live');
  refresh();
  try {
    const opened = await openSource($('source').value, file, stop);
    if (!opening) { opened.stop(); return; }
    source = opened;
  } catch (error) {
    say('live', error.message);
    return;
  } finally {
    opening = false;
    refresh();
  }
  const size = extent(of.size);
  Object.assign($('source-frame'), size);
  frame = Object.assign(document.createElement('canvas'), size);
  incoming = []; outgoing = []; delays = [];
  seq = 0; dropped = 0; last = null;
  connect(of);
  mark('drawing');
  refresh();
  taken(performance.now());
  numbersTimer = setInterval(numbers, 500);
}

/** Stops; true if it went on. */
export function stop() {
  if (!running()) return false;
  opening = false;
  clearInterval(numbersTimer);
  source?.stop();
  socket?.close();
  source = socket = null;
  mark(last ? 'done' : 'idle');
  status('');
  refresh();
  return true;
}

/** Sends the settings that are chosen now, if it goes on. */
export function settingsChanged() {
  const of = settings();
  if (!socket || !of?.prompt) return;
  const { model: _model, size: _size, ...change } = of;
  if (Object.entries(change).every(([name, value]) => socket.first[name] === value)) return;
  socket.settings(change);
}

/** Takes a file as the source. */
export function takeFile(chosen) {
  stop();
  file = chosen;
  $('source').value = 'file';
  $('source-file').nextElementSibling.textContent = file?.name ?? 'Choose a file';
  refresh();
}

/** Puts the changed picture that is shown into the gallery. */
export async function keepCurrent() {
  if (!last) return;
  const { blob, of } = last;
  await keep({ blob, params: asParams(of, 'live'), measuredMs: null, modelledMs: null });
}

export function setup() {
  $('source-frame').width = 1;
  $('result-frame').width = 1;
  if (cameraHint()) $('source').value = 'pattern';
  $('source').addEventListener('change', () => { stop(); hush('live'); refresh(); });
  $('source-file').addEventListener('change', () => takeFile($('source-file').files[0] ?? null));
  $('start-live').addEventListener('click', () => { if (!stop()) start(); });
}
