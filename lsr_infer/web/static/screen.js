/**
 * A video of two pictures side by side, drawn on a canvas as one picture with a divider, both, or one of them. It draws
 * whatever frame the video shows and knows no controls and no addresses.
 */

import { Divider } from "./divider.js";
import { create } from "./element.js";
import { makeCanvas } from "./layers.js";

const SEAM = 4; // pixels between the pictures where both are shown
const NARROW = 560; // pixels of the screen below which two pictures lie one above the other

/** The modes, in the order in which they are offered. */
export const MODES = [
  { value: "slider", text: "Slider" },
  { value: "both", text: "Side by side" },
  { value: "left", text: "Left" },
  { value: "right", text: "Right" },
];

/** The canvas, its divider and the names of what lies left and right. */
export class Screen {
  #context;
  #divider;
  #video = null;
  #shape = null;
  #resizing;

  /**
   * @param {{mode: string, place: number}} settings the user's, changed in place
   * @param {() => void} onClick
   */
  constructor(settings, onClick) {
    this.settings = settings;
    const { canvas, context } = makeCanvas(2, 1);
    this.#context = context;
    canvas.className = "lsr-canvas";
    canvas.addEventListener("click", onClick);
    this.#divider = new Divider({
      place: settings.place,
      onMove: (place) => {
        settings.place = place;
        this.draw();
      },
      onTap: onClick,
    });
    canvas.setAttribute("role", "img");
    this.canvas = canvas;
    this.node = create("div", { class: "lsr-stage" }, canvas, ...this.#divider.nodes);
    this.#resizing = new ResizeObserver(() => this.#arrange());
    this.#resizing.observe(this.node);
  }

  /** @param {{width: number, height: number, gap: number, titles: string[]}} shape of one picture */
  setShape(shape) {
    this.#shape = shape;
    this.#divider.setNames(shape.titles);
    this.#arrange();
  }

  setVideo(video) {
    this.#video = video;
    this.draw();
  }

  setMode(mode) {
    this.settings.mode = mode;
    this.#arrange();
  }

  release() {
    this.#resizing.disconnect();
    this.#video = null;
  }

  /** Draw the video's present frame; a video without one leaves the last picture standing. */
  draw() {
    const video = this.#video;
    if (!this.#shape || !video || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    const { width, height, gap } = this.#shape;
    const second = width + gap;
    const { mode, place } = this.settings;
    const part = (from, columns, x, y) =>
      columns > 0 && this.#context.drawImage(video, from, 0, columns, height, x, y, columns, height);
    if (mode === "left") {
      part(0, width, 0, 0);
    } else if (mode === "right") {
      part(second, width, 0, 0);
    } else if (mode === "both") {
      part(0, width, 0, 0);
      if (this.#stacked) part(second, width, 0, height + SEAM);
      else part(second, width, width + SEAM, 0);
    } else {
      const line = Math.round(place * width);
      part(0, line, 0, 0);
      part(second + line, width - line, line, 0);
    }
  }

  get #stacked() {
    return this.settings.mode === "both" && this.node.parentElement?.clientWidth < NARROW;
  }

  /** Give the canvas the size that the mode needs; setting it clears the canvas, so only when it changes. */
  #arrange() {
    if (!this.#shape) return;
    const { width, height, titles } = this.#shape;
    const { mode } = this.settings;
    const beside = mode === "both" && !this.#stacked;
    const size = [beside ? 2 * width + SEAM : width, this.#stacked ? 2 * height + SEAM : height];
    const { canvas } = this.#context;
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    this.node.style.setProperty("--lsr-ratio", size[0] / size[1]);
    this.node.classList.toggle("lsr-beside", beside);
    this.node.classList.toggle("lsr-stacked", this.#stacked);
    this.#divider.setShown(mode);
    const shown = { left: [titles[0]], right: [titles[1]] }[mode] ?? titles;
    this.canvas.setAttribute("aria-label", `Video: ${shown.join(" and ")}`);
    this.draw();
  }
}
