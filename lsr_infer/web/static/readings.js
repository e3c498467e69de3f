/** An image result in words: what lies under a place, what was computed by whom, and the scale of the confidence. */

import { confidenceGradient } from "./colors.js";
import { create } from "./element.js";
import { percent, swatch } from "./panels.js";
import { sentenceFor } from "./requests.js";

/**
 * One layer's answer for a place: "road 87 %, then sidewalk 9 %".
 * @param {{title: string}} layer
 * @param {{name: string, color: string, probability?: number}[]|Error} answer best first
 */
export function reading({ title }, answer) {
  const line = create("p", { class: "lsr-reading" }, create("span", { class: "lsr-quiet", text: `${title}: ` }));
  if (answer instanceof Error) {
    line.append(sentenceFor(answer));
  } else if (!answer.length) {
    line.append("no class here.");
  } else {
    const [first, second] = answer.map(({ name, probability }) =>
      probability === undefined ? name : `${name} ${percent(probability)}`,
    );
    line.append(swatch(answer[0].color), create("strong", { text: first }));
    if (second) line.append(`, then ${second}`);
  }
  return line;
}

/** The quiet line under the stage. */
export function facts({ name, width, height, layers, agreement }) {
  const took = (milliseconds) => (milliseconds === null ? "" : `${Math.round(milliseconds)} ms `);
  const models = layers.map(
    ({ title, model, milliseconds, device }) => `${title}: ${model}, ${took(milliseconds)}on ${device}`,
  );
  const agreeing = typeof agreement === "number" ? [`Both agree on ${percent(agreement)} of the picture`] : [];
  return [`${name}, ${width} × ${height}`, ...models, ...agreeing].join(" · ");
}

/** The scale under a picture of confidence. */
export function confidenceScale() {
  const label = "Dark blue is unsure, light yellow is sure.";
  const bar = create("div", { class: "lsr-scale-bar", role: "img", "aria-label": label });
  bar.style.backgroundImage = confidenceGradient();
  const [low, high] = ["0 % unsure", "100 % sure"].map((text) => create("span", { text }));
  const ends = create("div", { class: "lsr-scale-ends lsr-quiet", "aria-hidden": "true" }, low, high);
  return create("div", { class: "lsr-scale", hidden: true }, bar, ends);
}
