// @ts-check
/**
 * "Which do you like better?" under the two pictures: one click, which teaches the taste. Asked blind,
 * the pictures hang in an order by chance and nothing tells which is which until it is answered.
 */
import { inWords, newKey, postBetter } from "../shared/api.js";
import { announce, byId, showError } from "../shared/dom.js";

/**
 * @typedef {import("./gallery.js").PaintedPair} PaintedPair
 * @typedef {import("../shared/api.js").Preferred} Preferred
 * @typedef {import("./frames.js").Kind} Kind
 */

/** What the picture of a kind is in an answer: the person's own is always named first. */
const PLACE = /** @type {Record<Kind, 0 | 1>} */ ({ mine: 0, base: 1 });
/** @type {PaintedPair | null} */
let asked = null;
/** @type {(pair: PaintedPair) => void} */
let changed;

/** @param {{blind: boolean, onBlind: (blind: boolean) => void, onAnswered: (pair: PaintedPair) => void}} options */
export function wireBetter({ blind, onBlind, onAnswered }) {
  changed = onAnswered;
  byId("blind").checked = blind;
  byId("blind").addEventListener("change", () => onBlind(byId("blind").checked));
  for (const kind of /** @type {Kind[]} */ (["mine", "base"])) {
    byId(`better-${kind}`).addEventListener("click", () => answer(PLACE[kind]));
  }
  byId("better-neither").addEventListener("click", () => answer(null));
}

/** @param {PaintedPair} pair */
export const isMasked = (pair) => pair.blind !== undefined && pair.said === undefined;

/**
 * Hides which frame is whose, or tells. @param {{swapped: boolean} | null} blind
 */
export function mask(blind) {
  const frames = byId("frames");
  frames.toggleAttribute("data-blind", blind !== null);
  const [first, second] = blind?.swapped ? ["base", "mine"] : ["mine", "base"];
  frames.append(byId(`frame-${first}`), byId(`frame-${second}`));
  byId("view-flip").disabled = blind !== null;
}

/** Asks about a pair, or says what was answered. @param {PaintedPair | null} pair */
export function askBetter(pair) {
  asked = pair;
  const open = pair !== null && pair.applied && !pair.code && pair.said === undefined;
  for (const id of ["better-question", "better-neither", "better-mine", "better-base"]) byId(id).hidden = !open;
  const said = pair?.said === undefined ? "" : pair.said === null ? "You liked neither better." : pair.said === PLACE.mine ? "You liked yours better." : "You liked the base better.";
  byId("better-said").textContent = said && `${said} It counts as one of your answers.`;
  showError(byId("better-error"), null);
}

/** @param {Preferred} preferred */
async function answer(preferred) {
  const pair = asked;
  if (pair === null || byId("better-neither").disabled) return;
  setBusy(true);
  try {
    await postBetter([idOf(pair.mine.url), idOf(pair.base.url)], preferred, pair.blind !== undefined && !pair.blind.known, pair.taste ?? null, newKey());
    pair.said = preferred;
    announce("Your answer is saved.");
    changed(pair);
  } catch (error) {
    showError(byId("better-error"), `Not saved. ${inWords(error)}`);
  } finally {
    setBusy(false);
  }
}

/** @param {boolean} busy */
function setBusy(busy) {
  for (const id of ["better-neither", "better-mine", "better-base"]) byId(id).disabled = busy;
}

/** @param {string} url */
const idOf = (url) => url.split("/").at(-1) ?? "";
