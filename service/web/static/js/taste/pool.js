// @ts-check
/** Finds pairs: the next one to ask, and the ones behind answers given earlier. */
import { ApiError, getPairs, getQuiz } from "../shared/api.js";

/** @typedef {import("../shared/api.js").Pair} Pair */

/** @returns {AsyncGenerator<Pair>} every pair of the pool, page by page */
async function* allPairs() {
  /** @type {string | null} */
  let cursor = null;
  do {
    const page = await getPairs(cursor);
    yield* page.results;
    cursor = page.next;
  } while (cursor);
}

/**
 * The pairs with these ids, for walking back through answers after a reload.
 * @param {Set<string>} ids
 * @returns {Promise<Map<string, Pair>>}
 */
export async function pairsById(ids) {
  /** @type {Map<string, Pair>} */
  const found = new Map();
  if (ids.size === 0) return found;
  for await (const pair of allPairs()) {
    if (ids.has(pair.pair_id)) found.set(pair.pair_id, pair);
    if (found.size === ids.size) break;
  }
  return found;
}

/** What the service would ask next when it was last asked, in this order. @type {Pair[]} */
let planned = [];

/** What may come once the first of these is answered. @type {Pair[]} */
let ahead = [];

async function plan() {
  ({ pairs: planned, ahead } = await getQuiz());
}

/** Pictures that are fetched before they are shown; kept, so that the browser keeps them too. @type {Map<string, HTMLImageElement>} */
const fetched = new Map();

/**
 * The service's next question, past those shown or skipped.
 * @param {Set<string>} shown    asked in this round or answered before
 * @param {Set<string>} skipped
 * @returns {Promise<Pair | null>} null when every pair was shown or skipped
 */
export async function nextPair(shown, skipped) {
  const fresh = (/** @type {Pair} */ pair) => !shown.has(pair.pair_id) && !skipped.has(pair.pair_id);
  await plan();
  const offered = planned.find(fresh);
  if (offered) return offered;
  for await (const pair of allPairs()) {
    if (fresh(pair)) return pair;
  }
  return null;
}

/**
 * Fetches the pictures of the pairs that come next, so that they are there when they are needed.
 * @param {Set<string>} shown
 * @param {Set<string>} skipped
 */
export async function lookAhead(shown, skipped) {
  const fresh = (/** @type {Pair} */ pair) => !shown.has(pair.pair_id) && !skipped.has(pair.pair_id);
  try {
    if (!planned.some(fresh)) await plan();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return; // whoever needs the pair asks again, and says what is wrong
  }
  for (const { url } of [...ahead, ...planned].filter(fresh).flatMap((pair) => pair.images)) {
    if (fetched.has(url)) continue;
    const image = new Image();
    image.src = url;
    fetched.set(url, image);
  }
}
