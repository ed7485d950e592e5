// The still way of changing a picture: one picture, painted over with a brush where it should change, through `POST v1/images/edits`.

import { edit } from './api.js';
import { asParams, keep, settings, way } from './change.js';
import { takeFile } from './live.js';
import { $, canvasBlob, drawCropped, duration, extent, fit, hush, say, showBlob, slider, takesDrops, wasStopped } from './ui.js';

const BRUSH_EXTENT = 512; // pixels of the longer side of what is painted, at least

let original = null; // the bitmap as it was given
let painted = false, erasing = false;
let point = null; // where the brush is, in pixels of its canvas
let working = null;
let result = null; // {blob, of, timings}

const brush = () => $('brush');
const brushWidth = () => (Number($('brush-size').value) / 100) * Math.max(brush().width, brush().height);

/** Brings buttons in step with what there is. */
export function refresh() {
  if (way() !== 'once') return;
  $('once-blank').hidden = Boolean(original);
  $('change-once').textContent = working ? 'Stop' : 'Change it';
  $('keep-change').disabled = !result;
  $('go-on').disabled = !result;
  $('result-blank').hidden = Boolean(result);
  brush().hidden = !original;
  $('once-result').hidden = !result;
}

function paintOriginal() {
  if (!original) return;
  drawCropped($('once-picture').getContext('2d'), original, original.width, original.height);
  clear();
}

/** Gives the canvases the shape of what the model makes. Pixels. */
export function reshape(size) {
  Object.assign($('once-picture'), size);
  const scale = Math.max(1, BRUSH_EXTENT / Math.max(size.width, size.height));
  Object.assign(brush(), { width: Math.round(size.width * scale), height: Math.round(size.height * scale) });
  point = { x: brush().width / 2, y: brush().height / 2 };
  painted = false;
  paintOriginal();
}

/** Takes a picture, a blob, as the one to change. */
export async function take(blob) {
  try {
    original = await createImageBitmap(blob);
  } catch {
    say('file', 'That picture cannot be read here. PNG, JPEG and WebP pictures can.', { seconds: 8 });
    return;
  }
  hush('file');
  result = null;
  paintOriginal();
  refresh();
}

function clear() {
  brush().getContext('2d').clearRect(0, 0, brush().width, brush().height);
  painted = false;
}

function stroke(from, to) {
  const context = brush().getContext('2d');
  context.globalCompositeOperation = erasing ? 'destination-out' : 'source-over';
  context.strokeStyle = '#ff7a3d';
  context.lineCap = context.lineJoin = 'round';
  context.lineWidth = brushWidth();
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(to.x, to.y + 0.01); // a dot has to have a length
  context.stroke();
  painted ||= !erasing;
}

function placeOf(event) {
  const box = brush().getBoundingClientRect();
  return { x: ((event.clientX - box.left) / box.width) * brush().width, y: ((event.clientY - box.top) / box.height) * brush().height };
}

/** The mask: opaque where the picture stays, clear where it changes; null if nothing is painted. */
async function mask(size) {
  if (!painted) return null;
  const canvas = Object.assign(document.createElement('canvas'), size);
  const context = canvas.getContext('2d');
  context.drawImage(brush(), 0, 0, size.width, size.height);
  const pixels = context.getImageData(0, 0, size.width, size.height);
  let some = false;
  for (let at = 3; at < pixels.data.length; at += 4) {
    const changes = pixels.data[at] > 100;
    some ||= changes;
    pixels.data[at - 3] = pixels.data[at - 2] = pixels.data[at - 1] = 0;
    pixels.data[at] = changes ? 0 : 255;
  }
  context.putImageData(pixels, 0, 0);
  return some ? canvasBlob(canvas) : null;
}

