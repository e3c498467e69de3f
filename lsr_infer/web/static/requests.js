/**
 * Everything the page asks of its own host, with failures as sentences for a person. It refuses to ask any other host
 * and knows nothing of what the answers mean.
 */

const NO_ANSWER = "The server did not answer. Is it still running?";

/** An error whose message is a sentence to show as it is. */
export class Sentence extends Error {}

/**
 * Return the address if it is one of this host, else null.
 * @param {unknown} url
 * @returns {string|null}
 */
export function ownAddress(url) {
  // "//host" and "/\host" are other hosts to a browser.
  return typeof url === "string" && /^\/(?![/\\])/.test(url) ? url : null;
}

/**
 * Return what to tell the user about an error.
 * @param {unknown} error
 * @param {string} otherwise the sentence for an error that is none of ours.
 */
export function sentenceFor(error, otherwise = NO_ANSWER) {
  return error instanceof Sentence ? error.message : otherwise;
}

/**
 * Return the sentence in an error's body, `{"error": "..."}`.
 * @param {string} text
 */
export function refusal(text) {
  try {
    const { error } = JSON.parse(text);
    if (typeof error === "string" && error) return error;
  } catch {
    // Not JSON: a proxy's page, or nothing. That is no answer of ours.
  }
  return NO_ANSWER;
}

/**
 * Fetch from this host; a status other than 2xx becomes a `Sentence`.
 * @param {string} url
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
export async function ask(url, options = {}) {
  const own = ownAddress(url);
  if (!own) throw new Sentence("A part of this result has no valid address. Compute it again.");
  let answer;
  try {
    answer = await fetch(own, { credentials: "same-origin", ...options });
  } catch (error) {
    throw options.signal?.aborted ? error : new Sentence(NO_ANSWER);
  }
  if (!answer.ok) throw Object.assign(new Sentence(refusal(await answer.text())), { status: answer.status });
  return answer;
}

/** Fetch JSON from this host. */
export async function askJson(url, signal) {
  const answer = await ask(url, { signal });
  try {
    return await answer.json();
  } catch (error) {
    throw signal?.aborted ? error : new Sentence(NO_ANSWER);
  }
}

/**
 * Fetch a picture and decode it. A picture that arrives after the abort is closed again.
 * @param {string} url
 * @param {AbortSignal} signal
 * @param {ImageBitmapOptions} [options]
 * @returns {Promise<ImageBitmap>} the caller's to close.
 */
export async function askBitmap(url, signal, options) {
  const answer = await ask(url, { signal });
  return decode(await answer.blob(), signal, options);
}

/** Decode a blob, see `askBitmap`. */
export async function decode(blob, signal, options = {}) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, options);
  } catch {
    throw new Sentence("A picture of this result cannot be read. Compute it again.");
  }
  if (signal?.aborted) {
    bitmap.close();
    throw signal.reason;
  }
  return bitmap;
}

/** How a mask must be decoded, so that its numbers come out as they were written. */
export const EXACT = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
