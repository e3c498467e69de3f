/**
 * `<lsr-viewer>`: the result of one picture. It loads what the result names, keeps what the user adjusted while the
 * result is the same, and leaves pixels to `layers.js`, pointing to `stage.js`.
 */

import { ContentElement, create } from "./element.js";
import { Composition, makeCanvas } from "./layers.js";
import { legend } from "./legend.js";
import { button, choice, downloadLinks, message, segments, statePanel, strengthRange } from "./panels.js";
import { confidenceScale, facts, reading } from "./readings.js";
import { askBitmap, askJson, EXACT, ownAddress, sentenceFor } from "./requests.js";
import { Stage } from "./stage.js";

const EMPTY = "Give a picture, or take one of the examples. What the model sees appears here.";
const POINT = "Click a place in the picture to see its class.";
const TOO_LARGE = "The picture is too large for this browser to save. Take one of the downloads.";
const STAGE_PIXELS = 4 * 1024 * 1024; // more is not seen on a screen, and costs memory and time
const ORIGINAL = -1;

/** The element; its property `data` is described in the page's contract. */
export class LsrViewer extends ContentElement {
  #settings = null;
  #bitmaps = new Map();
  #loading = null;
  #probing = null;
  #frame = 0;
  #emphasis = null;
  #composition = null;
  #stage = null;
  #drawn = [];
  #parts = {};

  render() {
    const data = this.data ?? { state: "empty" };
    this.#stop();
    if (data.state === "done") {
      this.#open(data);
      return;
    }
    this.#closeBitmaps(new Set());
    if (data.state === "busy") this.#showPanel(statePanel("busy", data.text));
    else if (data.state === "error") this.#showPanel(statePanel("error", data.text, { symbol: "warning" }));
    else this.#showPanel(statePanel("empty", data.text || EMPTY, { symbol: "picture" }));
  }

  release() {
    this.#stop();
    this.#closeBitmaps(new Set());
    this.#composition = null;
    this.#stage = null;
  }

