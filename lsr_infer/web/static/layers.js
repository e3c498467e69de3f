/**
 * Pixels of an image result: masks read as numbers, painted by lookup, laid over the picture. What costs a pass over
 * the pixels is kept until its recipe changes; strength costs only drawing. It knows no controls and no server.
 */

import { classTable, confidenceTable, dimmingTable } from "./colors.js";

/**
 * @typedef {object} Appearance
 * @property {"classes"|"confidence"|"difference"} view
 * @property {number} strength 0 to 1
 * @property {Set<string>} hidden names of classes without colour
 * @property {string|null} emphasis name of the class that alone stays bright
 */

/** A canvas of so many pixels; `readable` keeps it in main memory, where reading is quick. */
export function makeCanvas(width, height, readable = false) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return { canvas, context: canvas.getContext("2d", { willReadFrequently: readable }) };
}

/**
 * Read a grey picture as numbers. One of another size is taken by nearest neighbour, so no class is invented.
 * @param {ImageBitmap} bitmap decoded with `EXACT`
 * @returns {Uint8Array} height x width
 */
export function readGrey(bitmap, width, height) {
  const { context } = makeCanvas(width, height, true);
  context.imageSmoothingEnabled = false;
  context.drawImage(bitmap, 0, 0, width, height);
  const words = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  return Uint8Array.from(words, (value) => value & 255);
}

/** Paint numbers through a lookup onto a context of the same size. */
export function paint(context, numbers, table) {
  fillPixels(context, (pixels) => {
    for (let i = 0; i < pixels.length; i += 1) pixels[i] = table[numbers[i]];
  });
}

function fillPixels(context, fill) {
  const { width, height } = context.canvas;
  const image = context.createImageData(width, height);
  fill(new Uint32Array(image.data.buffer));
  context.putImageData(image, 0, 0);
}

/** One layer's numbers and its painted sheets. */
class Sheet {
  constructor(layer, mask, width, height) {
    this.layer = layer;
    this.labels = readGrey(mask, width, height);
    this.confidence = null;
    this.colors = { ...makeCanvas(width, height), recipe: null };
    this.dimming = null;
  }
}

/** Picture and layers at one size, drawn as any side of the stage wants them. */
export class Composition {
  /**
   * @param {ImageBitmap} picture stays the caller's
   * @param {{layer: object, mask: ImageBitmap}[]} parts
   */
  constructor(picture, parts, width, height) {
    this.width = width;
    this.height = height;
    this.picture = picture;
    this.sheets = parts.map(({ layer, mask }) => new Sheet(layer, mask, width, height));
  }

  /** @param {number} index layer, @param {ImageBitmap} bitmap its confidence */
  setConfidence(index, bitmap) {
    this.sheets[index].confidence = readGrey(bitmap, this.width, this.height);
  }

  /** @returns {{name: string}|null} the class of a layer at a place in 0 to 1. */
  classAt(index, x, y) {
    const column = Math.min(this.width - 1, Math.floor(x * this.width));
    const row = Math.min(this.height - 1, Math.floor(y * this.height));
    const { layer, labels } = this.sheets[index];
    return layer.classes[labels[row * this.width + column]] ?? null;
  }

  /**
   * Draw one side.
   * @param {CanvasRenderingContext2D} context of this size
   * @param {number} index layer, -1 for the picture alone
   * @param {Appearance} appearance
   */
  draw(context, index, { view, strength, hidden, emphasis }) {
    context.drawImage(this.picture, 0, 0, this.width, this.height);
    if (index >= 0) {
      if (view !== "classes") this.#grey(context, view === "difference" ? 0.5 : 0);
      const colors = this.#colors(index, view, hidden);
      context.globalAlpha = strength;
      if (colors) context.drawImage(colors, 0, 0);
      context.globalAlpha = 1;
    }
    if (emphasis !== null) context.drawImage(this.#dimming(index, emphasis), 0, 0);
  }

  /** Take the colours out of what is drawn, so that only the map's colours speak, and darken it. */
  #grey(context, darkness) {
    context.globalCompositeOperation = "saturation";
    context.fillStyle = "#808080";
    context.fillRect(0, 0, this.width, this.height);
    context.globalCompositeOperation = "source-over";
    context.fillStyle = `rgb(0 0 0 / ${darkness})`;
    context.fillRect(0, 0, this.width, this.height);
  }

  #colors(index, view, hidden) {
    const sheet = this.sheets[index];
    if (view === "confidence" && !sheet.confidence) return null;
    const { colors } = sheet;
    const recipe = JSON.stringify([view, ...[...hidden].sort()]);
    if (colors.recipe !== recipe) {
      this.#paintColors(index, view, classTable(sheet.layer.classes, hidden));
      colors.recipe = recipe;
    }
    return colors.canvas;
  }

  #paintColors(index, view, shown) {
    const { labels, confidence, colors } = this.sheets[index];
    if (view === "classes") {
      paint(colors.context, labels, shown);
    } else if (view === "confidence") {
      const table = confidenceTable();
      fillPixels(colors.context, (pixels) => {
        for (let i = 0; i < pixels.length; i += 1) pixels[i] = shown[labels[i]] ? table[confidence[i]] : 0;
      });
    } else {
      const other = this.sheets[index === 0 ? this.sheets.length - 1 : 0];
      const same = this.#translation(other.layer, this.sheets[index].layer);
      fillPixels(colors.context, (pixels) => {
        for (let i = 0; i < pixels.length; i += 1) {
          pixels[i] = same[other.labels[i]] === labels[i] ? 0 : shown[labels[i]];
        }
      });
    }
  }

  /** The other layer's class indices in ours, by name, so that models of different class lists can be compared. */
  #translation(other, ours) {
    const names = ours.classes.map(({ name }) => name);
    const table = new Int16Array(256).fill(255);
    other.classes.forEach(({ name }, index) => {
      table[index] = names.indexOf(name);
    });
    return table;
  }

  #dimming(index, emphasis) {
    const sheet = this.sheets.at(index); // the picture alone is dimmed by the result, which is the last layer
    sheet.dimming ??= { ...makeCanvas(this.width, this.height), recipe: null };
    if (sheet.dimming.recipe !== emphasis) {
      paint(sheet.dimming.context, sheet.labels, dimmingTable(sheet.layer.classes, emphasis));
      sheet.dimming.recipe = emphasis;
    }
    return sheet.dimming.canvas;
  }
}
