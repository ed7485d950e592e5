// One live connection, `v1/live`: opens, waits in line, reconnects with its resume token, and sends at most one change of settings that is not
// confirmed; newer changes are gathered meanwhile, so that the newest wins.

import { accessToken, address, request } from './api.js';

const CONFIRM_MS = 3000; // newer changes wait this long for one that is not confirmed
const FRAME_HEADER = 16, PICTURE_HEADER = 24;

/** This page's clock in microseconds. */
export const nowUs = () => performance.now() * 1000;

function imageType(data) {
  if (data[0] === 0xff && data[1] === 0xd8) return 'image/jpeg';
  return data[0] === 0x89 ? 'image/png' : 'image/webp';
}

/**
 * Handlers, all optional:
 *   state(name, detail): connecting | queued {position, wait_s} | live (hello) | lost | busy | blocked | refused {message} | closed
 *   picture({blob|null, seq, generation, latencyUs, clientUs, skipped, preview})  `stale` if a newer change is confirmed
 *   dropped(seq), stats(message), problem(message), confirmed(generation, message)
 */
export class LiveSocket {
  /** @param {object} first  the fields of the start message; changes are kept in it, so that a reconnect starts with them. */
  constructor(first, on) {
    this.first = { type: 'start', ...first };
    this.on = on;
    this.generation = 0;
    this.credits = 0;
    this.unanswered = 0;
    this.ready = false;
    this.closed = false;
    this.failures = 0;
    this.changed = null; // fields that are still to be sent
    this.fatal = null; // the message of an error after which the server closes
    this.confirming = 0; // a timer while newer changes wait for one that is not confirmed
    this.awaited = false; // whether a change is not confirmed, however long ago it was sent
    this.stop = new AbortController();
  }

  /** True if the newest settings are not confirmed by the server yet. */
  get unsettled() { return Boolean(this.changed || this.awaited || !this.ready); }

  open() {
    if (this.closed) return;
    const url = address('v1/live');
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const protocols = ['rockshard.live.v1'];
    if (accessToken()) protocols.push(`rockshard.token.${accessToken()}`);
    this.tell('connecting');
    this.greeted = false;
    let socket;
    try { socket = new WebSocket(url, protocols); } catch {
      this.refuse('The access word has characters that a browser cannot send on a live connection. Whoever runs the board can choose one of letters, digits, "-" and "_".');
      return;
    }
    this.socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => { this.changed = null; socket.send(JSON.stringify(this.first)); };
    socket.onmessage = ({ data }) => {
      if (this.socket !== socket || this.closed) return;
      if (typeof data === 'string') this.text(JSON.parse(data)); else this.binary(data);
    };
    socket.onclose = ({ code, reason }) => { if (this.socket === socket && !this.closed) this.lost(code, reason); };
  }

  /** Changes settings: any of prompt, negative_prompt, seed, strength, guidance_scale, steps. */
  settings(change) {
    Object.assign(this.first, change);
    this.changed = { ...this.changed, ...change };
    this.flush();
  }

  flush() {
    if (!this.ready || this.confirming || !this.changed) return;
    this.socket.send(JSON.stringify({ type: 'settings', ...this.changed }));
    this.changed = null;
    this.awaited = true;
    this.confirming = setTimeout(() => this.goOn(), CONFIRM_MS);
  }

  confirm() {
    this.awaited = false;
    this.goOn();
  }

  goOn() {
    clearTimeout(this.confirming);
    this.confirming = 0;
    this.flush();
  }

  /** Sends a frame. @param {number} seq  u32 @param {number} clientUs  when it was taken, in microseconds of `nowUs` */
  async frame(seq, clientUs, blob) {
    const bytes = new Uint8Array(FRAME_HEADER + blob.size);
    const header = new DataView(bytes.buffer);
    header.setUint8(0, 1);
    header.setUint8(1, 1);
    header.setUint32(4, seq >>> 0);
    header.setBigUint64(8, BigInt(Math.max(0, Math.round(clientUs))));
    bytes.set(new Uint8Array(await blob.arrayBuffer()), FRAME_HEADER);
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) return false;
    this.unanswered += 1;
    this.socket.send(bytes);
    return true;
  }

  /** True if the server takes another frame now. */
  get mayFrame() { return this.ready && this.unanswered < this.credits; }

  text(message) {
    switch (message.type) {
      case 'queued': this.tell('queued', message); break;
      case 'hello':
        this.first.resume = message.resume;
        Object.assign(this, { generation: message.generation, credits: message.credits, unanswered: 0, ready: true, greeted: true, failures: 0 });
        this.tell('live', message);
        this.flush();
        break;
      case 'settings':
        this.generation = message.generation;
        this.confirm();
        this.on.confirmed?.(message.generation, message);
        break;
      case 'dropped':
        this.unanswered = Math.max(0, this.unanswered - 1);
        this.on.dropped?.(message.seq);
        break;
      case 'stats': this.on.stats?.(message); break;
      case 'error':
        if (message.fatal) { this.fatal = message.message; break; } // the server closes now
        this.on.problem?.(message);
        this.confirm();
        break;
      default: // a newer server may say more
    }
  }

  binary(buffer) {
    if (buffer.byteLength < PICTURE_HEADER) return;
    const header = new DataView(buffer);
    if (header.getUint8(0) !== 1 || header.getUint8(1) !== 2) return;
    const flags = header.getUint16(2), generation = header.getUint32(8);
    const preview = (flags & 2) !== 0;
    if (!preview) this.unanswered = Math.max(0, this.unanswered - 1);
    const bytes = new Uint8Array(buffer, PICTURE_HEADER);
    this.on.picture?.({
      blob: bytes.length ? new Blob([bytes], { type: imageType(bytes) }) : null,
      seq: header.getUint32(4), generation, latencyUs: header.getUint32(12), clientUs: Number(header.getBigUint64(16)),
      skipped: (flags & 1) !== 0, preview, stale: generation < this.generation,
    });
  }

  async lost(code, reason) {
    this.ready = false;
    clearTimeout(this.confirming);
    this.confirming = 0;
    this.awaited = false;
    const fatal = this.fatal;
    this.fatal = null;
    if (code === 1008 || (fatal && code !== 1001 && code !== 1013)) { this.refuse(fatal || reason || 'The board ended the connection.'); return; }
    this.failures += 1;
    this.tell(code === 1013 ? 'busy' : 'lost');
    try {
      await this.rest(code === 1013 ? 3000 : Math.min(8000, 250 * 2 ** this.failures));
      await request('v1/models', { signal: this.stop.signal }); // waits until the board answers, and for the access word
    } catch { if (this.closed) return; }
    if (this.failures >= 3 && !this.greeted && code !== 1013) this.tell('blocked');
    this.open();
  }

  rest(ms) {
    return new Promise((resolve, reject) => {
      setTimeout(resolve, ms);
      this.stop.signal.addEventListener('abort', reject, { once: true });
    });
  }

  refuse(message) {
    this.tell('refused', { message });
    this.close();
  }

  /** Ends the connection for good. */
  close() {
    if (this.closed) return;
    this.closed = true;
    this.ready = false;
    clearTimeout(this.confirming);
    this.stop.abort();
    this.socket?.close(1000);
    this.tell('closed');
  }

  tell(state, detail = {}) {
    this.state = state;
    this.on.state?.(state, detail);
  }
}
