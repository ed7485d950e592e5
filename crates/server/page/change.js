// Change a picture: what its two ways, live and one picture, have in common. `live.js` and `once.js` ask here for the settings.

import { ranges, sizes } from './draw.js';
import * as live from './live.js';
import * as once from './once.js';
import * as store from './store.js';
import { $, extent, fit, say, slider } from './ui.js';

let model = null;
let composing = false, pausing = 0;
let writers = [];

/** 'live' or 'once'. */
export const way = () => $('change-form').dataset.way;

/** The settings as the API has them; null without a model. */
export function settings() {
  if (!model) return null;
  return {
    model: model.id, size: $('change-size').value, prompt: $('change-prompt').value.trim(), seed: Number($('change-seed').value) || 0,
    strength: Number($('strength').value), guidance_scale: Number($('change-guidance').value), steps: Number($('change-steps').value),
    negative_prompt: model.negative_prompt ? $('change-avoid').value.trim() : '',
  };
}

/** What the gallery notes about a picture made with these settings. */
export const asParams = (of, made) => ({
  prompt: of.prompt, negative: of.negative_prompt, seed: of.seed, steps: of.steps, guidance: of.guidance_scale, strength: of.strength, size: of.size, model: of.model, way: made,
});

/** Puts a picture into the gallery and says so. */
export async function keep(record) {
  try {
    await store.put(record);
    say('kept', 'Kept. It is in the gallery.', { kind: 'done', seconds: 5 });
  } catch { /* said by the gallery */ }
}

function setWay(name) {
  $('change-form').dataset.way = name;
  $(`way-${name}`).checked = true;
  if (name === 'once') live.stop();
  $('change-status').textContent = '';
  once.refresh();
  live.refresh();
}

function changed() {
  clearTimeout(pausing);
  if (!composing) pausing = setTimeout(live.settingsChanged, 200);
}

function reshape() {
  const size = extent($('change-size').value);
  fit($('input-mount'), size);
  fit($('result-mount'), size);
  live.stop();
  once.reshape(size);
}

/** Takes the server's models; the first that can change pictures is used. */
export function useModels(list) {
  const drawing = list.filter((one) => one.kind === 'text-to-image');
  model = drawing.find((one) => one.edits) ?? null;
  $('change-form').hidden = !model;
  $('change-none').hidden = Boolean(model);
  if (!model) { live.stop(); return; }
  sizes(model, $('change-size'));
  ranges(model, $('change-guidance'), $('change-steps'));
  writers.forEach((write) => write());
  $('change-avoid-field').hidden = !model.negative_prompt;
  reshape();
}

/** Takes a picture as what is to be changed. */
export function startFrom(blob, params = null) {
  if (!model) return;
  setWay('once');
  if (params?.prompt && !$('change-prompt').value) $('change-prompt').value = params.prompt;
  once.take(blob);
}

/** A picture was pasted while this tab is shown. */
export const paste = (blob) => startFrom(blob);

/** Stops what goes on; true if something did. */
export const cancel = () => once.cancel() || live.stop();

/** Tells that this tab is shown or not; live goes on behind other tabs. */
export function show() { live.refresh(); }

export function setup() {
  const form = $('change-form');
  form.addEventListener('submit', (event) => event.preventDefault());
  for (const radio of [$('way-live'), $('way-once')]) radio.addEventListener('change', () => setWay(radio.value));
  for (const id of ['change-prompt', 'change-avoid', 'change-seed']) $(id).addEventListener('input', changed);
  form.addEventListener('compositionstart', () => { composing = true; clearTimeout(pausing); });
  form.addEventListener('compositionend', () => { composing = false; changed(); });
  form.addEventListener('keydown', (event) => {
    const plain = event.key === 'Enter' && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
    if (!plain || !['change-prompt', 'change-avoid', 'change-seed'].includes(event.target.id)) return;
    event.preventDefault();
    clearTimeout(pausing);
    if (way() === 'once') once.change(); else if (!live.running()) live.start(); else live.settingsChanged();
  });
  writers = [
    slider($('change-guidance'), $('change-guidance-out'), (value) => value.toFixed(1), changed),
    slider($('change-steps'), $('change-steps-out'), (value) => String(value), changed),
    slider($('strength'), null, (value) => `${Math.round(value * 100)} percent`, changed),
  ];
  $('change-size').addEventListener('change', reshape);
  $('keep-change').addEventListener('click', () => (way() === 'once' ? once.keepResult() : live.keepCurrent()));
  live.setup();
  once.setup();
  setWay('live');
}
