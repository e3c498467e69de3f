/**
 * What the page's elements share: building nodes without innerHTML, and the life of an element whose content comes
 * through properties. It knows nothing of pictures, videos or the server.
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Build an HTML node. Texts become text nodes, so data can never turn into markup.
 * @param {string} tag
 * @param {object} [options] `class`, `text`, `on` ({event: listener}), `data` ({name: value}) and attributes;
 *   an attribute that is null or false is left out.
 * @param {...(Node|string|null)} children
 * @returns {HTMLElement}
 */
export function create(tag, options = {}, ...children) {
  return fill(document.createElement(tag), options, children);
}

/**
 * Build an SVG node, with the same options as `create`.
 * @returns {SVGElement}
 */
export function createSvg(tag, options = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), options, children);
}

function fill(node, { class: classes, text, on = {}, data = {}, ...attributes }, children) {
  if (classes) node.setAttribute("class", classes);
  if (text !== undefined && text !== null) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  Object.assign(node.dataset, data);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/**
 * An element in the light DOM that draws itself anew whenever one of its properties changes.
 *
 * A subclass names its `properties`, draws in `render()` and lets go of everything in `release()`; both may be called
 * often. Properties that were set before the class was defined are taken over, equal values are ignored.
 */
export class ContentElement extends HTMLElement {
  static properties = ["data"];

  #texts = new Map();
  #values = new Map();
  #life = null;

  /** Give a subclass its accessors; called once, before it is defined. */
  static declare() {
    for (const name of this.properties) {
      Object.defineProperty(this.prototype, name, {
        get() {
          return this.read(name);
        },
        set(value) {
          this.write(name, value);
        },
        configurable: true,
        enumerable: true,
      });
    }
    return this;
  }

  /** @returns {AbortSignal} aborted when the element leaves the page. */
  get life() {
    return this.#life.signal;
  }

  read(name) {
    return this.#values.get(name) ?? null;
  }

  write(name, value) {
    const text = JSON.stringify(value ?? null);
    if (this.#texts.get(name) === text) return;
    this.#texts.set(name, text);
    this.#values.set(name, JSON.parse(text)); // our own copy: a framework may go on changing its object
    if (this.#life) this.render(name);
  }

  connectedCallback() {
    this.#life = new AbortController();
    for (const name of this.constructor.properties) this.#upgrade(name);
    this.render(null);
  }

  disconnectedCallback() {
    this.#life?.abort();
    this.#life = null;
    this.release();
  }

  /** Take a property over that was set on the plain node, where it hides our accessor. */
  #upgrade(name) {
    if (!Object.hasOwn(this, name)) return;
    const value = this[name];
    delete this[name];
    const life = this.#life;
    this.#life = null; // one drawing follows for all properties
    this.write(name, value);
    this.#life = life;
  }

  render() {}

  release() {}

  /**
   * Replace the content and keep the focus: on the control of the same `data-key`, else on the new content.
   * @param {...Node} nodes the first one must be focusable.
   */
  swap(...nodes) {
    const focused = this.contains(document.activeElement) ? document.activeElement : null;
    const key = focused?.dataset.key;
    this.replaceChildren(...nodes);
    if (!focused) return;
    const again = key && this.querySelector(`[data-key="${CSS.escape(key)}"]`);
    (again || nodes[0]).focus({ preventScroll: true });
  }
}
