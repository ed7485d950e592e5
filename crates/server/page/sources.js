// Where live pictures come from. A source is {picture, width, height, each(callback), stop(), still}: `each` calls back once with the time in
// milliseconds (of performance.now) at which the next picture was taken; `still` is true where all pictures are the same.

/** An error with words for a person. */
export class SourceError extends Error {}

/** Why the webcam and the screen cannot be had here, in words, or null if they can. */
export function cameraHint() {
  if (navigator.mediaDevices?.getUserMedia) return null;
  return 'Browsers hand out the webcam and the screen only to pages that are opened by https, or from the same machine as localhost. '
    + 'Open this page by https, or choose a file or the test pattern, which work anyway.';
}

const REFUSED = {
  NotAllowedError: 'The browser did not let this page have it. Allow it beside the address of the page, or choose another source.',
  NotFoundError: 'No webcam was found. Plug one in, or choose another source.',
  NotReadableError: 'The webcam is in use by another program. Close that, or choose another source.',
  OverconstrainedError: 'The webcam has no picture of this kind. Choose another source.',
};

function eachFrame(video) {
  let timer = 0, handle = 0, stopped = false;
  return {
    each(callback) {
      if (stopped) return;
      if (video.requestVideoFrameCallback) {
        handle = video.requestVideoFrameCallback((now, { captureTime }) => {
          const near = captureTime > 0 && captureTime <= now && now - captureTime < 1000;
          callback(near ? captureTime : now);
        });
      } else {
        timer = setTimeout(() => callback(performance.now()), 40);
      }
    },
    halt() {
      stopped = true;
      clearTimeout(timer);
      if (handle) video.cancelVideoFrameCallback(handle);
    },
  };
}

async function fromVideo(video, onEnd, release) {
  video.muted = true;
  video.playsInline = true;
  await video.play();
  if (!video.videoWidth) await new Promise((resolve) => { video.addEventListener('resize', resolve, { once: true }); });
  const frames = eachFrame(video);
  return {
    picture: video, still: false, each: frames.each,
    get width() { return video.videoWidth; },
    get height() { return video.videoHeight; },
    stop() { frames.halt(); video.pause(); release(); },
  };
}

async function fromStream(stream, onEnd) {
  const video = document.createElement('video');
  video.srcObject = stream;
  stream.getVideoTracks()[0].addEventListener('ended', onEnd);
  return fromVideo(video, onEnd, () => { stream.getTracks().forEach((track) => track.stop()); video.srcObject = null; });
}

function timed(picture, width, height, every, paint, still) {
  let timer = 0, stopped = false;
  return {
    picture, width, height, still,
    each(callback) { if (!stopped) timer = setTimeout(() => { const now = performance.now(); paint?.(now); callback(now); }, every); },
    stop() { stopped = true; clearTimeout(timer); picture.close?.(); },
  };
}

/** A shape that wanders over a coloured ground: 15 pictures a second. */
function pattern() {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 512;
  const context = canvas.getContext('2d');
  const grounds = ['#1f3fae', '#f4f4f0', '#141414'], shapes = ['#d22b2b', '#2a9a3c', '#f0c419'];
  const paint = (now) => {
    const t = now / 1000, turn = Math.floor(t / 6) % 3;
    context.fillStyle = grounds[turn];
    context.fillRect(0, 0, 512, 512);
    context.fillStyle = context.strokeStyle = shapes[turn];
    const x = 256 + 120 * Math.sin(t * 0.9), y = 256 + 90 * Math.sin(t * 1.3);
    context.beginPath();
    if (turn === 1) { context.rect(x - 95, y - 95, 190, 190); context.fill(); return; }
    context.arc(x, y, 105, 0, 2 * Math.PI);
    context.lineWidth = 46;
    if (turn === 2) context.stroke(); else context.fill();
  };
  paint(performance.now());
  return timed(canvas, 512, 512, 66, paint, false);
}

/**
 * Opens a source.
 * @param {'webcam'|'screen'|'file'|'pattern'} kind
 * @param {File|null} file  for `file`
 * @param {() => void} onEnd  called when it ends by itself, as when sharing the screen is stopped
 * @throws {SourceError}
 */
export async function openSource(kind, file, onEnd) {
  if (kind === 'pattern') return pattern();
  if (kind === 'file') {
    if (!file) throw new SourceError('Choose a picture or a video file first.');
    try {
      if (!file.type.startsWith('video/')) {
        const picture = await createImageBitmap(file);
        return timed(picture, picture.width, picture.height, 1000, null, true);
      }
      const video = document.createElement('video'), url = URL.createObjectURL(file);
      video.loop = true;
      video.src = url;
      return await fromVideo(video, onEnd, () => URL.revokeObjectURL(url));
    } catch { throw new SourceError('This browser cannot read that file. PNG, JPEG and WebP pictures and most MP4 and WebM videos can be read.'); }
  }
  const hint = cameraHint();
  if (hint) throw new SourceError(hint);
  try {
    if (kind === 'screen') {
      if (!navigator.mediaDevices.getDisplayMedia) throw new SourceError('This browser cannot share the screen. Choose another source.');
      return await fromStream(await navigator.mediaDevices.getDisplayMedia({ video: true, audio: false }), onEnd);
    }
    return await fromStream(await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } }, audio: false }), onEnd);
  } catch (error) {
    if (error instanceof SourceError) throw error;
    throw new SourceError(REFUSED[error.name] ?? `The source could not be opened: ${error.message}`);
  }
}
