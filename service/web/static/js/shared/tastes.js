// @ts-check
/**
 * Which of the person's tastes this browser is in, and the select that changes it. A taste begins on
 * the service with the first answer or words that are sent for it; until then only this browser knows.
 */
import { currentTaste, getTastes, inWords, useTaste } from "./api.js";
import { byId, make, showError } from "./dom.js";
import { memory } from "./memory.js";

/** @typedef {import("./api.js").Taste} Taste */

const NAME = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$/;
const store = memory("taste", { name: /** @type {string | null} */ (null) });
useTaste(store.read().name);

/** What a taste is called on the pages. @param {string | null} name */
export const calledTaste = (name) => name ?? "My first taste";

/** From now on, and after a reload, everything is of this taste. @param {string | null} name */
export function chooseTaste(name) {
  store.write({ name });
  useTaste(name);
}

/**
 * What this browser remembers of the taste that it is in.
 * @template T
 * @param {string} name
 * @param {T} empty
 */
export const memoryOfTaste = (name, empty) => memory(currentTaste() === null ? name : `${name}.${currentTaste()}`, empty);

/**
 * Draws the select, and offers a new taste as long as there is room for one.
 * @param {(name: string | null) => void} onChange  called with the taste that was chosen
 * @returns {Promise<Taste[]>} those that the service knows
 */
export async function drawTastes(onChange) {
  wire(onChange);
  const { results, most } = await getTastes();
  const names = results.map(({ taste }) => taste);
  if (!names.includes(currentTaste())) names.push(currentTaste());
  byId("taste-select").replaceChildren(...names.map((name) => make("option", { value: name ?? "" }, calledTaste(name))));
  byId("taste-select").value = currentTaste() ?? "";
  byId("taste-new").hidden = names.length > most;
  byId("tastes").hidden = false;
  return results;
}

let wired = false;

/** @param {(name: string | null) => void} onChange */
function wire(onChange) {
  if (wired) return;
  wired = true;
  /** @type {HTMLDialogElement} */
  const dialog = byId("taste-dialog");
  const choose = (/** @type {string | null} */ name) => {
    chooseTaste(name);
    onChange(name);
  };
  byId("taste-select").addEventListener("change", () => choose(byId("taste-select").value || null));
  byId("taste-new").addEventListener("click", () => {
    byId("taste-name").value = "";
    showError(byId("taste-error"), null);
    dialog.showModal();
  });
  byId("taste-cancel").addEventListener("click", () => dialog.close());
  byId("taste-form").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const name = byId("taste-name").value.trim();
    if (!NAME.test(name)) {
      showError(byId("taste-error"), "A name has 1 to 64 letters from a to z, digits, dots, lines or dashes, and no spaces.");
      byId("taste-name").focus();
      return;
    }
    dialog.close();
    choose(name);
  });
}

/** The same, where the page goes on without it. @param {(name: string | null) => void} onChange */
export async function drawTastesOrSay(onChange) {
  try {
    return await drawTastes(onChange);
  } catch (error) {
    console.warn(`the tastes could not be loaded: ${inWords(error)}`);
    return [];
  }
}
