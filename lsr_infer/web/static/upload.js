/** Sending one file by XMLHttpRequest, which unlike fetch tells how much of it has left. */

import { ownAddress, refusal, Sentence } from "./requests.js";

/**
 * @param {File} file
 * @param {string} url
 * @param {(share: number|null) => void} onProgress 0 to 1, null where unknown
 * @param {AbortSignal} signal stops the sending
 * @returns {Promise<{upload: string, name: string}>} what the server calls it
 */
export function sendFile(file, url, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const own = ownAddress(url);
    if (!own) throw new Sentence("This page has no valid place for uploads. Reload it.");
    const request = new XMLHttpRequest();
    request.open("POST", own);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("X-Filename", encodeURIComponent(file.name));
    request.upload.addEventListener("progress", ({ lengthComputable, loaded, total }) => {
      onProgress(lengthComputable ? loaded / total : null);
    });
    request.addEventListener("load", () => {
      const answer = request.status === 201 ? receipt(request.responseText, file.name) : null;
      if (answer) resolve(answer);
      else reject(new Sentence(refusal(request.responseText)));
    });
    request.addEventListener("error", () => reject(new Sentence(refusal(""))));
    request.addEventListener("abort", () => reject(signal.reason));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file);
  });
}

function receipt(text, sentName) {
  try {
    const { upload, name } = JSON.parse(text);
    return typeof upload === "string" ? { upload, name: name || sentName } : null;
  } catch {
    return null;
  }
}
