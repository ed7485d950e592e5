// Gallery: the pictures that this browser keeps, as a grid, and one of them large.

import * as store from './store.js';
import { $, duration, el, extent, facts, fit, hush, say, sizeWords } from './ui.js';

let records = [];
let open = null; // the record that is shown large
let urls = new Map(); // id -> object URL
let actions = {};

const url = (record) => {
  if (!urls.has(record.id)) urls.set(record.id, URL.createObjectURL(record.blob));
  return urls.get(record.id);
};
const isTiny = ({ params }) => Math.max(...Object.values(extent(params.size))) < 128;

async function refresh() {
  try { records = await store.all(); } catch { say('store', 'The gallery cannot be read in this browser.'); return; }
  const there = new Set(records.map((record) => record.id));
  for (const [id, old] of urls) if (!there.has(id)) { URL.revokeObjectURL(old); urls.delete(id); }
  $('gallery-none').hidden = records.length > 0;
  $('gallery-grid').hidden = records.length === 0;
  $('gallery-grid').replaceChildren(...records.map((record) => el('li', { data: { id: record.id } },
    el('button', { type: 'button', 'aria-label': `Open: ${record.params.prompt || 'picture'}`, on: { click: () => openOne(record.id) } },
      el('img', { src: url(record), alt: '', loading: 'lazy', class: isTiny(record) ? 'tiny' : null })),
    el('p', { text: record.params.prompt || 'picture' }))));
}

/** A picture's parameters, as a sentence. */
function story({ params, made }) {
  const how = { draw: 'Drawn', live: 'Changed live from a picture', once: 'Changed from a picture' }[params.way] ?? 'Made';
  const when = new Date(made).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
  const parts = [`${how} in ${params.steps} ${params.steps === 1 ? 'step' : 'steps'}`];
  if (params.strength !== undefined) parts.push(`with ${Math.round(params.strength * 100)} % free to change`);
  if (params.guidance) parts.push(`following the words at ${params.guidance.toFixed(1)}`);
  parts.push(`with the number ${params.seed}`);
  return `${parts.join(', ')}. ${sizeWords(params.size)} pixels, ${when}.`;
}

/** Shows one picture large; the gallery is read first if it has to be. */
export async function openOne(id) {
  if (!records.some((record) => record.id === id)) await refresh();
  const record = records.find((one) => one.id === id);
  if (!record) return;
  open = record;
  const image = $('viewer-picture');
  image.src = url(record);
  image.alt = record.params.prompt || 'picture';
  fit(image.parentElement, extent(record.params.size));
  $('viewer-words').textContent = record.params.prompt || 'Without words';
  $('viewer-story').textContent = story(record);
  Object.assign($('viewer-download'), { href: url(record), download: store.fileName(record) });
  facts($('viewer-facts'), [
    ['Avoided', record.params.negative], ['Model', record.params.model], ['Steps', record.params.steps], ['Closeness', record.params.guidance], ['Number', record.params.seed],
    ['Strength', record.params.strength], ['Took', record.measuredMs ? duration(record.measuredMs) : null],
    ['On a real board', record.modelledMs ? `${duration(record.modelledMs)} (modelled)` : null], ['File', record.blob.type.replace('image/', '').toUpperCase()],
  ]);
  const at = records.indexOf(record);
  $('viewer-newer').disabled = at === 0;
  $('viewer-older').disabled = at === records.length - 1;
  if (!$('viewer').open) $('viewer').showModal();
}

function move(by) {
  const next = records[records.indexOf(open) + by];
  if (next) openOne(next.id);
}

async function removeOpen() {
  const gone = open, at = records.indexOf(gone);
  await store.remove(gone.id);
  await refresh();
  if (records.length) openOne(records[Math.min(at, records.length - 1)].id); else $('viewer').close();
  $('viewer').close();
  say('deleted', 'Deleted.', { kind: 'done', seconds: 10, action: { text: 'Undo', run: () => store.put(gone) } });
}

/** Tells that this tab is shown or not. */
export function show(yes) { if (yes) refresh(); }

/** @param {{again: (params) => void, startFrom: (record) => void, describe: (blob) => void, draw: () => void}} does  what the buttons do */
export function setup(does) {
  actions = does;
  store.onChange(() => { if (!$('panel-gallery').hidden) refresh(); });
  document.addEventListener('open-picture', ({ detail }) => openOne(detail));
  const viewer = $('viewer');
  const leave = (act) => () => { const record = open; viewer.close(); hush('deleted'); act(record); };
  $('viewer-again').addEventListener('click', leave((record) => actions.again(record.params)));
  $('viewer-start').addEventListener('click', leave((record) => actions.startFrom(record)));
  $('viewer-describe').addEventListener('click', leave((record) => actions.describe(record.blob)));
  $('viewer-delete').addEventListener('click', removeOpen);
  $('viewer-close').addEventListener('click', () => viewer.close());
  $('viewer-newer').addEventListener('click', () => move(-1));
  $('viewer-older').addEventListener('click', () => move(1));
  $('gallery-draw').addEventListener('click', () => actions.draw());
  viewer.addEventListener('click', (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowLeft') move(-1);
    if (event.key === 'ArrowRight') move(1);
    if (event.key === 'Delete') removeOpen();
  });
}
