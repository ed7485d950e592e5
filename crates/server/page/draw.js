// Draw: each pause in typing is drawn over the live connection, and Keep makes the full picture. The newest words win.

import { BoardError, generate } from './api.js';
import { LiveSocket } from './socket.js';
import * as store from './store.js';
import { $, duration, el, extent, facts, fit, hush, say, showBlob, sizeWords, slider, wasStopped } from './ui.js';

const PAUSE_MS = 200; // of typing, before it is drawn
const LEAVE_MS = 60_000; // without a change, before the place is given to others
const SHAPES = ['a small yellow ring on a black background', 'a large red circle at the left of a blue background', 'a large green square on a white background'];
const SCENES = ['a lighthouse in fog, early morning', 'an old bicycle against a blue wall', 'a bowl of lemons by a window'];

let models = [];
let model = null;
let socket = null;
let pausing = 0, leaving = 0;
let composing = false;
let visible = false;
let sent = ''; // the fields that are drawn or being drawn
let finished = false; // whether their picture is there
let refused = false; // whether the board did not take them
let pending = null, painting = false;
let keeping = null, posting = null;
let writeGuidance, writeSteps;

const picture = () => $('live-picture');

function mark(state, words = null) {
  picture().dataset.state = state;
  $('draw-mount').classList.toggle('busy', state === 'drawing');
  if (words !== null) $('draw-status').textContent = words;
}

/** The settings as the API has them. */
function fields() {
  return {
    model: model.id, size: $('size').value, prompt: $('prompt').value.trim(), seed: Number($('seed').value) || 0,
    guidance_scale: Number($('guidance').value), steps: Number($('steps').value), negative_prompt: model.negative_prompt ? $('avoid').value.trim() : '',
  };
}

const asParams = (of, seed = of.seed) => ({
  prompt: of.prompt, negative: of.negative_prompt, seed, steps: of.steps, guidance: of.guidance_scale, size: of.size, model: of.model, way: 'draw',
});

/** Paints the newest picture that has come; one that comes meanwhile replaces those that wait. */
async function paint(next) {
  pending = next;
  if (painting) return;
  painting = true;
  while (pending) {
    const now = pending;
    pending = null;
    try {
      fit($('draw-mount'), await showBlob(picture(), now.blob, `A picture of: ${now.prompt}`));
      $('draw-blank').hidden = true;
      picture().dataset.generation = String(now.generation);
      now.after?.();
    } catch { mark('error', 'The picture that came could not be shown.'); }
  }
  painting = false;
}

function showFacts(of, seed, times = {}) {
  $('draw-made').hidden = false;
  facts($('draw-facts'), [
    ['Words', of.prompt], ['Avoided', of.negative_prompt], ['Number', seed], ['Steps', of.steps], ['Closeness', of.guidance_scale.toFixed(1)], ['Size', sizeWords(of.size)], ['Model', of.model],
    ['Took', times.measured_ms ? duration(times.measured_ms) : null], ['On a real board', times.modelled_ms ? `${duration(times.modelled_ms)} (modelled)` : null],
  ]);
}

function leave() {
  clearTimeout(leaving);
  socket?.close();
  socket = null;
}

function stayAWhile() {
  clearTimeout(leaving);
  leaving = setTimeout(leave, LEAVE_MS);
}

function connect(of) {
  socket?.close();
  const started = { source: 'text', strength: 0.5, format: Math.max(...Object.values(extent(of.size))) < 128 ? 'png' : 'jpeg', ...of };
  const mine = new LiveSocket(started, {
    state(name, detail) {
      if (socket !== mine) return;
      const still = finished ? 'done' : 'drawing';
      if (name === 'queued') mark(still, `You are number ${detail.position} in line${detail.wait_s ? `, about ${Math.ceil(detail.wait_s)} s` : ''}.`);
      if (name === 'connecting') mark(still, 'Asking the board...');
      if (name === 'live') {
        mark(still, finished ? '' : 'Drawing...');
        hush('draw');
        if (detail.resumed && !finished) mine.settings({ prompt: mine.first.prompt }); // the picture may have been lost with the connection
      }
      if (name === 'lost') mark(still, 'The connection was lost. Trying again...');
      if (name === 'busy') mark(still, 'The board is busy. Trying again...');
      if (name === 'blocked') { leave(); post(); }
      if (name === 'refused') { socket = null; sent = ''; mark('error', ''); say('draw', detail.message); }
    },
    picture(got) {
      if (socket !== mine || got.stale || !got.blob) return;
      const prompt = mine.first.prompt;
      const whole = !got.preview && !refused && !mine.unsettled;
      paint({ ...got, prompt, after: () => {
        if (got.preview || refused || socket !== mine || mine.unsettled || got.generation < mine.generation) return;
        finished = true;
        if (!pausing) mark('done', `Drawn in ${duration(got.latencyUs / 1000)}.`);
      } });
      if (whole) { hush('draw'); showFacts(JSON.parse(sent || JSON.stringify(of)), mine.first.seed, { measured_ms: got.latencyUs / 1000 }); }
    },
    confirmed(generation, { dropped_tokens: cut }) {
      if (cut > 0) say('long', 'That is more than the model can read at once; the end was left out.', { seconds: 8 });
    },
    problem({ message }) {
      if (mine.changed) return; // newer words go out now
      refused = true;
      mark('error', '');
      say('draw', `The board says: ${message}`);
    },
  });
  socket = mine;
  mine.open();
}

