/**
 * `<lsr-chart>`: the share of every class over the time of a video, as stacked areas. It follows a playhead that the
 * page sets as `time`, and tells by the event `lsr-seek` where the user wants to go; it knows no video.
 */

import { ContentElement, create, createSvg } from "./element.js";
import { button, choice, message, percent, swatch } from "./panels.js";
import { askJson, sentenceFor } from "./requests.js";
import { clock } from "./times.js";

const COLUMNS = 480; // more steps than this are not seen in the areas
const ROWS = 60; // of the table

/** The element. `data` is `{shares: url}`, `time` the playhead in seconds. */
export class LsrChart extends ContentElement {
  #loading = null;
  #series = null;
  #layer = null;
  #cursor = null;
  #time = 0;
  #parts = null;

  get time() {
    return this.#time;
  }

  set time(seconds) {
    this.#time = seconds;
    this.#follow();
  }

  render() {
    this.release();
    if (this.data?.shares) this.#load(this.data.shares);
    else this.replaceChildren();
  }

  release() {
    this.#loading?.abort();
    this.#parts = null;
    this.#cursor = null;
  }

  async #load(url) {
    const loading = new AbortController();
    this.#loading = loading;
    this.swap(message("Loading the chart."));
    try {
      const series = await askJson(url, loading.signal);
      if (loading.signal.aborted) return;
      this.#series = series;
      this.#layer = Math.min(this.#layer ?? Infinity, series.layers.length - 1);
      this.#build();
    } catch (error) {
      if (loading.signal.aborted) return;
      const [text, again] = [message(sentenceFor(error), { error: true }), button("Try again", () => this.render())];
      this.swap(create("div", { class: "lsr-row", tabindex: "-1" }, text, again));
    }
  }

  #build() {
    const { times, layers } = this.#series;
    if (!times.length) {
      this.swap(create("p", { class: "lsr-quiet", tabindex: "-1", text: "There are no class shares for this video." }));
      return;
    }
    const options = layers.map(({ title }, index) => ({ value: String(index), text: title }));
    const select = choice("Model", options, String(this.#layer), (value) => this.#choose(value));
    const title = create("p", { class: "lsr-title", text: "Class shares over time" });
    const classes = occurring(this.#series, this.#layer);
    const cursor = create("span", { class: "lsr-cursor", hidden: true });
    const playhead = create("span", { class: "lsr-playhead" });
    const plot = this.#plot(classes, cursor, playhead);
    const values = classes.map(() => create("span", { class: "lsr-number" }));
    const when = create("p", { class: "lsr-label lsr-number" });
    this.#parts = { plot, cursor, playhead, values, when, classes };
    this.swap(
      create(
        "section",
        { class: "lsr-chart", tabindex: "-1", "aria-label": "Class shares over time" },
        create("div", { class: "lsr-row lsr-chart-head" }, title, layers.length > 1 ? select : null),
        plot,
        create(
          "div",
          { class: "lsr-scale-ends lsr-quiet lsr-number", "aria-hidden": "true" },
          create("span", { text: clock(times[0]) }),
          create("span", { text: clock(times.at(-1)) }),
        ),
        when,
        valueList(classes, values),
        this.#table(classes),
      ),
    );
    this.#follow();
  }

  #choose(value) {
    this.#layer = Number(value);
    this.#build();
  }

  #plot(classes, cursor, playhead) {
    const areas = areaPaths(classes, this.#series.times).map((d, index) =>
      createSvg("path", { d, fill: classes[index].color, class: "lsr-area" }),
    );
    const stretched = { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" };
    return create(
      "div",
      {
        class: "lsr-plot",
        role: "slider",
        tabindex: "0",
        "aria-label": "Time in the chart. Arrow keys move, Enter takes the video there.",
        "aria-valuemin": 0,
        "aria-valuemax": this.#series.times.length - 1,
        data: { key: "plot" },
        on: {
          pointermove: (event) => this.#point(this.#indexAt(event)),
          pointerleave: () => this.#point(null),
          click: (event) => this.#seek(this.#indexAt(event)),
          keydown: (event) => this.#key(event),
          blur: () => this.#point(null),
        },
      },
      createSvg("svg", stretched, ...areas),
      playhead,
      cursor,
    );
  }

  #table(classes) {
    const details = create("details", {}, create("summary", { class: "lsr-summary", text: "The same as a table" }));
    const fill = () => details.append(tableOf(classes, this.#series.times));
    details.addEventListener("toggle", fill, { once: true }); // most people never open it
    return details;
  }

  #indexAt(event) {
    const { left, width } = this.#parts.plot.getBoundingClientRect();
    const { times } = this.#series;
    return nearest(times, times[0] + ((event.clientX - left) / width) * (times.at(-1) - times[0]));
  }

  #point(index) {
    this.#cursor = index;
    this.#follow();
  }

  #seek(index) {
    const detail = { time: this.#series.times[index] };
    this.dispatchEvent(new CustomEvent("lsr-seek", { detail, bubbles: true }));
  }

  #key(event) {
    const last = this.#series.times.length - 1;
    const now = this.#cursor ?? nearest(this.#series.times, this.#time);
    const step = event.shiftKey ? 10 : 1;
    const indices = {
      ArrowLeft: now - step,
      ArrowDown: now - step,
      ArrowRight: now + step,
      ArrowUp: now + step,
      PageDown: now - 10,
      PageUp: now + 10,
      Home: 0,
      End: last,
    };
    if (event.key in indices) this.#point(Math.min(last, Math.max(0, indices[event.key])));
    else if (event.key === "Enter" || event.key === " ") this.#seek(now);
    else if (event.key === "Escape") this.#point(null);
    else return;
    event.preventDefault();
  }

  /** Show the lines, and the values at the cursor or, without one, at the playhead. */
  #follow() {
    if (!this.#parts) return;
    const { plot, cursor, playhead, values, when, classes } = this.#parts;
    const { times } = this.#series;
    const index = this.#cursor ?? nearest(times, this.#time);
    playhead.style.left = `${100 * share(times, this.#time)}%`;
    cursor.hidden = this.#cursor === null;
    cursor.style.left = `${100 * share(times, times[index])}%`;
    when.textContent = `At ${clock(times[index])}`;
    classes.forEach(({ values: row }, place) => {
      values[place].textContent = percent(row[index]);
    });
    plot.setAttribute("aria-valuenow", index);
    plot.setAttribute("aria-valuetext", inWords(times[index], classes, index));
  }
}

