// @ts-check
/**
 * The questions of one round of the quiz, in the order shown. Plain data and pure steps: no document,
 * no network. At most the last entry is unanswered.
 *
 * @typedef {import("../shared/api.js").Pair} Pair
 * @typedef {import("../shared/api.js").Preferred} Preferred
 * @typedef {{pair: Pair, preferred?: Preferred}} Entry   no `preferred`: not answered yet
 * @typedef {{pair_id: string, preferred: Preferred, key: string}} Pending
 * @typedef {{again: boolean, trail: Entry[], at: number, skipped: string[], pending: Pending | null}} Round
 *   again: a later round, which counts its own answers only
 */

export const NEEDED = 4;

/** @type {Round} */
export const EMPTY_ROUND = { again: false, trail: [], at: 0, skipped: [], pending: null };

/** @param {Entry} entry */
export const isAnswered = (entry) => entry.preferred !== undefined;

/** @param {readonly {preferred?: Preferred}[]} trail */
export const decidedCount = (trail) =>
  trail.filter((entry) => entry.preferred === 0 || entry.preferred === 1).length;

/** @param {Round} round */
export const isComplete = (round) =>
  decidedCount(round.trail) >= NEEDED && round.trail.every(isAnswered);

/**
 * The place of the current question among the four, counting decided answers before it.
 * @param {Round} round
 */
export const questionNumber = (round) =>
  Math.min(decidedCount(round.trail.slice(0, round.at)) + 1, NEEDED);

/**
 * Brings the trail in line with what the service holds.
 * @param {Round} round
 * @param {import("../shared/api.js").RecordedChoice[]} recorded  oldest first
 * @param {Map<string, Pair>} pool
 * @returns {Round}
 */
export function reconcile(round, recorded, pool) {
  const held = new Map(recorded.map((choice) => [choice.pair_id, choice.preferred]));
  const known = new Set(round.trail.map((entry) => entry.pair.pair_id));
  /** @type {Entry[]} */
  const earlier = [];
  if (!round.again) {
    for (const { pair_id, preferred } of recorded) {
      const pair = pair_id === null ? undefined : pool.get(pair_id);
      if (pair && !known.has(pair.pair_id)) earlier.push({ pair, preferred });
    }
  }
  const trail = [...earlier, ...round.trail.map((entry) => settle(entry, held))];
  const open = trail.filter((entry) => !isAnswered(entry)).slice(0, 1);
  const answered = trail.filter(isAnswered);
  const at = Math.min(round.at + earlier.length, answered.length + open.length);
  return { ...round, trail: [...answered, ...open], at };
}

/** @param {Entry} entry @param {Map<string | null, Preferred>} held @returns {Entry} */
function settle(entry, held) {
  const preferred = held.get(entry.pair.pair_id);
  return preferred === undefined ? { pair: entry.pair } : { pair: entry.pair, preferred };
}

/** @param {Round} round @param {Preferred} preferred @returns {Round} */
export function answer(round, preferred) {
  const trail = round.trail.map((entry, i) => (i === round.at ? { ...entry, preferred } : entry));
  return { ...round, trail, at: round.at + 1, pending: null };
}

/** @param {Round} round @returns {Round} */
export function skip(round) {
  const pairId = round.trail[round.at].pair.pair_id;
  const trail = round.trail.filter((_, i) => i !== round.at);
  return { ...round, trail, pending: null, skipped: [...round.skipped, pairId] };
}

/** @param {Round} round @returns {Round} */
export const back = (round) => ({ ...round, at: Math.max(0, round.at - 1), pending: null });

/** @param {Round} round @param {Pair} pair @returns {Round} */
export const ask = (round, pair) => ({ ...round, trail: [...round.trail, { pair }] });
