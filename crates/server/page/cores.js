// Board: what the cores do, asked every half second while it is shown. Times on the timeline are those of the server's clock, measured on its machine.

import { cores as ask } from './api.js';
import { $, bytes, duration, el, facts, wasStopped } from './ui.js';

const EVERY_MS = 500;
const SPAN_US = 4_000_000; // what the timeline shows
const BEHIND_US = 700_000; // how far it is behind the server's clock, so that pieces are known before they come into sight
const HUES = 6; // colours of the style sheet, --hue-0 and so on

let visible = false;
let stop = null;
let pieces = new Map(); // "core start" -> what ran
let ahead = null; // microseconds that the server's clock is ahead of this page's, smoothed
let hues = new Map(); // model -> number of its colour
let rows = 0, frame = 0, coreIds = [];
const calm = matchMedia('(prefers-reduced-motion: reduce)');

function hue(model) {
  if (!hues.has(model)) {
    hues.set(model, hues.size % HUES);
    $('legend').append(el('li', { text: plain(model), data: { hue: hues.get(model) } }));
  }
  return hues.get(model);
}

/** What a model of a pack is for, in words. */
function plain(model) {
  const names = { text_encoder: 'reading the words', unet: 'drawing', vae_decoder: 'making pixels', vae_encoder: 'reading the picture', vision_encoder: 'looking', decoder: 'finding words' };
  return names[model] ? `${names[model]} (${model})` : model;
}

function coreRow({ core }) {
  return el('li', { data: { core } },
    el('span', { class: 'core-name', text: `Core ${core}` }),
    el('span', { class: 'meter', role: 'meter', 'aria-label': `Core ${core} busy`, 'aria-valuemin': '0', 'aria-valuemax': '100' }, el('span', { class: 'meter-fill' })),
    el('b', { class: 'core-busy' }), el('span', { class: 'core-piece' }));
}

function showCores(list) {
  if (list.length !== rows || list.some(({ core }, at) => core !== coreIds[at])) {
    $('cores').replaceChildren(...list.map(coreRow));
    rows = list.length;
    coreIds = list.map(({ core }) => core);
  }
  for (const [at, { busy, model, shard, runs }] of list.entries()) {
    const row = $('cores').children[at];
    const share = Math.round(Math.min(1, Math.max(0, busy)) * 100);
    row.querySelector('.meter').setAttribute('aria-valuenow', String(share));
    row.querySelector('.meter-fill').style.width = `${share}%`;
    row.querySelector('.core-busy').textContent = `${share} %`;
    const piece = model ? `${model} \u00b7 ${shard}` : '';
    row.querySelector('.core-piece').textContent = share > 0 ? piece : piece ? `idle; last ${piece}` : 'idle'; // what the server names is what ran last
    row.querySelector('.core-piece').title = `${runs ?? 0} pieces so far`;
    row.dataset.state = share > 0 ? 'running' : 'idle';
  }
}

function showTruth({ modelled, device, now_us: now, recent = [] }) {
  const since = recent.reduce((least, one) => Math.min(least, one.start_us), now);
  const measured = recent.reduce((sum, one) => sum + one.end_us - one.start_us, 0);
  const model = recent.reduce((sum, one) => sum + (one.modelled_us ?? 0), 0);
  const truth = $('board-truth');
  truth.dataset.modelled = String(Boolean(modelled));
  truth.replaceChildren(el('b', { text: modelled ? 'A simulated board. ' : 'Measured. ' }), modelled
    ? 'There is no RK3588 here. What runs where is measured on this computer; how long a real board takes is modelled.'
    : device === 'cpu' ? 'The pieces run on the processor of this computer, not on an NPU.' : 'These are the three cores of this board.');
  if (modelled && model > 0) truth.append(el('span', { class: 'modelled', text: `The work of the last ${duration((now - since) / 1000)}: ${duration(measured / 1000)} of core time here, ${duration(model / 1000)} on a real board (modelled).` }));
}

