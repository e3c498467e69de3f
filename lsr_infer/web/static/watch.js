/**
 * Notice that the server has gone, say so, and load the page again once another one answers in its place: a page that
 * stays open knows nothing of it otherwise, and an old one means nothing to a new server.
 */

import { create } from "./element.js";

const LOST = `The server does not answer. If it was stopped, what it was computing is lost.
  This page is loaded again once it is back.`;
const EVERY = 3000;
const PATIENCE = 10000;
const FAILURES = 2;

/** Watch the server for as long as the page is open. */
export function watchServer() {
  const notice = create("p", { class: "lsr-lost", role: "alert", text: LOST });
  let run = null;
  let failures = 0;
  const look = async () => {
    try {
      const answer = await runOf();
      if (run !== null && answer !== run) {
        location.reload();
        return;
      }
      run = answer;
      failures = 0;
      notice.remove();
    } catch {
      failures += 1;
      if (failures === FAILURES) document.body.append(notice);
    }
    setTimeout(look, EVERY);
  };
  look();
}

/** Ask which run of the server this is; without the session, which would never grow old if it were seen all the time. */
async function runOf() {
  const signal = AbortSignal.timeout(PATIENCE);
  const answer = await fetch("/lsr/health", { credentials: "omit", cache: "no-store", signal });
  const { run } = await answer.json();
  if (!run) throw new Error("it cannot do its work");
  return run;
}