  #stop() {
    this.#loading?.abort();
    this.#probing?.abort();
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#emphasis = null;
  }

  #showPanel(panel) {
    // Waiting takes as much room as the last result, so that the page does not jump before the next one is there.
    const waits = panel.classList.contains("lsr-state-busy");
    if (waits && this.#stage) panel.style.minHeight = `${this.getBoundingClientRect().height}px`;
    this.#stage = null;
    this.#composition = null;
    this.swap(panel);
  }

  async #open(data) {
    const loading = new AbortController();
    this.#loading = loading;
    if (!this.#stage) this.#showPanel(statePanel("busy", "Loading the result."));
    try {
      const composition = await this.#compose(data, loading.signal);
      if (loading.signal.aborted) return;
      this.#settle(data);
      this.#composition = composition;
      this.#build(data);
      this.#closeBitmaps(new Set([data.picture, ...data.layers.flatMap(({ mask, confidence }) => [mask, confidence])]));
    } catch (error) {
      if (!loading.signal.aborted) this.#showFailure(sentenceFor(error));
    }
  }

  #showFailure(text) {
    const action = button("Try again", () => this.render(), { key: "again" });
    this.#showPanel(statePanel("error", text, { symbol: "warning", action }));
  }

  async #compose(data, signal) {
    const [picture, ...masks] = await Promise.all([
      this.#bitmap(data.picture, signal),
      ...data.layers.map(({ mask }) => this.#bitmap(mask, signal, EXACT)),
    ]);
    const scale = Math.min(1, Math.sqrt(STAGE_PIXELS / (data.width * data.height)));
    return compositionOf(data, picture, masks, scale);
  }

  async #bitmap(url, signal, options) {
    if (this.#bitmaps.has(url)) return this.#bitmaps.get(url);
    const bitmap = await askBitmap(url, signal, options);
    if (this.#bitmaps.has(url)) bitmap.close(); // two layers may share a file
    else this.#bitmaps.set(url, bitmap);
    return this.#bitmaps.get(url);
  }

  #closeBitmaps(kept) {
    for (const [url, bitmap] of this.#bitmaps) {
      if (kept.has(url)) continue;
      bitmap.close();
      this.#bitmaps.delete(url);
    }
  }

  /** Begin with the defaults for a new result; strength and divider stay where the user left them. */
  #settle(data) {
    const before = this.#settings;
    const last = data.layers.length - 1;
    if (before?.id !== data.id) {
      this.#settings = {
        id: data.id,
        sides: [last > 0 ? 0 : ORIGINAL, last],
        view: "classes",
        hidden: new Set(),
        strength: before?.strength ?? 0.5,
        place: before?.place ?? 0.5,
      };
    }
    this.#settings.sides = this.#settings.sides.map((side) => Math.min(side, last));
    if (!this.#views(data).some(({ value }) => value === this.#settings.view)) this.#settings.view = "classes";
  }

  #build(data) {
    const { width, height } = this.#composition;
    const settings = this.#settings;
    this.#drawn = [];
    this.#stage = new Stage({
      width,
      height,
      label: `${data.name}. Arrow keys move a crosshair, with Shift ten times as far. Enter tells the class there.`,
      place: settings.place,
      onMove: (place) => {
        settings.place = place;
      },
      onSpot: (x, y) => this.#probe(data, x, y),
    });
    this.#parts = {
      readout: create("div", { class: "lsr-readout", "aria-live": "polite" }),
      scale: confidenceScale(),
      notice: create("div", { class: "lsr-notice" }),
    };
    this.#parts.readout.append(create("p", { class: "lsr-quiet", text: POINT }));
    this.swap(
      create(
        "div",
        { class: "lsr-panel lsr-result", tabindex: "-1", role: "group", "aria-label": `Result for ${data.name}` },
        this.#toolbar(data),
        create(
          "div",
          { class: "lsr-columns" },
          create(
            "div",
            { class: "lsr-main" },
            this.#stage.node,
            this.#parts.scale,
            this.#parts.notice,
            create("p", { class: "lsr-quiet lsr-facts", text: facts(data) }),
            this.#parts.readout,
          ),
          legend(
            data.layers,
            settings.hidden,
            () => this.#draw(),
            (name) => this.#point(name),
          ),
          this.#downloads(data),
        ),
      ),
    );
    this.#setView(settings.view);
  }

  #toolbar(data) {
    const settings = this.#settings;
    const options = [
      { value: String(ORIGINAL), text: "Original" },
      ...data.layers.map(({ title }, index) => ({ value: String(index), text: title })),
    ];
    const side = (label, place) =>
      choice(label, options, String(settings.sides[place]), (value) => {
        settings.sides[place] = Number(value);
        this.#draw();
      });
    return create(
      "div",
      { class: "lsr-toolbar" },
      side("Left", 0),
      side("Right", 1),
      segments("View", this.#views(data), settings.view, (view) => this.#setView(view)),
      strengthRange(settings.strength, (strength) => {
        settings.strength = strength;
        this.#draw();
      }),
    );
  }

  #views({ layers }) {
    const views = [{ value: "classes", text: "Classes" }];
    if (layers.some(({ confidence }) => confidence)) views.push({ value: "confidence", text: "Confidence" });
    if (layers.length > 1) views.push({ value: "difference", text: "Difference" });
    return views;
  }

  #downloads(data) {
    const save = button("Save what you see (PNG)", () => this.#save(data), { symbol: "picture", key: "save" });
    const links = downloadLinks(data.downloads);
    return create("div", { class: "lsr-row lsr-downloads", role: "group", "aria-label": "Downloads" }, ...links, save);
  }

  #setView(view) {
    this.#settings.view = view;
    this.#parts.scale.hidden = view !== "confidence";
    this.#parts.notice.replaceChildren();
    if (view === "confidence") this.#loadConfidence();
    this.#draw();
  }

  /** Fetch the confidence of each layer, once, when it is first looked at. */
  async #loadConfidence() {
    const { signal } = this.#loading;
    const composition = this.#composition;
    try {
      await Promise.all(
        composition.sheets.map(async ({ layer, confidence }, index) => {
          if (confidence || !layer.confidence) return;
          const bitmap = await this.#bitmap(layer.confidence, signal, EXACT);
          if (!signal.aborted) composition.setConfidence(index, bitmap);
        }),
      );
      if (signal.aborted) return;
      this.#drawn = [];
      this.#draw();
    } catch (error) {
      if (signal.aborted) return;
      this.#parts.notice.replaceChildren(message(sentenceFor(error), { error: true }));
    }
  }

  #point(name) {
    this.#emphasis = name;
    this.#draw();
  }

  /** Draw in the next frame, however often it is asked for; a side whose look is the same is left as it is. */
  #draw() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (!this.#composition) return; // the result went away meanwhile
      const { sides, view, strength, hidden } = this.#settings;
      this.#stage.contexts.forEach((context, place) => {
        const recipe = JSON.stringify([sides[place], view, strength, [...hidden], this.#emphasis]);
        if (this.#drawn[place] === recipe) return;
        this.#composition.draw(context, sides[place], { view, strength, hidden, emphasis: this.#emphasis });
        this.#drawn[place] = recipe;
      });
      this.#stage.setNames(sides.map((side) => this.#sideName(side)));
    });
  }

  #sideName(side) {
    return side === ORIGINAL ? "Original" : this.#composition.sheets[side].layer.title;
  }

  async #probe(data, x, y) {
    this.#probing?.abort();
    const probing = new AbortController();
    this.#probing = probing;
    const column = Math.min(data.width - 1, Math.floor(x * data.width));
    const row = Math.min(data.height - 1, Math.floor(y * data.height));
    const answers = await Promise.all(
      data.layers.map(async (layer, index) => {
        const known = this.#composition.classAt(index, x, y);
        if (!ownAddress(layer.probe)) return known ? [known] : [];
        return askProbe(layer.probe, column, row, probing.signal).catch((error) => error);
      }),
    );
    if (probing.signal.aborted) return;
    const place = create("p", { class: "lsr-quiet", text: `At column ${column}, row ${row}` });
    this.#parts.readout.replaceChildren(place, ...data.layers.map((layer, index) => reading(layer, answers[index])));
  }

  /** Save both sides as they lie on the stage, in the size of the picture. */
  #save(data) {
    const { sides, view, strength, hidden, place } = this.#settings;
    const composition = this.#fullSize(data);
    const { width, height } = composition;
    const left = makeCanvas(width, height);
    const right = makeCanvas(width, height);
    [left, right].forEach(({ context }, index) => {
      composition.draw(context, sides[index], { view, strength, hidden, emphasis: null });
    });
    const line = Math.round(place * width);
    const rest = [line, 0, width - line, height];
    if (line < width) left.context.drawImage(right.canvas, ...rest, ...rest);
    if (line > 0 && line < width) {
      left.context.fillStyle = "#ffffff";
      left.context.fillRect(line - 1, 0, Math.max(2, Math.round(width / 800)), height);
    }
    left.canvas.toBlob((blob) => {
      if (blob) saveBlob(blob, `${data.name.replace(/\.[^.]*$/, "")}_view.png`);
      else this.#parts.notice.replaceChildren(message(TOO_LARGE, { error: true }));
    }, "image/png");
  }

  #fullSize(data) {
    if (this.#composition.width === data.width && this.#composition.height === data.height) return this.#composition;
    const masks = data.layers.map(({ mask }) => this.#bitmaps.get(mask));
    const composition = compositionOf(data, this.#bitmaps.get(data.picture), masks, 1);
    data.layers.forEach(({ confidence }, index) => {
      if (this.#bitmaps.has(confidence)) composition.setConfidence(index, this.#bitmaps.get(confidence));
    });
    return composition;
  }
}

function compositionOf(data, picture, masks, scale) {
  const parts = data.layers.map((layer, index) => ({ layer, mask: masks[index] }));
  return new Composition(picture, parts, Math.round(data.width * scale), Math.round(data.height * scale));
}

async function askProbe(probe, column, row, signal) {
  const url = new URL(probe, location.origin);
  url.searchParams.set("x", column);
  url.searchParams.set("y", row);
  return (await askJson(url.pathname + url.search, signal)).classes;
}

function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  create("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // the browser must have begun to read it
}
