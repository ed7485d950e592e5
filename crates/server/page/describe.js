// Describe: a picture and a question; the words of the answer are shown as they come.

import { chat } from './api.js';
import { $, canvasBlob, dataUrl, duration, el, extent, fit, hush, say, showBlob, takesDrops, wasStopped } from './ui.js';

const LONGEST_SIDE = 1024; // pixels; a larger picture is made smaller before it is sent

let model = null;
let picture = null; // the blob
let working = null;

function refresh() {
  $('ask').textContent = working ? 'Stop' : 'Ask';
  $('describe-blank').hidden = Boolean(picture);
  $('answer').setAttribute('aria-busy', String(Boolean(working)));
}

/** The picture as a data URL that is small enough to send. */
async function asUrl(blob) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && ['image/png', 'image/jpeg'].includes(blob.type) && blob.size < 2_000_000) return dataUrl(blob);
  const canvas = Object.assign(document.createElement('canvas'), { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
  canvas.getContext('2d').drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return dataUrl(await canvasBlob(canvas, Math.max(canvas.width, canvas.height) < 512 ? 'image/png' : 'image/jpeg', 0.92));
}

/** Takes a picture to ask about. */
export async function take(blob) {
  try {
    fit($('describe-mount'), await showBlob($('describe-picture'), blob, 'The picture to describe'));
  } catch {
    say('file', 'That picture cannot be read here. PNG, JPEG and WebP pictures can.', { seconds: 8 });
    return;
  }
  hush('file');
  cancel();
  picture = blob;
  $('answer').textContent = '';
  $('answer').dataset.state = 'idle';
  $('describe-status').textContent = '';
  $('answers-before').replaceChildren();
  refresh();
}

/** A picture was pasted while this tab is shown. */
export const paste = take;

function putAside() {
  const answer = $('answer');
  if (!answer.textContent) return;
  $('answers-before').prepend(el('li', {}, el('b', { text: answer.dataset.question }), el('p', { text: answer.textContent })));
}

async function ask() {
  if (cancel() || !model) return;
  if (!picture) { say('describe', 'First choose a picture.', { seconds: 6 }); $('describe-file').focus(); return; }
  hush('describe');
  const question = $('question').value.trim() || $('question').placeholder;
  const mine = working = new AbortController();
  const answer = $('answer'), began = performance.now();
  putAside();
  answer.textContent = '';
  answer.dataset.question = question;
  answer.dataset.state = 'asking';
  $('describe-status').textContent = 'Looking at the picture...';
  refresh();
  try {
    const ended = await chat({ model: model.id, question, picture: await asUrl(picture), tokens: Number($('answer-length').value) }, (words) => {
      if (working !== mine) return;
      answer.textContent = (answer.textContent + words).replace(/^\s+/, '');
      answer.dataset.state = 'streaming';
      $('describe-status').textContent = '';
    }, mine.signal);
    answer.dataset.state = 'done';
    const took = `Answered in ${duration(performance.now() - began)}.`;
    $('describe-status').textContent = ended === 'length' ? `${took} The answer was cut here; a longer one can be chosen above.` : took;
  } catch (error) {
    if (picture && working === mine) answer.dataset.state = wasStopped(error) ? 'done' : 'error';
    $('describe-status').textContent = wasStopped(error) ? 'Stopped.' : '';
    if (!wasStopped(error)) say('describe', error.name === 'TypeError' ? 'The answer broke off. Ask again.' : error.message);
  } finally {
    if (working === mine) working = null;
    refresh();
  }
}

/** Stops what goes on; true if something did. */
export function cancel() {
  if (!working) return false;
  working.abort();
  return true;
}

/** Takes the server's models; the first that describes pictures is used. */
export function useModels(list) {
  model = list.find((one) => one.kind === 'vision-language') ?? null;
  $('describe-form').hidden = !model;
  $('describe-none').hidden = Boolean(model);
}

export function show() { refresh(); }

export function setup() {
  const form = $('describe-form');
  form.addEventListener('submit', (event) => event.preventDefault());
  $('question').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!working) ask();
  });
  $('ask').addEventListener('click', ask);
  $('describe-file').addEventListener('change', () => { if ($('describe-file').files[0]) take($('describe-file').files[0]); $('describe-file').value = ''; });
  $('describe-gallery').addEventListener('click', () => document.dispatchEvent(new CustomEvent('go', { detail: 'gallery' })));
  takesDrops($('describe-mount'), take);
  fit($('describe-mount'), extent('512x512'));
}
