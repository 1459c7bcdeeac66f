// @ts-check
/** Small things every page needs of the document. Text goes in as text, never as markup. */

/**
 * The element with this id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * Says a sentence to assistive technology without moving focus.
 * @param {string} sentence
 */
export function announce(sentence) {
  byId("live").textContent = sentence;
}

/**
 * Fills and shows an error notice, or hides it when there is nothing to say.
 * @param {HTMLElement} box
 * @param {string | null} sentence
 * @param {HTMLElement} [target]  where the sentence goes; the box itself by default
 */
export function showError(box, sentence, target = box) {
  target.textContent = sentence ?? "";
  box.hidden = sentence === null;
}

/** @param {number} ms */
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
