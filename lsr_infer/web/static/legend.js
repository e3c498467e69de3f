/**
 * The legend of an image result: a row a class with its switch, colour and share in each layer. It reports what the
 * user switches or points at and draws no picture.
 */

import { create } from "./element.js";
import { button, percent, swatch } from "./panels.js";

/** @returns {{name: string, color: string, shares: number[]}[]} classes that occur, largest in the last layer first. */
export function legendRows(layers) {
  const colors = new Map(layers.flatMap(({ classes }) => classes.map(({ name, color }) => [name, color])));
  const rows = [...colors].map(([name, color]) => ({
    name,
    color,
    shares: layers.map(({ shares }) => shares?.[name] ?? 0),
  }));
  const occurring = rows.filter(({ shares }) => shares.some((share) => share > 0));
  return occurring.sort((one, two) => two.shares.at(-1) - one.shares.at(-1) || two.shares[0] - one.shares[0]);
}

/**
 * @param {object[]} layers
 * @param {Set<string>} hidden changed in place
 * @param {() => void} onToggle
 * @param {(name: string|null) => void} onPoint the class under mouse or focus
 */
export function legend(layers, hidden, onToggle, onPoint) {
  const rows = legendRows(layers);
  const boxes = new Map();
  const setAll = (shown) => {
    for (const [name, box] of boxes) {
      box.checked = shown;
      hidden[shown ? "delete" : "add"](name);
    }
    onToggle();
  };
  const body = rows.map((row) => legendRow(row, boxes, hidden, onToggle, onPoint));
  const titles = layers.map(({ title }) => create("th", { scope: "col", class: "lsr-share", text: title }));
  const table = create(
    "table",
    { class: "lsr-legend-table" },
    create("caption", { class: "lsr-hidden", text: "Share of each class in the picture" }),
    create("thead", {}, create("tr", {}, create("th", { scope: "col", text: "Class" }), ...titles)),
    create("tbody", {}, ...body),
  );
  return create(
    "section",
    { class: "lsr-legend", "aria-label": "Classes" },
    create(
      "div",
      { class: "lsr-row lsr-legend-head" },
      create("span", { class: "lsr-label", text: "Classes shown" }),
      button("All", () => setAll(true), { key: "legend all" }),
      button("None", () => setAll(false), { key: "legend none" }),
    ),
    rows.length ? table : create("p", { class: "lsr-quiet", text: "No class was found in this picture." }),
  );
}

function legendRow({ name, color, shares }, boxes, hidden, onToggle, onPoint) {
  const box = create("input", {
    type: "checkbox",
    class: "lsr-check",
    checked: !hidden.has(name),
    data: { key: `class ${name}` },
    on: {
      change: () => {
        hidden[box.checked ? "delete" : "add"](name);
        onToggle();
      },
      // A mouse click leaves the focus behind, which must not keep the class emphasised.
      focus: () => box.matches(":focus-visible") && onPoint(name),
      blur: () => onPoint(null),
    },
  });
  boxes.set(name, box);
  const label = create("label", { class: "lsr-class" }, box, swatch(color), create("span", { text: name }));
  const pointing = {
    pointerenter: (event) => event.pointerType === "mouse" && onPoint(name),
    pointerleave: () => onPoint(null),
  };
  return create("tr", { on: pointing }, create("th", { scope: "row" }, label), ...shares.map(shareCell));
}

function shareCell(share) {
  const fill = create("span", { class: "lsr-share-fill" });
  fill.style.width = `${100 * share}%`;
  const bar = create("span", { class: "lsr-share-bar", "aria-hidden": "true" }, fill);
  return create("td", { class: "lsr-share" }, create("span", { class: "lsr-number", text: percent(share) }), bar);
}
