/** The page's one script: it defines the elements, each of which lives in its own module. */

import { LsrChart } from "./chart.js";
import { LsrDrop } from "./drop.js";
import { LsrLive } from "./live.js";
import { LsrPlayer } from "./player.js";
import { LsrViewer } from "./viewer.js";

const ELEMENTS = {
  "lsr-chart": LsrChart,
  "lsr-drop": LsrDrop,
  "lsr-live": LsrLive,
  "lsr-player": LsrPlayer,
  "lsr-viewer": LsrViewer,
};

for (const [name, element] of Object.entries(ELEMENTS)) {
  // A page that is loaded twice into one document, as a development server does, must not fail on it.
  if (!customElements.get(name)) customElements.define(name, element.declare());
}
