/**
 * The small parts every element is put together from: state panels, buttons, choices, links, progress. They hold no
 * state beyond their nodes and know nothing of the server.
 */

import { create } from "./element.js";
import { icon } from "./icons.js";
import { ownAddress } from "./requests.js";

/**
 * A panel for a state without a result.
 * @param {"empty"|"busy"|"error"|"cancelled"} state
 * @param {string} text
 * @param {{symbol?: string, action?: Node|null}} [options]
 */
export function statePanel(state, text, { symbol, action = null } = {}) {
  const mark = state === "busy" ? create("span", { class: "lsr-working", "aria-hidden": "true" }) : icon(symbol);
  const role = state === "error" ? "alert" : "status";
  return create(
    "div",
    { class: `lsr-panel lsr-state lsr-state-${state}`, tabindex: "-1" },
    mark,
    create("p", { class: "lsr-sentence", role, text }),
    action,
  );
}

/** A one-line message beside other content; an error carries an icon, so that colour is not its only sign. */
export function message(text, { error = false } = {}) {
  const options = { class: `lsr-message${error ? " lsr-message-error" : ""}`, role: error ? "alert" : "status" };
  return create("p", options, error ? icon("warning") : null, create("span", { text }));
}

/**
 * A button with a visible text.
 * @param {string} text
 * @param {(event: Event) => void} action
 * @param {{symbol?: string, primary?: boolean, key?: string}} [options] `key` keeps the focus over a redrawing.
 */
export function button(text, action, { symbol, primary = false, key } = {}) {
  return create(
    "button",
    {
      type: "button",
      class: `lsr-button${primary ? " lsr-primary" : ""}`,
      on: { click: action },
      data: key ? { key } : {},
    },
    symbol ? icon(symbol) : null,
    create("span", { text }),
  );
}

/** A button that is only an icon; its label is read and shown as a tooltip. */
export function iconButton(symbol, label, action) {
  const made = create("button", { type: "button", class: "lsr-button lsr-icon-button", on: { click: action } });
  setIcon(made, symbol, label);
  return made;
}

/** Give an icon button another face. */
export function setIcon(made, symbol, label) {
  if (made.getAttribute("aria-label") === label) return;
  made.setAttribute("aria-label", label);
  made.title = label;
  made.replaceChildren(icon(symbol));
}

/**
 * A select with its label.
 * @param {string} label
 * @param {{value: string, text: string}[]} options
 * @param {string} value
 * @param {(value: string) => void} onChange
 */
export function choice(label, options, value, onChange) {
  const select = create("select", {
    class: "lsr-select",
    on: { change: () => onChange(select.value) },
    data: { key: `choice ${label}` },
  });
  select.append(...options.map((option) => create("option", { value: option.value, text: option.text })));
  select.value = value;
  return create("label", { class: "lsr-field" }, create("span", { class: "lsr-label", text: label }), select);
}

let groups = 0;

/** A row of radio buttons that look like one control; parameters as for `choice`. */
export function segments(label, options, value, onChange) {
  const name = `lsr-segments-${(groups += 1)}`;
  const items = options.map((option) =>
    create(
      "label",
      { class: "lsr-segment" },
      create("input", {
        type: "radio",
        name,
        value: option.value,
        checked: option.value === value,
        on: { change: () => onChange(option.value) },
        data: { key: `${label} ${option.value}` },
      }),
      create("span", { text: option.text }),
    ),
  );
  return create(
    "fieldset",
    { class: "lsr-field lsr-segments" },
    create("legend", { class: "lsr-label", text: label }),
    create("div", { class: "lsr-segment-row" }, ...items),
  );
}

/** The range for the strength of the colours, 0 to 1. */
export function strengthRange(value, onInput) {
  const output = create("span", { class: "lsr-number", text: percent(value) }); // an <output> would take the label
  const range = create("input", {
    type: "range",
    class: "lsr-range",
    min: 0,
    max: 100,
    step: 1,
    value: Math.round(value * 100),
    "aria-valuetext": percent(value),
    data: { key: "strength" },
    on: {
      input: () => {
        output.textContent = percent(range.value / 100);
        range.setAttribute("aria-valuetext", output.textContent);
        onInput(range.value / 100);
      },
    },
  });
  const label = create("span", { class: "lsr-label" }, "Colour strength ", output);
  return create("label", { class: "lsr-field lsr-strength" }, label, range);
}

/**
 * Links to files of the result; addresses of other hosts are left out.
 * @param {{title: string, url: string, name: string}[]} downloads
 */
export function downloadLinks(downloads = []) {
  const usable = downloads.filter((download) => ownAddress(download.url));
  return usable.map((download) =>
    create(
      "a",
      {
        class: "lsr-button",
        href: download.url,
        download: download.name || true,
        data: { key: `download ${download.title}` },
      },
      icon("download"),
      create("span", { text: download.title }),
    ),
  );
}

/** A progress bar; `set(share, text)` with null for a share that is not known. */
export function progressBar(label) {
  const fill = create("div", { class: "lsr-bar-fill" });
  const bar = create(
    "div",
    { class: "lsr-bar", role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 },
    fill,
  );
  const set = (share, text) => {
    bar.classList.toggle("lsr-bar-unknown", share === null);
    fill.style.width = share === null ? "" : `${100 * share}%`;
    if (share === null) bar.removeAttribute("aria-valuenow");
    else bar.setAttribute("aria-valuenow", Math.round(100 * share));
    bar.setAttribute("aria-valuetext", text);
  };
  return { bar, set };
}

/** A class's colour as a small square. */
export function swatch(color) {
  const made = create("span", { class: "lsr-swatch", "aria-hidden": "true" });
  made.style.backgroundColor = color;
  return made;
}

/** Write a share as "12 %", small ones as "0.4 %", and what is there but tiny as "< 0.1 %". */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  const tenths = Math.round(1000 * share) / 10;
  return `${tenths < 10 ? tenths : Math.round(tenths)} %`;
}
