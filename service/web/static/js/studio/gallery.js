// @ts-check
/** The pairs painted in this browser, newest first. Only where they are is kept here; the service keeps the pictures. */
import { byId, make } from "../shared/dom.js";

/**
 * @typedef {{prompt: string, seed: number, strength: number, taste?: string | null, code?: string | null}} Wish
 * @typedef {{url: string, jobId: string}} Made
 * @typedef {{swapped: boolean, known?: boolean}} Blind   known: the base of this prompt and seed was told already
 * @typedef {Wish & {mine: Made, base: Made, applied: boolean, reason: string | null, facts: [string, string][], warnings: string[], blind?: Blind, said?: import("../shared/api.js").Preferred}} PaintedPair
 *   taste: the name of the person's own, null the first; code: of somebody's that was shared
 *   blind: painted without telling which is which; swapped: the base hangs first. said: which was liked better
 */

const KEPT = 24;

/** @param {Wish} a @param {Wish} b */
const sameWish = (a, b) => a.prompt === b.prompt && a.seed === b.seed && a.strength === b.strength &&
  (a.taste ?? null) === (b.taste ?? null) && (a.code ?? null) === (b.code ?? null);

/** @param {PaintedPair[]} pairs @param {PaintedPair} pair @returns {PaintedPair[]} */
export const withPair = (pairs, pair) => [pair, ...pairs.filter((other) => !sameWish(other, pair))].slice(0, KEPT);

/**
 * @param {PaintedPair[]} pairs
 * @param {PaintedPair | null} current
 * @param {(pair: PaintedPair) => void} onPick
 */
export function drawGallery(pairs, current, onPick) {
  byId("gallery-empty").hidden = pairs.length > 0;
  byId("gallery-clear").hidden = pairs.length === 0;
  byId("gallery").replaceChildren(
    ...pairs.map((pair) => {
      const numbers = `seed ${pair.seed} · ${pair.strength.toFixed(2)}`;
      const item = make(
        "button",
        { type: "button", class: "gallery-item", "aria-current": String(current !== null && sameWish(pair, current)) },
        make("span", { class: "gallery-pictures" }, ...thumbs(pair)),
        make("span", { class: "gallery-words" }, pair.prompt),
        make("span", { class: "gallery-numbers" }, numbers),
      );
      item.addEventListener("click", () => onPick(pair));
      return make("li", {}, item);
    }),
  );
}

/** In the order in which they hang. @param {PaintedPair} pair */
function thumbs(pair) {
  const both = [thumb(pair.mine.url), thumb(pair.base.url)];
  return pair.blind?.swapped && pair.said === undefined ? both.reverse() : both;
}

/** @param {string} src */
const thumb = (src) => make("img", { src, alt: "", width: "128", height: "128", loading: "lazy" });
