/**
 * The line between two pictures and the names of both: dragged with mouse, pen or finger, or moved by keys. It knows a
 * place from 0 to 1 and draws no picture.
 */

import { create } from "./element.js";

const TAP = 4; // pixels a finger may tremble
const EDGE = 0.12; // nearer to its end a name would lie over the other picture

/** A slider in the sense of ARIA; its `nodes` are laid over their parent. */
export class Divider {
  #place;
  #names = ["", ""];
  #shown = "slider";
  #chips = [create("span", { class: "lsr-chip" }), create("span", { class: "lsr-chip lsr-chip-right" })];
  #onMove;
  #pressed = null;

  /**
   * @param {object} options
   * @param {number} options.place 0 to 1
   * @param {(place: number) => void} options.onMove
   * @param {(event: PointerEvent) => void} options.onTap pressed and released without a move
   */
  constructor({ place, onMove, onTap }) {
    this.#onMove = onMove;
    this.node = create(
      "div",
      {
        class: "lsr-divider",
        role: "slider",
        tabindex: "0",
        "aria-label": "Divider between the left and the right picture",
        "aria-orientation": "horizontal",
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        data: { key: "divider" },
        on: {
          pointerdown: (event) => this.#press(event),
          pointermove: (event) => this.#drag(event),
          pointerup: (event) => this.#let(event, onTap),
          pointercancel: () => {
            this.#pressed = null;
          },
          click: (event) => event.stopPropagation(), // the tap has been told already
          keydown: (event) => this.#key(event),
        },
      },
      create("span", { class: "lsr-divider-grip", "aria-hidden": "true" }),
    );
    this.nodes = [...this.#chips, this.node];
    this.#set(place);
  }

  /** @param {string[]} names what lies left and right */
  setNames(names) {
    this.#names = names;
    this.#chips.forEach((chip, index) => {
      chip.textContent = names[index];
    });
    this.#set(this.#place);
  }

  /** @param {"slider"|"both"|"left"|"right"} shown only the slider has a line, one picture only its name */
  setShown(shown) {
    this.#shown = shown;
    this.node.hidden = shown !== "slider";
    this.#set(this.#place);
  }

  #set(place) {
    this.#place = Math.min(1, Math.max(0, place));
    this.node.style.left = `${100 * this.#place}%`;
    const [left, right] = this.#names;
    const share = Math.round(100 * this.#place);
    this.node.setAttribute("aria-valuenow", share);
    this.node.setAttribute("aria-valuetext", `${share} % ${left}, ${100 - share} % ${right}`);
    const sliding = this.#shown === "slider";
    this.#chips[0].classList.toggle("lsr-away", sliding ? this.#place < EDGE : this.#shown === "right");
    this.#chips[1].classList.toggle("lsr-away", sliding ? this.#place > 1 - EDGE : this.#shown === "left");
  }

  #move(place) {
    this.#set(place);
    this.#onMove(this.#place);
  }

  #press(event) {
    if (event.button !== 0) return;
    this.#pressed = { x: event.clientX, moved: false, offset: event.clientX - this.#line() };
    this.node.setPointerCapture(event.pointerId);
  }

  #line() {
    const bounds = this.node.parentElement.getBoundingClientRect();
    return bounds.left + this.#place * bounds.width;
  }

  #drag(event) {
    if (!this.#pressed) return;
    this.#pressed.moved ||= Math.abs(event.clientX - this.#pressed.x) > TAP;
    if (!this.#pressed.moved) return;
    const bounds = this.node.parentElement.getBoundingClientRect();
    this.#move((event.clientX - this.#pressed.offset - bounds.left) / bounds.width);
  }

  #let(event, onTap) {
    if (this.#pressed && !this.#pressed.moved) onTap(event);
    this.#pressed = null;
  }

  #key(event) {
    const step = event.shiftKey ? 0.1 : 0.01;
    const places = {
      ArrowLeft: this.#place - step,
      ArrowDown: this.#place - step,
      ArrowRight: this.#place + step,
      ArrowUp: this.#place + step,
      PageDown: this.#place - 0.1,
      PageUp: this.#place + 0.1,
      Home: 0,
      End: 1,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    event.stopPropagation();
    this.#move(places[event.key]);
  }
}