/** Draws without a live connection, where something on the way does not let one through. */
async function post() {
  posting?.abort();
  const mine = posting = new AbortController();
  const of = fields();
  mark('drawing', 'Drawing...');
  try {
    const { pictures: [first], timings } = await generate({ ...of, n: 1 }, mine.signal);
    if (posting !== mine) return;
    paint({ blob: first.blob, prompt: of.prompt, generation: Number(picture().dataset.generation) + 1, after: () => { finished = true; if (!pausing) mark('done', `Drawn in ${duration(timings?.measured_ms ?? 0)}.`); } });
    showFacts(of, first.seed, timings);
  } catch (error) {
    if (!wasStopped(error)) { mark('error', ''); say('draw', error.message); }
  }
}

/** Sends what is typed and set, if it is new or `again` is true. */
function drawNow(again = false) {
  stopPause();
  if (!model || !visible) return;
  const of = fields();
  if (!of.prompt) { mark('idle', ''); return; }
  const text = JSON.stringify(of);
  if (text === sent && !again && picture().dataset.state !== 'error') {
    mark(finished ? 'done' : 'drawing');
    return;
  }
  const before = sent ? JSON.parse(sent) : {};
  sent = text;
  finished = refused = false;
  stayAWhile();
  mark('drawing', 'Drawing...');
  if (posting) { post(); return; }
  if (!socket || socket.closed || before.model !== of.model || before.size !== of.size) { connect(of); return; }
  const { model: _model, size: _size, ...changed } = of;
  socket.settings(changed);
}

function stopPause() {
  clearTimeout(pausing);
  pausing = 0;
}

/** Something was typed or set: what is shown is not that any more, and a pause draws it. */
function changed() {
  stopPause();
  if (!model) return;
  if ($('prompt').value.trim()) picture().dataset.state = 'drawing';
  if (!composing) pausing = setTimeout(drawNow, PAUSE_MS);
}

function roll() {
  const seed = new Uint32Array(1);
  crypto.getRandomValues(seed);
  $('seed').value = String(seed[0] % 1_000_000);
}

function enter() {
  const same = JSON.stringify(fields()) === sent;
  if (same && $('lock').getAttribute('aria-pressed') === 'false') roll();
  drawNow(true);
}

function addKept(record) {
  const url = URL.createObjectURL(record.blob);
  $('kept').prepend(el('li', {},
    el('button', { type: 'button', 'aria-label': `Open: ${record.params.prompt}`, on: { click: () => document.dispatchEvent(new CustomEvent('open-picture', { detail: record.id })) } },
      el('img', { src: url, alt: '', class: Math.max(...Object.values(extent(record.params.size))) < 128 ? 'tiny' : null })),
    el('a', { href: url, download: store.fileName(record), text: 'Download', 'aria-label': `Download: ${record.params.prompt}` })));
  while ($('kept').children.length > 6) {
    URL.revokeObjectURL($('kept').lastChild.querySelector('img').src);
    $('kept').lastChild.remove();
  }
}

/** Makes the full pictures and puts them into the gallery; a second press stops it. */
async function keep() {
  if (keeping) { keeping.abort(); return; }
  const of = fields();
  if (!of.prompt) {
    say('draw', 'First say what the picture should show.', { seconds: 6 });
    $('prompt').focus();
    return;
  }
  keeping = new AbortController();
  const began = performance.now(), n = Number($('count').value);
  const label = n > 1 ? `Making ${n} pictures` : 'Making the picture';
  const tick = () => { $('keep').textContent = `Stop (${Math.round((performance.now() - began) / 1000)} s)`; };
  const ticking = setInterval(tick, 1000);
  tick();
  say('keep', `${label}...`, { kind: 'wait' });
  $('keep').classList.add('working');
  try {
    const answer = await generate({ ...of, n, output_format: 'png' }, keeping.signal);
    const times = answer.timings ?? {};
    for (const one of answer.pictures) {
      const record = { blob: one.blob, params: asParams({ ...of, size: answer.size ?? of.size }, one.seed), measuredMs: times.measured_ms ?? null, modelledMs: times.modelled_ms ?? null };
      record.id = await store.put(record);
      addKept(record);
    }
    if (JSON.stringify(fields()) === JSON.stringify(of) && picture().dataset.state !== 'drawing') {
      paint({ blob: answer.pictures[0].blob, prompt: of.prompt, generation: picture().dataset.generation, after: () => mark('done') });
      showFacts(of, answer.pictures[0].seed, times);
    }
    hush('keep');
    say('kept', n > 1 ? `${n} pictures are in the gallery.` : 'Kept. It is in the gallery.', { kind: 'done', seconds: 5 });
  } catch (error) {
    hush('keep');
    if (!wasStopped(error)) say('draw', error.message);
    if (!wasStopped(error) && !(error instanceof BoardError)) console.error(error);
  } finally {
    clearInterval(ticking);
    keeping = null;
    $('keep').textContent = 'Keep';
    $('keep').classList.remove('working');
  }
}

