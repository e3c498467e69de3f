/**
 * `<lsr-drop>`: where a picture or video enters, by drop, file dialog, paste, camera or example. It sends the file to
 * the server and tells the page by the event `lsr-input`; what becomes of it is not its business.
 */

import { closeCamera, DISCONNECTED, openCamera, OPENING } from "./camera.js";
import { ContentElement, create } from "./element.js";
import { icon } from "./icons.js";
import { button, message, percent, progressBar } from "./panels.js";
import { ownAddress, sentenceFor } from "./requests.js";
import { sendFile } from "./upload.js";

const WORDS = {
  image: {
    symbol: "picture",
    label: "Your picture",
    invitation: "Drop a picture here, or paste one with Ctrl+V.",
    accept: "image/*",
  },
  video: { symbol: "film", label: "Your video", invitation: "Drop a video here.", accept: "video/*" },
};

/** The element; attributes and events are described in the page's contract. */
export class LsrDrop extends ContentElement {
  static properties = ["examples"];
  static observedAttributes = ["kind", "accept"];

  #sending = null;
  #opening = null;
  #stream = null;
  #zone = create("div", { class: "lsr-zone" });
  #notes = create("div", { class: "lsr-notes" });
  #shelf = create("div", {});
  #input = create("input", { type: "file", class: "lsr-hidden", tabindex: "-1", "aria-hidden": "true" });

