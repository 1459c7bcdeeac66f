// @ts-check
/** Finds pairs: the next one to ask, and the ones behind answers given earlier. */
import { getPairs, getQuiz } from "../shared/api.js";

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

/**
 * The service's next question, past those shown or skipped.
 * @param {Set<string>} shown    asked in this round or answered before
 * @param {Set<string>} skipped
 * @returns {Promise<Pair | null>} null when every pair was shown or skipped
 */
export async function nextPair(shown, skipped) {
  const fresh = (/** @type {Pair} */ pair) => !shown.has(pair.pair_id) && !skipped.has(pair.pair_id);
  const quiz = await getQuiz();
  const offered = quiz.pairs.find(fresh);
  if (offered) return offered;
  for await (const pair of allPairs()) {
    if (fresh(pair)) return pair;
  }
  return null;
}
