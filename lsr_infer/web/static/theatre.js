/**
 * The screen with its controls: playing, seeking, single frames, sound, full screen. It plays a file that is still
 * being written as well as a whole one, and passes from one to the other without losing the place.
 */

import { create } from "./element.js";
import { iconButton, message, segments, setIcon } from "./panels.js";
import { ownAddress } from "./requests.js";
import { MODES, Screen } from "./screen.js";
import { clock } from "./times.js";

/**
 * @typedef {object} Film
 * @property {string} url
 * @property {boolean} live still being written: no known length, no single frames
 * @property {number} [fps]
 * @property {number} [duration] seconds
 * @property {number} width of one picture
 * @property {number} height
 * @property {number} gap columns between both
 * @property {string[]} titles left and right
 */

/** The theatre; `node` belongs into the page, `release()` lets go of the video. */
export class Theatre {
  #film = null;
  #video = null;
  #next = null;
  #attached = null;
  #seekTo = null;
  #frameTime = 0;
  #stalled = false;
  #onTime;
  #notice = create("div", { class: "lsr-notice" });
  #time = create("span", { class: "lsr-number lsr-time" });
  #play = iconButton("play", "Play", () => this.toggle());
  #back = iconButton("previous", "One frame back", () => this.#step(-1));
  #forth = iconButton("next", "One frame on", () => this.#step(1));
  #sound = iconButton("sound", "Sound off", () => this.#toggleSound());
  #full = iconButton("fullscreen", "Full screen", () => this.#toggleFullScreen());
  #seek = create("input", {
    type: "range",
    class: "lsr-range",
    min: 0,
    max: 1,
    step: "any",
    value: 0,
    "aria-label": "Place in the video",
  });

  /**
   * @param {{mode: string, place: number}} settings the user's, changed in place
   * @param {(seconds: number) => void} onTime
   */
  constructor(settings, onTime) {
    this.#onTime = onTime;
    this.screen = new Screen(settings, () => this.toggle());
    this.#seek.addEventListener("input", () => this.seek(Number(this.#seek.value)));
    this.#sound.hidden = true;
    this.#full.hidden = !document.fullscreenEnabled;
    const controls = create(
      "div",
      { class: "lsr-controls", role: "group", "aria-label": "Video" },
      this.#play,
      this.#back,
      this.#forth,
      this.#time,
      create("span", { class: "lsr-space" }),
      this.#sound,
      this.#full,
    );
    this.node = create(
      "div",
      { class: "lsr-theatre", on: { keydown: (event) => this.#key(event) } },
      segments("Show", MODES, settings.mode, (mode) => this.screen.setMode(mode)),
      this.screen.node,
      this.#seek,
      controls,
      this.#notice,
    );
  }

  /**
   * Show a film. After a live one, the whole film goes on at the same time and in the same motion.
   * @param {Film} film
   */
  show(film) {
    if (this.#film?.url === film.url) return;
    const continuing = this.#film?.live && !film.live && this.#video?.readyState > 0;
    this.#film = film;
    this.#dismiss(this.#next);
    this.#next = this.#load(film);
    if (!this.#next) return;
    if (continuing) {
      this.#continue(this.#next);
    } else {
      this.#enter(this.#next);
      if (film.live) this.#begin();
    }
  }

  #load({ url }) {
    const own = ownAddress(url);
    if (!own) {
      this.#fail("The video has no valid address. Compute it again.");
      return null;
    }
    const hidden = { class: "lsr-source", tabindex: "-1", "aria-hidden": "true" };
    const video = create("video", { ...hidden, playsinline: true, preload: "auto" });
    video.src = own;
    this.node.append(video); // some browsers decode only what is in the page
    return video;
  }

  /** Play what is still being written, silently; with reduced motion the user starts it. */
  #begin() {
    this.#video.muted = true;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    this.#video.play().catch(() => this.#update()); // the browser may want a click first
  }

  #continue(next) {
    const before = this.#video;
    next.muted = before.muted;
    next.addEventListener(
      "loadeddata",
      () => {
        next.currentTime = before.currentTime;
      },
      { once: true },
    );
    next.addEventListener("error", () => next === this.#next && this.#fail(), { once: true });
    next.addEventListener(
      "seeked",
      () => {
        if (next !== this.#next) return;
        const playing = !before.paused && !before.ended;
        this.#enter(next);
        if (playing) next.play().catch(() => this.#update());
      },
      { once: true },
    );
  }

  /** Make a video the one that is seen and heard. */
  #enter(video) {
    this.#dismiss(this.#video);
    this.#next = null;
    this.#video = video;
    this.#seekTo = null;
    this.#stalled = false;
    this.#notice.replaceChildren();
    this.screen.setShape(this.#film);
    this.screen.setVideo(video);
    this.#back.hidden = this.#forth.hidden = this.#film.live;
    this.#attach(video);
    this.#update();
  }

  #attach(video) {
    this.#attached = new AbortController();
    const { signal } = this.#attached;
    const listen = (names, listener) => {
      for (const name of names) video.addEventListener(name, listener, { signal });
    };
    listen(["play", "pause", "ended", "volumechange"], () => this.#update());
    listen(["timeupdate", "durationchange", "progress"], () => this.#update());
    listen(["loadeddata", "seeked"], () => this.#frame(video.currentTime));
    listen(["seeked"], () => this.#seekOn());
    listen(["waiting", "playing"], ({ type }) => {
      this.#stalled = type === "waiting";
      this.#update();
    });
    listen(["error"], () => this.#fail());
    this.#watch(video, signal);
  }

  /** Draw every frame when the browser shows it. */
  #watch(video, signal) {
    const exact = "requestVideoFrameCallback" in video;
    const again = () => (exact ? video.requestVideoFrameCallback(draw) : requestAnimationFrame(draw));
    const draw = (_, frame) => {
      if (signal.aborted) return;
      if (exact || !video.paused) this.#frame(frame?.mediaTime ?? video.currentTime);
      again();
    };
    again();
  }

  #frame(time) {
    this.#frameTime = time;
    this.screen.draw();
    this.#onTime(time);
  }

  #dismiss(video) {
    if (!video) return;
    if (video === this.#video) this.#attached.abort();
    video.pause();
    video.removeAttribute("src");
    video.load(); // ends the request, which for a live film would stay open
    video.remove();
  }

  get #length() {
    const video = this.#video;
    if (!this.#film.live) return Number.isFinite(video.duration) ? video.duration : this.#film.duration;
    const known = video.buffered.length ? video.buffered.end(video.buffered.length - 1) : 0;
    return Math.max(known, video.currentTime);
  }

  #update() {
    if (!this.#film || !this.#video) return; // a promise of the browser's was kept after it was let go of
    const video = this.#video;
    const length = this.#length || 0;
    const now = this.#seekTo ?? video.currentTime;
    const still = video.paused || video.ended;
    setIcon(this.#play, still ? "play" : "pause", still ? "Play" : "Pause");
    setIcon(this.#sound, video.muted ? "silence" : "sound", video.muted ? "Sound on" : "Sound off");
    this.#sound.hidden = !hasSound(video);
    this.#seek.max = length || 1;
    this.#seek.value = now;
    const more = this.#stalled ? " so far, more follows" : " so far";
    const text = `${clock(now)} of ${clock(length)}${this.#film.live ? more : ""}`;
    this.#seek.setAttribute("aria-valuetext", text);
    this.#time.textContent = text.replace(" of ", " / ");
  }

  toggle() {
    const video = this.#video;
    if (!video) return;
    if (video.paused || video.ended) video.play().catch(() => this.#update());
    else video.pause();
  }

  /** Go to a time; while the browser is still seeking only the latest wish is kept. */
  seek(seconds) {
    if (!this.#video) return;
    this.#seekTo = Math.min(Math.max(0, seconds), this.#length || 0);
    if (!this.#video.seeking) this.#seekOn();
    this.#update();
  }

  #seekOn() {
    if (this.#seekTo === null) return;
    const to = this.#seekTo;
    this.#seekTo = null;
    this.#video.currentTime = to;
  }

  #step(direction) {
    if (!this.#film || this.#film.live || !this.#film.fps) return;
    this.#video.pause();
    // Times fall anywhere into a frame, or a rounding error before its beginning.
    const frame = Math.floor((this.#seekTo ?? this.#frameTime) * this.#film.fps + 0.1) + direction;
    this.seek((frame + 0.5) / this.#film.fps); // the middle of a frame is never rounded to its neighbour
  }

  #toggleSound() {
    this.#video.muted = !this.#video.muted;
  }

  #toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.node.requestFullscreen().catch(() => this.#say("The browser did not allow full screen."));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#video) return;
    const inRange = event.target === this.#seek;
    const onButton = event.target.closest("button");
    const seconds = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (event.key === " " && !onButton) this.toggle();
    else if (event.key === ",") this.#step(-1);
    else if (event.key === ".") this.#step(1);
    else if (inRange && seconds) this.seek(this.#video.currentTime + seconds);
    else return;
    event.preventDefault();
  }

  #say(text) {
    this.#notice.replaceChildren(message(text));
  }

  #fail(text) {
    if (!this.#film) return; // it was let go of while it failed
    const live = this.#film.live
      ? "The preview stopped. If the server goes on, the whole video follows when it is done."
      : "The video cannot be played. Download it, or compute it again.";
    this.#notice.replaceChildren(message(text ?? live, { error: true }));
  }

  release() {
    this.#dismiss(this.#next);
    this.#dismiss(this.#video);
    this.#next = this.#video = this.#film = null;
    this.screen.release();
  }
}

/** No standard tells it; each engine has its own sign, Chromium only once sound was decoded. */
function hasSound(video) {
  return Boolean(video.mozHasAudio || video.webkitAudioDecodedByteCount > 0 || video.audioTracks?.length > 0);
}