  get #kind() {
    return this.getAttribute("kind") === "video" ? "video" : "image";
  }

  get #words() {
    return WORDS[this.#kind];
  }

  attributeChangedCallback() {
    if (this.isConnected && this.#zone.isConnected && !this.#sending && !this.#stream) this.#showInvitation();
  }

  render(changed) {
    if (changed === "examples") {
      this.#showExamples();
      return;
    }
    const { life } = this;
    this.replaceChildren(
      create(
        "div",
        { class: "lsr-panel lsr-drop", role: "group", "aria-label": this.#words.label },
        this.#zone,
        this.#notes,
        this.#shelf,
      ),
      this.#input,
    );
    this.#input.addEventListener("change", () => this.#chosen(), { signal: life });
    this.#zone.addEventListener("dragover", (event) => this.#over(event), { signal: life });
    this.#zone.addEventListener("dragleave", (event) => this.#out(event), { signal: life });
    this.#zone.addEventListener("drop", (event) => this.#dropped(event), { signal: life });
    document.addEventListener("dragover", refuseElsewhere, { signal: life });
    document.addEventListener("drop", refuseElsewhere, { signal: life });
    document.addEventListener("paste", (event) => this.#pasted(event), { signal: life });
    this.#showInvitation();
    this.#showExamples();
  }

  release() {
    this.#sending?.abort();
    this.#sending = null;
    this.#closeCamera();
  }

  /** Show other controls in the zone; focus that was on the old ones goes to the first new one. */
  #fillZone(...nodes) {
    const focused = this.#zone.contains(document.activeElement);
    this.#zone.replaceChildren(...nodes);
    if (focused) this.#zone.querySelector("button")?.focus({ preventScroll: true });
  }

  #say(text, options) {
    this.#notes.replaceChildren(...(text ? [message(text, options)] : []));
  }

  #showInvitation() {
    this.#input.accept = this.getAttribute("accept") ?? this.#words.accept;
    const choose = button("Choose a file", () => this.#input.click(), { symbol: "upload", primary: true });
    const camera = button("Use the camera", () => this.#openCamera(), { symbol: "camera" });
    this.#fillZone(
      icon(this.#words.symbol),
      create("p", { class: "lsr-sentence", text: this.#words.invitation }),
      create("div", { class: "lsr-row lsr-centred" }, choose, this.#kind === "image" ? camera : null),
    );
  }

  #showExamples() {
    const examples = (this.examples ?? []).filter(({ url }) => ownAddress(url));
    const items = examples.map(({ key, title, url }) =>
      create(
        "button",
        { type: "button", class: "lsr-example", on: { click: () => this.#takeExample(key, title) } },
        this.#thumbnail(url),
        create("span", { text: title }),
      ),
    );
    const label = create("p", { class: "lsr-label", text: "Or take an example" });
    this.#shelf.replaceChildren(...(items.length ? [label, create("div", { class: "lsr-examples" }, ...items)] : []));
  }

  #thumbnail(url) {
    if (this.#kind === "image") return create("img", { src: url, alt: "", loading: "lazy", decoding: "async" });
    // The first frame of a video stands for it.
    return create("video", { src: url, muted: true, playsinline: true, preload: "metadata", "aria-hidden": "true" });
  }

  #takeExample(key, name) {
    this.release();
    this.#showInvitation();
    this.#say(`Example: ${name}.`);
    this.#tell({ example: key, name });
  }

  #tell(detail) {
    this.dispatchEvent(new CustomEvent("lsr-input", { detail, bubbles: true, composed: true }));
  }

  #chosen() {
    const files = [...this.#input.files];
    this.#input.value = ""; // so that the same file can be chosen again
    this.#take(files);
  }

  #over(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    this.#zone.classList.add("lsr-zone-over");
  }

  #out(event) {
    if (!this.#zone.contains(event.relatedTarget)) this.#zone.classList.remove("lsr-zone-over");
  }

  #dropped(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    this.#zone.classList.remove("lsr-zone-over");
    const folder = [...event.dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    if (folder) this.#say("That is a folder. Drop a single file.", { error: true });
    else this.#take([...event.dataTransfer.files]);
  }

  #pasted(event) {
    if (this.#kind !== "image" || event.defaultPrevented || !this.getClientRects().length) return;
    const pictures = [...(event.clipboardData?.files ?? [])].filter(({ type }) => type.startsWith("image/"));
    if (!pictures.length) return;
    event.preventDefault();
    this.#take(pictures);
  }

  #take(files) {
    if (!files.length) return;
    const [file] = files;
    const refused = this.#refusal(file);
    if (refused) {
      this.#say(refused, { error: true });
      return;
    }
    this.#say(files.length > 1 ? `${files.length} files were given. The first, ${file.name}, is taken.` : "");
    this.#send(file);
  }

  #refusal({ name, size }) {
    const most = Number(this.getAttribute("max-bytes")) || Infinity;
    if (size === 0) return `${name} is empty. Choose another file.`;
    if (size <= most) return null;
    return `${name} has ${bytes(size)}; at most ${bytes(most)} are taken.`;
  }

  async #send(file) {
    this.release();
    const sending = new AbortController();
    this.#sending = sending;
    const { bar, set } = progressBar(`Sending ${file.name}`);
    const text = create("p", { class: "lsr-sentence", text: `Sending ${file.name}` });
    const state = create("p", { class: "lsr-quiet lsr-number" });
    this.#fillZone(text, bar, state, button("Cancel", () => this.#cancel()));
    const show = (share) => {
      state.textContent = share === 1 ? "Sent. The server reads it." : percent(share ?? 0);
      set(share, state.textContent);
    };
    show(0);
    try {
      const address = this.getAttribute("upload-url") ?? "/lsr/uploads";
      const { upload, name } = await sendFile(file, address, show, sending.signal);
      this.#finish(`${name} was sent.`);
      this.#tell({ upload, name });
    } catch (error) {
      if (!sending.signal.aborted) this.#finish(sentenceFor(error), { error: true });
    }
  }

  #finish(text, options = {}) {
    this.#sending = null;
    this.#showInvitation();
    // The line about several files stays, and what came of it follows.
    if (options.error) this.#notes.replaceChildren();
    this.#notes.append(message(text, options));
  }

  #cancel() {
    this.release();
    this.#showInvitation();
    this.#say("Stopped. Nothing was sent.");
  }

  async #openCamera() {
    this.release();
    this.#say("");
    const opening = new AbortController();
    this.#opening = opening;
    const wait = create("p", { class: "lsr-sentence", role: "status", text: OPENING });
    this.#fillZone(wait, button("Close", () => this.#leaveCamera()));
    try {
      const stream = await openCamera(opening.signal, { width: { ideal: 1920 } });
      this.#stream = stream;
      this.#showPreview(stream);
    } catch (error) {
      if (opening.signal.aborted) return;
      this.#leaveCamera();
      this.#say(sentenceFor(error), { error: true });
    }
  }

  #showPreview(stream) {
    const video = create("video", { class: "lsr-preview", playsinline: true, "aria-label": "What the camera sees" });
    video.muted = true;
    video.srcObject = stream;
    video.play().catch(() => {}); // refused only when the element is taken away meanwhile
    stream.getVideoTracks()[0].addEventListener("ended", () => {
      if (this.#stream !== stream) return;
      this.#leaveCamera();
      this.#say(DISCONNECTED, { error: true });
    });
    const take = button("Take the picture", () => this.#takePicture(video), { symbol: "camera", primary: true });
    take.setAttribute("aria-disabled", "true"); // until there is one to take; a disabled button would lose the focus
    video.addEventListener("loadeddata", () => take.removeAttribute("aria-disabled"), { once: true });
    const close = button("Close", () => this.#leaveCamera());
    this.#fillZone(video, create("div", { class: "lsr-row lsr-centred" }, take, close));
  }

  #takePicture(video) {
    if (!video.videoWidth) return;
    const canvas = create("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const stream = this.#stream;
    canvas.toBlob(
      (blob) => {
        if (this.#stream !== stream || !blob) return;
        this.#take([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
      },
      "image/jpeg",
      0.92,
    );
  }

  #leaveCamera() {
    this.#closeCamera();
    this.#showInvitation();
  }

  #closeCamera() {
    this.#opening?.abort();
    this.#opening = null;
    closeCamera(this.#stream);
    this.#stream = null;
  }
}

/** A file let fall beside the zone would make the browser leave the page for it. */
function refuseElsewhere(event) {
  if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "none";
}

/** Write a size as the server does. */
function bytes(count) {
  const [value, unit] = count < 1e6 ? [count / 1e3, "kB"] : [count / 1e6, "MB"];
  return `${value.toFixed(value < 10 ? 1 : 0)} ${unit}`;
}
