/**
 * Colours as the canvas wants them: one 32-bit word a pixel, looked up by class index or by confidence.
 * The words are little-endian RGBA, as on every machine a browser runs on.
 */

/**
 * Turn "#rrggbb" into a canvas word.
 * @param {string} color
 * @param {number} [alpha] 0 to 255
 */
export function word(color, alpha = 255) {
  const value = Number.parseInt(String(color).slice(1), 16) || 0;
  return pack(value >> 16, (value >> 8) & 255, value & 255, alpha);
}

function pack(red, green, blue, alpha = 255) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/**
 * The lookup from class index to colour; 0 (clear) for void and for hidden classes.
 * @param {{name: string, color: string}[]} classes
 * @param {Set<string>} [hidden] names
 * @returns {Uint32Array} 256 words
 */
export function classTable(classes, hidden = new Set()) {
  const table = new Uint32Array(256);
  classes.forEach(({ name, color }, index) => {
    if (!hidden.has(name)) table[index] = word(color);
  });
  return table;
}

/**
 * The lookup that darkens all but one class.
 * @param {{name: string}[]} classes
 * @param {string} name
 */
export function dimmingTable(classes, name) {
  const table = new Uint32Array(256).fill(pack(0, 0, 0, 170));
  const index = classes.findIndex((entry) => entry.name === name);
  if (index >= 0) table[index] = 0;
  return table;
}

// The two ends in OKLab. On a straight line between them lightness grows evenly, and as the hue runs from blue over
// grey to yellow, the order is also seen by red-green blind people.
const LOW = { lightness: 0.22, a: 0.0, b: -0.1 };
const HIGH = { lightness: 0.95, a: -0.03, b: 0.16 };

/** @returns {Uint32Array} confidence 0 to 255 as colours, dark blue to light yellow. */
export function confidenceTable() {
  return Uint32Array.from({ length: 256 }, (_, index) => pack(...confidenceColor(index / 255)));
}

/** @returns {string} the same map as a CSS gradient from left to right. */
export function confidenceGradient() {
  const stops = Array.from({ length: 9 }, (_, index) => `rgb(${confidenceColor(index / 8).join(" ")})`);
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

function confidenceColor(share) {
  const between = (key) => LOW[key] + share * (HIGH[key] - LOW[key]);
  return fromOklab(between("lightness"), between("a"), between("b"));
}

/** OKLab to sRGB bytes (Björn Ottosson's matrices). */
function fromOklab(lightness, a, b) {
  const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
    -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
    -0.0041960863 * long - 0.7034186147 * middle + 1.707614701 * short,
  ].map(toByte);
}

function toByte(linear) {
  const clipped = Math.min(1, Math.max(0, linear));
  const encoded = clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * clipped ** (1 / 2.4) - 0.055;
  return Math.round(255 * encoded);
}
