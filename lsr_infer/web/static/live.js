/**
 * `<lsr-live>`: the camera with the model's colours over it. One frame is under way at a time, so a slow model shows
 * fewer frames but never old ones; frames leave the browser only as small pictures to this host.
 */

import { closeCamera, DISCONNECTED, openCamera, OPENING } from "./camera.js";
import { classTable } from "./colors.js";
import { ContentElement, create } from "./element.js";
import { icon } from "./icons.js";
import { makeCanvas, paint, readGrey } from "./layers.js";
import { button, message, percent, strengthRange, swatch } from "./panels.js";
import { ask, decode, EXACT, ownAddress, Sentence, sentenceFor } from "./requests.js";

const WIDEST = 640; // pixels of a frame that is sent
const QUALITY = 0.8;
const PAUSE = 1000; // ms, when the server has no room
const READING = 500; // ms between two changes of the numbers, which else could not be read
const SEEN = 0.005; // smaller shares flicker in and out
const INVITATION = "Start the camera to see its picture in the model's colours.";

/** The element; attributes and properties are described in the page's contract. */
export class LsrLive extends ContentElement {
  static properties = ["classes", "query"];

  #running = null;
  #strength = 0.5;
  #parts = null;
  #table = null;

  render(changed) {
    this.#table = classTable(this.classes ?? []);
    if (changed === null) this.#showIdle();
  }

  release() {
    this.#stop();
  }

  #stop() {
    this.#running?.abort();
    this.#running = null;
    this.#parts = null;
  }

  #showIdle(notice = null) {
    this.#stop();
    const start = button("Start the camera", () => this.#start(), { symbol: "camera", primary: true, key: "run" });
    this.swap(
      create(
        "div",
        { class: "lsr-panel lsr-state", tabindex: "-1" },
        icon("camera"),
        create("p", { class: "lsr-sentence", text: INVITATION }),
        start,
        notice,
      ),
    );
  }

  #showFailure(error) {
    this.#showIdle(message(sentenceFor(error), { error: true }));
  }

  async #start() {
    this.#stop();
    const running = new AbortController();
    this.#running = running;
    const { signal } = running;
    this.#showOpening();
    try {
      const stream = await openCamera(signal, { width: { ideal: 1280 } });
      signal.addEventListener("abort", () => closeCamera(stream), { once: true });
      const video = await play(stream, signal);
      this.#build(video);
      stream.getVideoTracks()[0].addEventListener("ended", () => {
        if (!signal.aborted) this.#showFailure(new Sentence(DISCONNECTED));
      });
      await this.#run(video, signal);
    } catch (error) {
      if (!signal.aborted) this.#showFailure(error);
    }
  }

  #showOpening() {
    this.swap(
      create(
        "div",
        { class: "lsr-panel lsr-state", tabindex: "-1" },
        create("span", { class: "lsr-working", "aria-hidden": "true" }),
        create("p", { class: "lsr-sentence", role: "status", text: OPENING }),
        button("Stop", () => this.#showIdle(), { key: "run" }),
      ),
    );
  }

  #build(video) {
    const scale = Math.min(1, WIDEST / video.videoWidth);
    const size = [Math.round(video.videoWidth * scale), Math.round(video.videoHeight * scale)];
    const colors = makeCanvas(...size);
    colors.canvas.className = "lsr-canvas";
    colors.canvas.setAttribute("aria-hidden", "true");
    colors.canvas.style.opacity = this.#strength;
    const stage = create("div", { class: "lsr-stage" }, video, colors.canvas);
    stage.style.setProperty("--lsr-ratio", size[0] / size[1]);
    const numbers = create("p", { class: "lsr-quiet lsr-number", text: "The first frame is under way." });
    const seen = create("ul", { class: "lsr-values", "aria-label": "Classes seen now" });
    this.#parts = { frame: makeCanvas(...size), colors, numbers, seen };
    this.swap(
      create(
        "div",
        { class: "lsr-panel lsr-result", tabindex: "-1", role: "group", "aria-label": "Camera with colours" },
        create(
          "div",
          { class: "lsr-live-bar" },
          button("Stop", () => this.#showIdle(), { symbol: "stopped", key: "run" }),
          strengthRange(this.#strength, (strength) => {
            this.#strength = strength;
            colors.canvas.style.opacity = strength;
          }),
        ),
        stage,
        numbers,
        seen,
      ),
    );
  }

  /** Send frame after frame, each when the answer to the last is there. */
  async #run(video, signal) {
    const clock = { frames: 0, since: performance.now() };
    while (!signal.aborted) {
      if (document.hidden || !this.getClientRects().length) {
        await pause(READING, signal); // nobody is looking
        continue;
      }
      const began = performance.now();
      try {
        const { bitmap, milliseconds } = await this.#answer(video, signal);
        const shares = this.#show(bitmap);
        clock.frames += 1;
        this.#report(clock, shares, milliseconds, performance.now() - began);
      } catch (error) {
        if (error.status !== 429) throw error;
        await pause(PAUSE, signal);
      }
    }
  }

  async #answer(video, signal) {
    const { canvas, context } = this.#parts.frame;
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    const body = await new Promise((resolve) => {
      canvas.toBlob(resolve, "image/jpeg", QUALITY);
    });
    const address = ownAddress(this.getAttribute("frames-url") ?? "/lsr/live");
    const answer = await ask(address && address + (this.query ?? ""), {
      method: "POST",
      headers: { "Content-Type": "image/jpeg" },
      body,
      signal,
    });
    const bitmap = await decode(await answer.blob(), signal, EXACT);
    return { bitmap, milliseconds: Number(answer.headers.get("X-Milliseconds")) };
  }

  /** Paint the mask and return how much each index takes. */
  #show(bitmap) {
    const { context, canvas } = this.#parts.colors;
    const labels = readGrey(bitmap, canvas.width, canvas.height);
    bitmap.close();
    paint(context, labels, this.#table);
    const counts = new Uint32Array(256);
    for (const label of labels) counts[label] += 1;
    return Array.from(counts, (count) => count / labels.length);
  }

  #report(clock, shares, milliseconds, latency) {
    const passed = performance.now() - clock.since;
    if (passed < READING) return;
    const rate = ((1000 * clock.frames) / passed).toFixed(1);
    const model = milliseconds > 0 ? `, of which the model ${Math.round(milliseconds)} ms` : "";
    this.#parts.numbers.textContent = `${rate} frames/s, ${Math.round(latency)} ms from frame to colours${model}`;
    const seen = (this.classes ?? []).map((entry, index) => ({ ...entry, share: shares[index] }));
    const items = seen
      .filter(({ share }) => share >= SEEN)
      .map(({ name, color, share }) =>
        create(
          "li",
          {},
          swatch(color),
          create("span", { class: "lsr-name", text: name }),
          create("span", { class: "lsr-number", text: percent(Math.round(100 * share) / 100) }),
        ),
      );
    this.#parts.seen.replaceChildren(...items);
    Object.assign(clock, { frames: 0, since: performance.now() });
  }
}

async function play(stream, signal) {
  const video = create("video", { class: "lsr-canvas", playsinline: true, "aria-label": "What the camera sees" });
  video.muted = true;
  video.srcObject = stream;
  await video.play();
  if (signal.aborted) throw signal.reason;
  if (!video.videoWidth) throw new Sentence("The camera gives no picture. Choose another one and start again.");
  return video;
}

/** Wait so long, or until the abort. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