/** Fills a slider's range for a model. */
export function ranges({ guidance_scale: usual, steps: count }, guidance, steps) {
  const scale = usual ?? 2, most = scale > 4 ? 15 : 8;
  Object.assign(guidance, { max: String(Math.max(most, scale)), min: String(Math.min(1, scale)), value: String(scale) });
  Object.assign(steps, { max: String(Math.max(12, (count ?? 4) * 2)), value: String(count ?? 4) });
}

/** Fills a list of sizes. */
export function sizes(of, select) {
  select.replaceChildren(...(of.sizes ?? []).map((size) => el('option', { value: size, text: sizeWords(size) })));
  select.disabled = (of.sizes ?? []).length < 2;
}

function takeModel(id) {
  model = models.find((one) => one.id === id) ?? models[0];
  $('model').value = model.id;
  sizes(model, $('size'));
  ranges(model, $('guidance'), $('steps'));
  writeGuidance();
  writeSteps();
  $('avoid-field').hidden = !model.negative_prompt;
  fit($('draw-mount'), extent($('size').value));
  const small = Math.max(...Object.values(extent($('size').value))) < 128;
  $('examples').replaceChildren(...(small ? SHAPES : SCENES).map((words) => el('button', { type: 'button', text: words, on: { click: () => {
    $('prompt').value = words;
    $('prompt').focus();
    drawNow(true);
  } } })));
}

/** Takes the server's models; those that draw are used. */
export function useModels(list) {
  models = list.filter((one) => one.kind === 'text-to-image');
  $('draw-form').hidden = models.length === 0;
  $('draw-none').hidden = models.length > 0;
  if (!models.length) { leave(); model = null; return; }
  $('model-field').hidden = models.length < 2;
  $('model').replaceChildren(...models.map((one) => el('option', { value: one.id, text: one.id })));
  takeModel(model?.id);
  if ($('prompt').value.trim()) changed();
}

/** Fills everything from a picture's parameters and draws it. */
export function again(params) {
  if (!model) return;
  if (params.model !== model.id) takeModel(params.model);
  $('prompt').value = params.prompt ?? '';
  $('avoid').value = params.negative ?? '';
  if (params.seed !== null && params.seed !== undefined) $('seed').value = String(params.seed);
  if (params.guidance) $('guidance').value = String(params.guidance);
  if (params.steps) $('steps').value = String(params.steps);
  if ((model.sizes ?? []).includes(params.size)) $('size').value = params.size;
  writeGuidance();
  writeSteps();
  drawNow(true);
}

/** Tells that this tab is shown or not; the live connection is only held while it is. */
export function show(yes) {
  visible = yes;
  if (!yes) { stopPause(); leave(); if (picture().dataset.state === 'drawing') { sent = ''; mark('idle', ''); } }
  else if (model && $('prompt').value.trim() && JSON.stringify(fields()) !== sent) changed();
}

/** Stops what goes on; true if something did. */
export function cancel() {
  if (!keeping) return false;
  keeping.abort();
  return true;
}

export function setup() {
  const prompt = $('prompt');
  prompt.addEventListener('compositionstart', () => { composing = true; stopPause(); });
  prompt.addEventListener('compositionend', () => { composing = false; changed(); });
  for (const id of ['prompt', 'avoid', 'seed']) $(id).addEventListener('input', changed);
  $('draw-form').addEventListener('keydown', (event) => {
    const plain = event.key === 'Enter' && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
    if (plain && ['prompt', 'avoid', 'seed'].includes(event.target.id)) { event.preventDefault(); enter(); }
  });
  $('draw-form').addEventListener('submit', (event) => event.preventDefault());
  writeGuidance = slider($('guidance'), $('guidance-out'), (value) => value.toFixed(1), changed);
  writeSteps = slider($('steps'), $('steps-out'), (value) => String(value), changed);
  $('size').addEventListener('change', () => { if (picture().hidden) fit($('draw-mount'), extent($('size').value)); changed(); });
  $('model').addEventListener('change', () => { takeModel($('model').value); changed(); });
  $('dice').addEventListener('click', () => { roll(); drawNow(); });
  $('lock').addEventListener('click', () => {
    const held = $('lock').getAttribute('aria-pressed') !== 'true';
    $('lock').setAttribute('aria-pressed', String(held));
    $('dice').disabled = held;
    $('prompt-hint').textContent = held ? 'Each pause is drawn. The number is held.' : 'Each pause is drawn. Enter draws another one.';
  });
  $('keep').addEventListener('click', keep);
}
