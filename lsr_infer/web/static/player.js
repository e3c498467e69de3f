/**
 * `<lsr-player>`: a video job from the queue to the result. It shows progress, the film as soon as there is one, and
 * the chart; how a film is played is `theatre.js`'s business.
 */

import { ContentElement, create } from "./element.js";
import { button, downloadLinks, message, percent, progressBar, statePanel } from "./panels.js";
import { ask, ownAddress, sentenceFor } from "./requests.js";
import { Theatre } from "./theatre.js";
import { span } from "./times.js";

const EMPTY = "Give a video, or take one of the examples. It plays here as soon as the first seconds are computed.";
const SLOTS = ["state", "progress", "film", "chart", "rest"];
const SYMBOLS = { empty: "film", error: "warning", cancelled: "stopped" };
const TEXTS = { empty: EMPTY, error: "Something went wrong. Try again.", cancelled: "Stopped." };

/** The element; its property `data` is described in the page's contract. */
export class LsrPlayer extends ContentElement {
  #settings = { mode: "slider", place: 0.5 };
  #root = null;
  #slots = {};
  #progress = null;
  #theatre = null;
  #chart = null;
  #chartOf = null;
  #job = null; // the address at which what is shown was to be cancelled
  #stopping = null;

  render() {
    const data = this.data ?? { state: "empty" };
    if (data.state in SYMBOLS) this.#showState(data);
    else this.#showJob(data);
  }

  release() {
    this.#closeTheatre();
    this.#root = null;
  }

  #showState({ state, text }) {
    this.release();
    this.#stopping = null;
    this.swap(statePanel(state, text || TEXTS[state], { symbol: SYMBOLS[state] }));
  }

  #showJob(data) {
    if (!this.#root) this.#build();
    if (data.cancel && data.cancel !== this.#job) {
      this.#closeTheatre();
      this.#job = data.cancel;
    }
    this.#showProgress(data);
    this.#showFilm(data);
    this.#showDetails(data);
    this.#slots.state.textContent = stateOf(data); // a screen reader hears it when it changes, not every number
  }

  #build() {
    const slot = (name) => create("div", { class: `lsr-slot lsr-slot-${name}` });
    this.#slots = Object.fromEntries(SLOTS.map((name) => [name, slot(name)]));
    this.#slots.state.setAttribute("role", "status");
    this.#slots.state.classList.add("lsr-hidden");
    this.#progress = null;
    this.#root = create(
      "div",
      { class: "lsr-panel lsr-result", tabindex: "-1", role: "group", "aria-label": "Video result" },
      ...Object.values(this.#slots),
    );
    this.swap(this.#root);
  }

  #showProgress(data) {
    const slot = this.#slots.progress;
    if (data.state === "done") {
      const focused = slot.contains(document.activeElement);
      slot.replaceChildren();
      this.#progress = null;
      this.#stopping = null;
      if (focused) this.#root.focus({ preventScroll: true });
      return;
    }
    if (!this.#progress) {
      this.#progress = this.#buildProgress();
      slot.replaceChildren(...this.#progress.nodes);
    }
    const text = data.state === "waiting" ? waitingText(data) : progressText(data);
    const share = data.state === "busy" && data.total ? Math.min(1, data.frames / data.total) : null;
    this.#progress.set(share, text);
    this.#progress.text.textContent = text;
    if (this.#stopping !== data.cancel) this.#setStopping(null);
    this.#progress.cancel.hidden = !ownAddress(data.cancel);
  }

  #buildProgress() {
    const { bar, set } = progressBar("Progress of the video");
    const text = create("p", { class: "lsr-number" });
    const cancel = button("Cancel", () => this.#cancel(), { symbol: "close", key: "cancel" });
    const notice = create("div", { class: "lsr-notice" });
    const line = create("div", { class: "lsr-row lsr-progress-line" }, text, cancel);
    return { nodes: [bar, line, notice], set, text, cancel, notice };
  }

  async #cancel() {
    const { cancel } = this.data;
    if (this.#stopping === cancel) return;
    this.#setStopping(cancel);
    try {
      await ask(cancel, { method: "POST", signal: this.life });
    } catch (error) {
      if (this.#stopping !== cancel || !this.#progress) return;
      this.#setStopping(null);
      this.#progress.notice.replaceChildren(message(sentenceFor(error), { error: true }));
    }
  }

  /** A disabled button would lose the focus; this one stays reachable and only does nothing. */
  #setStopping(cancel) {
    this.#stopping = cancel;
    this.#progress.cancel.setAttribute("aria-disabled", String(cancel !== null));
    this.#progress.cancel.lastChild.textContent = cancel === null ? "Cancel" : "Stopping ...";
    this.#progress.notice.replaceChildren();
  }

  #showFilm(data) {
    const live = data.state === "busy";
    const url = live ? data.live : data.state === "done" ? data.video : null;
    if (!url) return;
    if (!this.#theatre) {
      this.#theatre = new Theatre(this.#settings, (time) => {
        if (this.#chart) this.#chart.time = time;
      });
      this.#slots.film.replaceChildren(this.#theatre.node);
    }
    const { width, height, gap, titles } = data;
    const known = live ? {} : { fps: data.fps, duration: data.duration };
    this.#theatre.show({ url, live, width, height, gap, titles, ...known });
  }

  #closeTheatre() {
    this.#theatre?.release();
    this.#theatre = null;
    this.#chart = null;
    this.#chartOf = null;
    for (const name of ["film", "chart", "rest"]) this.#slots[name]?.replaceChildren();
  }

  #showDetails(data) {
    const done = data.state === "done";
    if (done && this.#chartOf !== data.shares) {
      this.#chart = create("lsr-chart", { on: { "lsr-seek": ({ detail }) => this.#theatre.seek(detail.time) } });
      this.#chart.data = { shares: data.shares };
      this.#chartOf = data.shares;
      this.#slots.chart.replaceChildren(this.#chart);
    }
    this.#slots.rest.replaceChildren(...(done ? restOf(data) : []));
  }
}

function restOf(data) {
  return [
    create("p", { class: "lsr-quiet lsr-facts", text: facts(data) }),
    ...(data.note ? [message(data.note)] : []),
    create("div", { class: "lsr-row", role: "group", "aria-label": "Downloads" }, ...downloadLinks(data.downloads)),
  ];
}

function facts({ name, width, height, frames, fps, duration, seconds }) {
  const rate = Number(fps.toFixed(2));
  const film = `${frames} frames, ${rate} a second, ${span(duration)}`;
  return `${name}, ${width} × ${height} · ${film} · computed in ${span(seconds)}`;
}

function waitingText({ text, position }) {
  return text || (position > 0 ? `${position} before yours.` : "Yours is next.");
}

function progressText({ frames, total, fps, eta }) {
  const parts = [total ? `${frames} of ${total} frames` : `${frames} frames`];
  if (fps) parts.push(`${fps.toFixed(1)} frames/s`);
  if (typeof eta === "number") parts.push(`${span(eta)} left`);
  return parts.join(", ");
}

/** One sentence a state; a quarter of the work is worth a word, a frame is not. */
function stateOf({ state, text, position, frames, total, name }) {
  if (state === "waiting") return waitingText({ text, position });
  if (state === "done") return `${name} is done.`;
  const quarter = total ? Math.floor((4 * frames) / total) / 4 : 0;
  return quarter > 0 ? `${percent(quarter)} of the video is computed.` : "The video is being computed.";
}