/** The classes a layer shows at any time, largest first, each with its share at every time. */
function occurring({ classes, layers }, layer) {
  const { shares } = layers[layer];
  const rows = classes.map((entry, index) => ({ ...entry, values: shares.map((row) => row[index] ?? 0) }));
  const sum = ({ values }) => values.reduce((total, value) => total + value, 0);
  return rows.filter((row) => sum(row) > 0).sort((one, two) => sum(two) - sum(one));
}

/** Stacked areas in a box of 1000 by 100, the first class at the bottom. */
function areaPaths(classes, times) {
  const indices = spread(times.length, COLUMNS);
  const across = indices.map((index) => (1000 * share(times, times[index])).toFixed(2));
  let below = indices.map(() => 0);
  return classes.map(({ values }) => {
    const above = below.map((height, column) => height + values[indices[column]]);
    const line = (heights) => heights.map((height, column) => `${across[column]} ${(100 - 100 * height).toFixed(3)}`);
    const path = `M${[...line(above), ...line(below).reverse()].join("L")}Z`;
    below = above;
    return path;
  });
}

/** At most so many of `count` indices, evenly, with both ends. */
function spread(count, most) {
  const kept = Math.min(count, most);
  return Array.from({ length: kept }, (_, place) => Math.round((place * (count - 1)) / Math.max(1, kept - 1)));
}

function share(times, time) {
  const length = times.at(-1) - times[0];
  return length > 0 ? Math.min(1, Math.max(0, (time - times[0]) / length)) : 0;
}

function nearest(times, time) {
  let [low, high] = [0, times.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time) low = middle;
    else high = middle;
  }
  return time - times[low] <= times[high] - time ? low : high;
}

function inWords(time, classes, index) {
  const largest = [...classes].sort((one, two) => two.values[index] - one.values[index]).slice(0, 3);
  return `${clock(time)}: ${largest.map(({ name, values }) => `${name} ${percent(values[index])}`).join(", ")}`;
}

function valueList(classes, values) {
  const items = classes.map(({ name, color }, index) =>
    create("li", {}, swatch(color), create("span", { class: "lsr-name", text: name }), values[index]),
  );
  return create("ul", { class: "lsr-values" }, ...items);
}

function tableOf(classes, times) {
  const heads = ["Time", ...classes.map(({ name }) => name)].map((text) => create("th", { scope: "col", text }));
  const rows = spread(times.length, ROWS).map((index) => {
    const cells = classes.map(({ values }) => create("td", { text: percent(values[index]) }));
    return create("tr", {}, create("th", { scope: "row", text: clock(times[index]) }), ...cells);
  });
  const table = create(
    "table",
    { class: "lsr-table lsr-number" },
    create("caption", { class: "lsr-hidden", text: "Share of each class at times spread over the video" }),
    create("thead", {}, create("tr", {}, ...heads)),
    create("tbody", {}, ...rows),
  );
  const region = { class: "lsr-table-scroll", role: "region", tabindex: "0", "aria-label": "Class shares as a table" };
  return create("div", region, table);
}
