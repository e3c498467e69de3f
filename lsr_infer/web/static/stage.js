/**
 * Where two pictures lie over each other: two canvases, the right one clipped at the divider, and a marker that mouse,
 * finger or keys place. It knows places from 0 to 1 and nothing of classes.
 */

import { Divider } from "./divider.js";
import { create } from "./element.js";
import { makeCanvas } from "./layers.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The stage of an image result. */
export class Stage {
  #right;
  #marker = create("span", { class: "lsr-marker", "aria-hidden": "true", hidden: true });
  #cross = { x: 0.5, y: 0.5 };
  #divider;
  #onSpot;

  /**
   * @param {object} options
   * @param {number} options.width canvas pixels
   * @param {number} options.height
   * @param {string} options.label
   * @param {number} options.place of the divider
   * @param {(place: number) => void} options.onMove
   * @param {(x: number, y: number) => void} options.onSpot asked about a place
   */
  constructor({ width, height, label, place, onMove, onSpot }) {
    const left = makeCanvas(width, height);
    const right = makeCanvas(width, height);
    this.contexts = [left.context, right.context];
    this.#right = right.canvas;
    this.#onSpot = onSpot;
    this.#divider = new Divider({
      place,
      onMove: (at) => {
        this.#clip(at);
        onMove(at);
      },
      onTap: (event) => this.#ask(event),
    });
    for (const canvas of [left.canvas, right.canvas]) {
      canvas.className = "lsr-canvas";
      canvas.setAttribute("aria-hidden", "true");
    }
    this.surface = create(
      "div",
      {
        class: "lsr-surface",
        role: "application",
        tabindex: "0",
        "aria-label": label,
        data: { key: "surface" },
        on: { click: (event) => this.#ask(event), keydown: (event) => this.#key(event) },
      },
      left.canvas,
      right.canvas,
    );
    // The marker lies over the divider, where the keys' crosshair begins.
    this.node = create("div", { class: "lsr-stage" }, this.surface, ...this.#divider.nodes, this.#marker);
    this.node.style.setProperty("--lsr-ratio", width / height);
    this.#clip(place);
  }

  /** Write which picture lies left and right. */
  setNames(names) {
    this.#divider.setNames(names);
  }

  #clip(place) {
    this.#right.style.clipPath = `inset(0 0 0 ${100 * place}%)`;
  }

  #ask(event) {
    const bounds = this.surface.getBoundingClientRect();
    this.#place((event.clientX - bounds.left) / bounds.width, (event.clientY - bounds.top) / bounds.height);
    this.#onSpot(this.#cross.x, this.#cross.y);
  }

  #place(x, y) {
    this.#cross = { x: Math.min(1, Math.max(0, x)), y: Math.min(1, Math.max(0, y)) };
    this.#marker.hidden = false;
    this.#marker.style.left = `${100 * this.#cross.x}%`;
    this.#marker.style.top = `${100 * this.#cross.y}%`;
  }

  #key(event) {
    if (event.target !== this.surface) return;
    if (event.key === "Enter") {
      this.#place(this.#cross.x, this.#cross.y);
      this.#onSpot(this.#cross.x, this.#cross.y);
    } else if (event.key in ARROWS) {
      const [right, down] = ARROWS[event.key];
      const { width, height } = this.surface.getBoundingClientRect();
      const step = event.shiftKey ? 10 : 1; // in pixels of the screen: a finer move could not be seen
      this.#place(this.#cross.x + (right * step) / width, this.#cross.y + (down * step) / height);
    } else {
      return;
    }
    event.preventDefault();
  }
}