function take(state) {
  const difference = state.now_us - performance.now() * 1000;
  ahead = ahead === null || Math.abs(difference - ahead) > 400_000 ? difference : ahead + 0.15 * (difference - ahead);
  showCores(state.cores ?? []);
  showTruth(state);
  for (const one of state.recent ?? []) pieces.set(`${one.core} ${one.start_us}`, one);
  for (const [key, one] of pieces) if (one.end_us < state.now_us - SPAN_US - BEHIND_US - 500_000 || one.start_us > state.now_us + 1e6) pieces.delete(key);
  for (const one of pieces.values()) hue(one.model);
  $('jobs-running').textContent = state.jobs?.running ?? 0;
  $('jobs-waiting').textContent = state.jobs?.waiting ?? 0;
  $('live-active').textContent = `${state.live?.active ?? 0}${state.live?.waiting ? ` and ${state.live.waiting} in line` : ''}`;
  const { resident_bytes: resident, limit_bytes: limit } = state.memory ?? {};
  $('memory').textContent = resident === undefined || resident === null ? '-' : `${bytes(resident)}${limit ? ` of ${bytes(limit)}` : ''}`;
  facts($('packs'), (state.packs ?? []).map(({ id, loaded }) => [id, loaded ? 'in memory' : 'read when it is needed']));
  $('board-how').textContent = 'A model is cut into pieces, and each piece runs on one core. A bar is the share of time in which its core worked. '
    + `A coloured stretch of the timeline is one piece at work. ${hues.size ? `Seen so far: ${[...hues.keys()].join(', ')}.` : ''}`;
  $('timeline').setAttribute('aria-label', `What each core did in the last seconds: ${(state.cores ?? []).map(({ core, busy }) => `core ${core} ${Math.round(busy * 100)} percent busy`).join(', ')}`);
  if (calm.matches) paint();
}

function paint() {
  const canvas = $('timeline'), box = canvas.getBoundingClientRect(), scale = Math.min(3, devicePixelRatio || 1);
  const width = Math.round(box.width * scale), height = Math.round(box.height * scale);
  if (!width) return;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d'), style = getComputedStyle(canvas);
  const colours = Array.from({ length: HUES }, (_, at) => style.getPropertyValue(`--hue-${at}`).trim());
  context.clearRect(0, 0, width, height);
  const count = Math.max(rows, 3), lane = height / count, gap = Math.round(4 * scale);
  context.fillStyle = style.getPropertyValue('--lane').trim();
  for (let at = 0; at < count; at += 1) { context.beginPath(); context.roundRect(0, at * lane + gap, width, lane - 2 * gap, 4 * scale); context.fill(); }
  if (ahead === null) return;
  const end = performance.now() * 1000 + ahead - BEHIND_US;
  const x = (us) => ((us - end + SPAN_US) / SPAN_US) * width;
  context.font = `${11 * scale}px system-ui, sans-serif`;
  context.textBaseline = 'middle';
  const drawn = []; // of each core, the column of the last hairline: more would fall on it
  for (const one of pieces.values()) {
    const left = x(one.start_us), right = Math.min(x(one.end_us), width);
    const at = coreIds.indexOf(one.core);
    if (right < 0 || left > width || at < 0) continue;
    const top = at * lane + gap, tall = lane - 2 * gap, wide = Math.max(scale, right - left - (right - left > 4 * scale ? scale : 0));
    if (wide <= scale && drawn[at] === Math.floor(left)) continue;
    drawn[at] = Math.floor(left);
    context.fillStyle = colours[hue(one.model)];
    context.fillRect(left, top, wide, tall);
    const words = one.shard;
    const from = Math.max(left, 0);
    if (wide > 40 * scale && context.measureText(words).width < left + wide - from - 8 * scale) {
      context.fillStyle = style.getPropertyValue('--on-hue').trim();
      context.fillText(words, from + 5 * scale, top + tall / 2);
    }
  }
}

function animate() {
  if (!visible || calm.matches) return;
  paint();
  frame = requestAnimationFrame(animate);
}

async function poll() {
  const mine = stop = new AbortController();
  while (!mine.signal.aborted) {
    try { take(await ask(mine.signal)); } catch (error) {
      if (!wasStopped(error)) $('board-truth').textContent = `The board does not say what its cores do: ${error.message}`;
    }
    await new Promise((resolve) => { setTimeout(resolve, EVERY_MS); });
  }
}

function update() {
  const should = visible && !document.hidden;
  if (should && !stop) {
    poll();
    cancelAnimationFrame(frame);
    if (calm.matches) paint(); else animate();
  } else if (!should && stop) {
    stop.abort();
    stop = null;
    cancelAnimationFrame(frame);
  }
}

/** Tells that this tab is shown or not; the board is only asked while it is. */
export function show(yes) {
  visible = yes;
  update();
}

export function setup() {
  document.addEventListener('visibilitychange', update);
}
