/** The page's one script: it defines the elements, each of which lives in its own module. */

import { LsrChart } from "./chart.js";
import { LsrDrop } from "./drop.js";
import { LsrLive } from "./live.js";
import { LsrPlayer } from "./player.js";
import { LsrViewer } from "./viewer.js";
import { watchServer } from "./watch.js";

const ELEMENTS = {
  "lsr-chart": LsrChart,
  "lsr-drop": LsrDrop,
  "lsr-live": LsrLive,
  "lsr-player": LsrPlayer,
  "lsr-viewer": LsrViewer,
};

// A page that is loaded twice into one document, as a development server does, must not fail on it.
const first = !customElements.get("lsr-viewer");
for (const [name, element] of Object.entries(ELEMENTS)) {
  if (!customElements.get(name)) customElements.define(name, element.declare());
}
if (first) watchServer();
