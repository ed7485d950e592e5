// The gallery's pictures: IndexedDB of this browser, or memory where it keeps nothing. A record is
// {id, blob, params: {prompt, negative, seed, steps, guidance, strength, size, model, way}, made: ms since 1970, measuredMs, modelledMs}.

import { say } from './ui.js';

const listeners = new Set();
let opening = null;
let memory = null; // a Map in place of the database

function openStore() {
  opening ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open('rockshard', 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore('pictures', { keyPath: 'id', autoIncrement: true });
    asked.onsuccess = () => {
      asked.result.onversionchange = () => { asked.result.close(); opening = null; };
      resolve(asked.result);
    };
    asked.onerror = () => reject(asked.error);
    asked.onblocked = () => reject(new Error('blocked'));
  });
  return opening;
}

async function inStore(mode, act) {
  if (memory) return act(null);
  let base;
  try { base = await openStore(); } catch {
    memory = new Map();
    say('store', 'This browser keeps no pictures here (a private window?). Download what you want to have tomorrow.', { seconds: 20 });
    return act(null);
  }
  return new Promise((resolve, reject) => {
    const deal = base.transaction('pictures', mode);
    const asked = act(deal.objectStore('pictures'));
    deal.oncomplete = () => resolve(asked.result);
    deal.onerror = deal.onabort = () => reject(deal.error);
  });
}

const tell = (change) => listeners.forEach((listener) => listener(change));

/** Calls `listener` after each change. */
export const onChange = (listener) => listeners.add(listener);

/** Puts a picture into the gallery; with an id, back to where it was. Resolves to its id. */
export async function put(record) {
  const kept = { made: Date.now(), ...record };
  try {
    const id = await inStore('readwrite', (store) => {
      if (store) return store.put(kept);
      kept.id ??= Math.max(0, ...memory.keys()) + 1;
      memory.set(kept.id, kept);
      return kept.id;
    });
    tell({ added: id });
    return id;
  } catch (error) {
    const full = error?.name === 'QuotaExceededError';
    say('store', full ? 'This browser has no room for more pictures. Delete some in the gallery.' : 'The picture could not be put into the gallery. Download it instead.');
    throw error;
  }
}

/** All records, the newest first. */
export async function all() {
  const records = await inStore('readonly', (store) => (store ? store.getAll() : [...memory.values()]));
  return [...records].sort((one, other) => other.made - one.made || other.id - one.id);
}

/** Takes a picture out of the gallery. */
export async function remove(id) {
  await inStore('readwrite', (store) => (store ? store.delete(id) : memory.delete(id)));
  tell({ removed: id });
}

/** What a picture's file is called when it is downloaded. */
export function fileName({ params, blob }) {
  const words = (params.prompt || 'picture').toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').slice(0, 60) || 'picture';
  const end = { 'image/jpeg': 'jpg', 'image/webp': 'webp' }[blob.type] ?? 'png';
  return `${words}${params.seed === null || params.seed === undefined ? '' : `-${params.seed}`}.${end}`;
}
