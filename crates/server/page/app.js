// The page: its tabs and keys, the server's models, and what goes from one tab to another.

import { models, takeToken } from './api.js';
import * as change from './change.js';
import * as cores from './cores.js';
import * as describe from './describe.js';
import * as draw from './draw.js';
import * as gallery from './gallery.js';
import { $, el, hush, hushNewest, say, wasStopped } from './ui.js';

const TABS = { draw, change, describe, gallery, board: cores };
const NAMES = Object.keys(TABS);
let current = null;

/** Shows a tab; `focus` puts the keyboard on its heading button. */
function go(name, { focus = false } = {}) {
  if (!NAMES.includes(name)) return;
  if (name !== current) {
    const before = current;
    current = name;
    for (const each of NAMES) {
      const tab = $(`tab-${each}`), chosen = each === name;
      tab.setAttribute('aria-selected', String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      $(`panel-${each}`).hidden = !chosen;
    }
    if (before) TABS[before].show?.(false);
    TABS[name].show?.(true);
    history.replaceState(null, '', `${location.pathname}${location.search}#${name}`);
    scrollTo(0, 0);
  }
  if (focus) $(`tab-${name}`).focus();
}

const typing = (target) => target.closest?.('textarea, select, input:not([type="range"]):not([type="radio"]):not([type="file"])') !== null;

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector('dialog[open]')) return;
  if (event.key === 'Escape') {
    if (hushNewest() || TABS[current].cancel?.()) event.preventDefault();
  } else if (/^[1-5]$/.test(event.key) && !typing(event.target)) {
    event.preventDefault();
    go(NAMES[Number(event.key) - 1], { focus: true });
  }
}

function tabKeys(event) {
  const at = NAMES.indexOf(current);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: NAMES.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  go(NAMES[(to + NAMES.length) % NAMES.length], { focus: true });
}

function pasted(event) {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith('image/'));
  if (!file || !TABS[current].paste) return;
  event.preventDefault();
  TABS[current].paste(file);
}

function none(box, title, words) {
  box.replaceChildren(el('h2', { text: title }), el('p', { text: words }));
}

/** Asks the board what it can do, until it answers, and tells the tabs. */
async function begin() {
  for (;;) {
    try {
      const list = await models();
      hush('models');
      none($('draw-none'), 'No model that draws', 'The server was started without a pack that makes pictures from words. Start it again with one, and this page can draw.');
      none($('change-none'), 'No model that changes pictures', list.some((one) => one.kind === 'text-to-image')
        ? 'The model of this server makes pictures from words only: its pack has nothing that reads pictures (a VAE encoder). Start the server with a pack that has.'
        : 'The server was started without a pack that makes pictures. Start it again with one, and pictures can be changed here.');
      none($('describe-none'), 'No model that describes', 'The server was started without a pack that answers questions about pictures (a vision-language model). Start it again with one.');
      for (const tab of [draw, change, describe]) tab.useModels(list);
      const modelled = list.some((one) => one.modelled);
      $('truth').hidden = !modelled;
      $('truth').textContent = 'simulated board';
      document.body.dataset.ready = 'true';
      return;
    } catch (error) {
      if (!wasStopped(error)) say('models', `${error.message} Trying again...`, { kind: 'wait' });
      await new Promise((resolve) => { setTimeout(resolve, 3000); });
    }
  }
}

const hash = takeToken();
for (const [name, tab] of Object.entries(TABS)) {
  $(`tab-${name}`).addEventListener('click', () => go(name));
  if (name !== 'gallery') tab.setup();
}
gallery.setup({
  again: (params) => { go('draw'); draw.again(params); },
  startFrom: ({ blob, params }) => { go('change'); change.startFrom(blob, params); },
  describe: (blob) => { go('describe'); describe.take(blob); $('question').focus(); },
  draw: () => { go('draw'); $('prompt').focus(); },
});
document.querySelector('[role="tablist"]').addEventListener('keydown', tabKeys);
document.addEventListener('keydown', keys);
document.addEventListener('paste', pasted);
document.addEventListener('go', ({ detail }) => go(detail, { focus: true }));
addEventListener('hashchange', () => go(takeToken()));
for (const type of ['dragover', 'drop']) addEventListener(type, (event) => event.preventDefault()); // a picture dropped beside its place does not leave the page
go(NAMES.includes(hash) ? hash : 'draw');
begin().then(() => { if (current === 'draw' && matchMedia('(pointer: fine)').matches) $('prompt').focus(); });
