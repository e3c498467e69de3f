/** Opening a camera, with every refusal of the browser as a sentence that says what to do. */

import { Sentence } from "./requests.js";

const REFUSALS = {
  NotAllowedError: "The browser did not allow the camera. Allow it beside the address of this page and try again.",
  SecurityError: "The browser did not allow the camera. Allow it beside the address of this page and try again.",
  NotFoundError: "No camera was found. Connect one and try again.",
  NotReadableError: "The camera is in use by another program. Close that program and try again.",
  AbortError: "The camera stopped while it was being opened. Try again.",
  OverconstrainedError: "The camera cannot give a picture of this kind. Try another camera.",
};
const INSECURE =
  "Browsers give the camera only to pages opened by https or on the same computer. " +
  "Open this page as http://localhost or by https.";

/** What to show until the camera is there. */
export const OPENING = "Waiting for the camera. The browser may ask for leave.";

/** What to say when its track ends by itself. */
export const DISCONNECTED = "The camera was disconnected. Connect it and try again.";

/**
 * Open the camera; when it arrives after the abort it is closed again.
 * @param {AbortSignal} signal
 * @param {MediaTrackConstraints} [wishes]
 * @returns {Promise<MediaStream>} to be closed by `closeCamera`
 */
export async function openCamera(signal, wishes = {}) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Sentence(INSECURE);
  const video = { facingMode: "environment", ...wishes };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    throw new Sentence(REFUSALS[error.name] ?? "The camera could not be opened. Try again or choose a file.");
  }
  if (signal.aborted) {
    closeCamera(stream);
    throw signal.reason;
  }
  return stream;
}

/** Stop the camera; its light goes off. */
export function closeCamera(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