/** Changes the picture; a second call stops it. */
export async function change() {
  if (cancel()) return;
  const of = settings();
  if (!of) return;
  if (!original) { say('once', 'First choose a picture to change.', { seconds: 6 }); $('once-choose').focus(); return; }
  if (!of.prompt) { say('once', 'First say what it should become.', { seconds: 6 }); $('change-prompt').focus(); return; }
  hush('once');
  const mine = working = new AbortController();
  const began = performance.now();
  const tick = () => { $('change-status').textContent = `Changing... ${Math.round((performance.now() - began) / 1000)} s`; };
  const ticking = setInterval(tick, 1000);
  tick();
  refresh();
  $('result-mount').classList.add('busy');
  try {
    const { model, size, prompt, seed, strength, guidance_scale, steps, negative_prompt } = of;
    const answer = await edit({
      model, prompt, image: await canvasBlob($('once-picture')), mask: await mask(extent(size)), n: 1, size, seed, steps, guidance_scale, strength, negative_prompt: negative_prompt || null,
    }, mine.signal);
    result = { blob: answer.pictures[0].blob, of: { ...of, seed: answer.pictures[0].seed }, timings: answer.timings ?? {} };
    fit($('result-mount'), await showBlob($('once-result'), result.blob, `The changed picture: ${prompt}`));
    const { measured_ms: measured, modelled_ms: modelled } = result.timings;
    $('change-status').textContent = measured ? `Changed in ${duration(measured)}${modelled ? `; on a real board ${duration(modelled)} (modelled)` : ''}.` : 'Changed.';
  } catch (error) {
    $('change-status').textContent = '';
    if (!wasStopped(error)) say('once', error.message);
  } finally {
    clearInterval(ticking);
    working = null;
    $('result-mount').classList.remove('busy');
    refresh();
  }
}

/** Stops what goes on; true if something did. */
export function cancel() {
  if (!working) return false;
  working.abort();
  return true;
}

/** Puts the result into the gallery. */
export async function keepResult() {
  if (!result) return;
  const { blob, of, timings } = result;
  await keep({ blob, params: asParams(of, 'once'), measuredMs: timings.measured_ms ?? null, modelledMs: timings.modelled_ms ?? null });
}

function keys(event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!steps && event.key !== ' ') return;
  event.preventDefault();
  const by = brush().width / 32, from = point;
  if (steps) point = { x: Math.min(brush().width, Math.max(0, point.x + steps[0] * by)), y: Math.min(brush().height, Math.max(0, point.y + steps[1] * by)) };
  if (event.key === ' ' || event.shiftKey) stroke(from, point);
  showPoint();
}

function showPoint() {
  const share = (value, whole) => `${(value / whole) * 100}%`;
  $('input-mount').style.setProperty('--x', share(point.x, brush().width));
  $('input-mount').style.setProperty('--y', share(point.y, brush().height));
  $('input-mount').style.setProperty('--wide', share(brushWidth(), brush().width));
}

export function setup() {
  const canvas = brush();
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    point = placeOf(event);
    stroke(point, point);
    showPoint();
  });
  canvas.addEventListener('pointermove', (event) => {
    const to = placeOf(event);
    if (event.buttons & 1 && canvas.hasPointerCapture(event.pointerId)) stroke(point, to);
    point = to;
    showPoint();
  });
  canvas.addEventListener('keydown', keys);
  slider($('brush-size'), null, (value) => `${value} percent of the picture`, showPoint);
  $('brush-clear').addEventListener('click', clear);
  $('erase').addEventListener('click', () => {
    erasing = !erasing;
    $('erase').setAttribute('aria-pressed', String(erasing));
  });
  for (const id of ['once-choose', 'once-other']) $(id).addEventListener('click', () => $('once-file').click());
  $('once-file').addEventListener('change', () => { if ($('once-file').files[0]) take($('once-file').files[0]); $('once-file').value = ''; });
  takesDrops($('input-mount'), (file) => { if (way() === 'once') take(file); else takeFile(file); });
  $('change-once').addEventListener('click', change);
  $('go-on').addEventListener('click', () => { if (result) take(result.blob); });
  point = { x: 0, y: 0 };
}
