// Decodes chunks of H.264 and shows their pictures at a steady rate. Each chunk begins with an IDR picture, so the decoder
// is emptied behind each: no picture waits inside it for the next chunk.
//
// The clock is that of teleworld/cli/player.py: when it runs dry that is a stall, and behind one the player goes on at the
// rate at which chunks came lately, if that is lower, so that a slow machine does not stall for ever. Here somebody waits for
// the keys to be seen, so the rate rises again while more than a chunk is in stock.

const MARGIN = 0.95;
const RECOVERY = 1.05;
const RECENT = 12;

export class Player {
  // shown(chunk) hears of each chunk when its first picture is on the screen; failed(text) of what cannot be decoded.
  constructor(canvas, shown, failed) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.shown = shown;
    this.failed = failed;
    this.decoder = null;
    this.stop();
    const tick = (now) => { this.tick(now); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
  }

  // A world of so many frames a second begins, or goes on.
  start(fps, width, height) {
    this.stop();
    this.rate = this.native = fps;
    this.canvas.width = width;
    this.canvas.height = height;
  }

  stop() {
    for (const picture of this.pictures ?? []) picture.close();
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    this.decoder = null;
    this.pictures = [];
    this.chunks = new Map();    // by the number of their first frame
    this.arrivals = [];
    this.due = null;            // when the next picture's turn is; null: as soon as there is one
    this.dry = false;
    this.fresh = true;
    this.stalls = 0;
    this.times = [];            // when the last pictures were shown
  }

  // What comes next is due as soon as it is there, and the wait for it is no stall.
  rest() { this.due = null; this.arrivals = []; }

  add(chunk, bytes) {
    this.decoder ??= this.open(chunk.codec);
    this.chunks.set(chunk.first_frame, chunk);
    this.arrivals.push({ at: performance.now(), frames: chunk.sizes.length });
    this.arrivals = this.arrivals.slice(-RECENT);
    let offset = 0;
    chunk.sizes.forEach((size, number) => {
      this.decoder.decode(new EncodedVideoChunk({
        type: chunk.keyframes[number] ? "key" : "delta",
        timestamp: 1000 * (chunk.first_frame + number),   // carries the frame's number through the decoder
        data: bytes.subarray(offset, offset + size),
      }));
      offset += size;
    });
    this.decoder.flush().catch(() => {});   // rejected when the walk is over before
  }

  open(codec) {
    const decoder = new VideoDecoder({
      output: (picture) => this.decoder === decoder ? this.pictures.push(picture) : picture.close(),
      error: (error) => this.failed(`This browser cannot decode the video: ${error.message}`),
    });
    decoder.configure({ codec, optimizeForLatency: true });
    return decoder;
  }

  tick(now) {
    if (!this.pictures.length) {
      if (this.due !== null && now > this.due) this.dry = true;
      return;
    }
    if (this.dry && this.due !== null) this.stalled();
    if (this.dry || this.due === null) this.due = now;
    this.dry = false;
    if (now < this.due) return;
    const picture = this.pictures.shift();
    const chunk = this.chunks.get(picture.timestamp / 1000);
    this.context.drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
    this.chunks.delete(picture.timestamp / 1000);
    picture.close();
    const period = 1000 / this.rate;
    this.due = Math.max(this.due, now - period) + period;
    this.times = [...this.times, now].slice(-2 * RECENT);
    if (!chunk) return;
    if (this.fresh) this.rest();   // the first picture stands until the segment behind it is made
    this.fresh = false;
    if (this.pictures.length >= 2 * chunk.sizes.length) this.rate = Math.min(this.native, RECOVERY * this.rate);
    this.shown(chunk);
  }

  stalled() {
    this.stalls += 1;
    const [first, ...rest] = this.arrivals;
    if (rest.length < 2) return;
    const seconds = (rest.at(-1).at - first.at) / 1000;
    if (seconds > 0) this.rate = Math.min(this.rate, MARGIN * rest.reduce((sum, one) => sum + one.frames, 0) / seconds);
  }

  // Pictures a second that were shown lately.
  fps() {
    const span = this.times.at(-1) - this.times[0];
    return span > 0 ? 1000 * (this.times.length - 1) / span : 0;
  }
}
