/** The page's icons: outlines on a 24 by 24 grid, drawn in the colour of the text and hidden from screen readers. */

import { createSvg } from "./element.js";

const PATHS = {
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 10h4M4 14h4M16 10h4M16 14h4",
  camera: "M4 8h4l2-3h4l2 3h4v11H4zM12 10a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  warning: "M12 4 2.5 20h19zM12 10v4.5M12 17.5v.01",
  stopped: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18M9 9h6v6H9z",
  close: "M6 6l12 12M18 6 6 18",
  play: "M8 5v14l11-7z",
  pause: "M8 5v14M16 5v14",
  previous: "M17 6v12l-9-6zM6 6v12",
  next: "M7 6v12l9-6zM18 6v12",
  sound: "M4 10v4h3l5 4V6l-5 4zM15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11",
  silence: "M4 10v4h3l5 4V6l-5 4zM16 10l4 4M20 10l-4 4",
  fullscreen: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
};

/**
 * @param {keyof typeof PATHS} name
 * @returns {SVGElement}
 */
export function icon(name) {
  const path = createSvg("path", { d: PATHS[name] });
  return createSvg("svg", { class: "lsr-icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, path);
}
