// @ts-check
/**
 * Four choices, one pair at a time. One click or one key on a picture answers and goes on; Back takes
 * it up again. Arrow keys, and a screen reader that sets a radio button, only choose: Enter or Next
 * goes on. Every answer is saved before the next pair appears, and one that was not saved waits here
 * with its own retry.
 */
import { ApiError, inWords, newKey, postChoice } from "../shared/api.js";
import { announce, byId, sleep } from "../shared/dom.js";
import { memoryOfTaste } from "../shared/tastes.js";
import { lookAhead, nextPair, pairsById } from "./pool.js";
import * as steps from "./trail.js";

const DOUBLE_CLICK_MS = 400;
const DECODE_MS = 4000; // a picture that takes longer comes in its own time
const SEEN_MS = 120; // how long what was chosen is seen before the next pair hangs there
/** Which answer a key gives, as the radio button's place. @type {Record<string, number>} */
const KEYS = { 1: 0, 2: 1, 0: 2 };

const store = memoryOfTaste("quiz", steps.EMPTY_ROUND);
/** @type {steps.Round} */
let round = steps.EMPTY_ROUND;
/** @type {Set<string>} */
let answeredBefore = new Set();
let busy = false;
let shownAt = 0;
/** @type {{onComplete: () => void, onLeave: () => void}} */
let callbacks;

/**
 * Opens the quiz where it was left.
 * @param {import("../shared/api.js").Preferences} held
 * @param {{force?: boolean, again?: boolean}} [how]  again: a new round, whatever was answered before
 * @returns {Promise<boolean>} false when there is nothing to ask
 */
export async function openQuiz(held, how = {}) {
  const saved = store.read();
  const ids = new Set(held.choices.flatMap((choice) => choice.pair_id ?? []));
  answeredBefore = ids;
  if (how.again) {
    round = { ...steps.EMPTY_ROUND, again: true };
  } else {
    const lost = [...ids].filter((id) => !saved.trail.some((entry) => entry.pair.pair_id === id));
    const pool = await pairsById(saved.again ? new Set() : new Set(lost));
    round = steps.reconcile(saved, held.choices, pool);
  }
  const settled = steps.decidedCount(held.choices.filter((choice) => choice.counts)) >= steps.NEEDED || held.profile !== null;
  const open = round.again ? !steps.isComplete(round) : !settled || round.pending !== null;
  if (!open && !how.force) return false;
  if (steps.isComplete(round)) round = { ...round, at: round.trail.length - 1 };
  byId("quiz-keep").hidden = held.profile === null;
  await present({ focus: false });
  if (round.pending) offerRetry("An answer was not saved.");
  return true;
}

/** @param {{onComplete: () => void, onLeave: () => void}} given */
export function wireQuiz(given) {
  callbacks = given;
  const once = (/** @type {() => void} */ act) => (/** @type {MouseEvent} */ event) => {
    if (event.detail < 2) act();
  };
  byId("quiz-form").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    guarded(next);
  });
  byId("quiz-back").addEventListener("click", once(() => guarded(goBack)));
  byId("quiz-skip").addEventListener("click", once(() => guarded(skipPair)));
  byId("quiz-retry").addEventListener("click", once(() => guarded(next)));
  byId("quiz-leave").addEventListener("click", () => {
    keep({ ...steps.EMPTY_ROUND });
    callbacks.onLeave();
  });
  byId("quiz-group").addEventListener("change", () => {
    hideError();
    offerNext();
  });
  choices().forEach((radio, place) => {
    radio.closest("label")?.addEventListener("click", (event) => pointed(event, place));
    radio.addEventListener("keydown", (event) => {
      if (event.key === " " || event.key === "Enter") pressed(event, place);
    });
  });
  document.addEventListener("keydown", (event) => {
    const place = KEYS[event.key];
    if (place !== undefined && hasTheKeys()) pressed(event, place);
  });
}

/** A click on a picture. One on the radio button itself comes of arrow keys and screen readers. @param {MouseEvent} event @param {number} place */
function pointed(event, place) {
  if (event.target === choices()[place]) return;
  event.preventDefault();
  const doubled = event.detail > 1 && performance.now() - shownAt < DOUBLE_CLICK_MS;
  if (!doubled) pick(place);
}

/** @param {KeyboardEvent} event @param {number} place */
function pressed(event, place) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  if (!event.repeat) pick(place);
}

/** Whether keys are meant for the quiz: it is open, and the focus is in it or nowhere. */
function hasTheKeys() {
  const focused = document.activeElement;
  const here = focused === null || focused === document.body || byId("quiz-form").contains(focused);
  return !byId("quiz").hidden && here;
}

/** Answers with this picture, or with neither, and goes on. @param {number} place */
function pick(place) {
  if (busy || round.at >= round.trail.length) return;
  const radio = choices()[place];
  radio.checked = true;
  radio.focus({ preventScroll: true });
  hideError();
  guarded(next);
}

/** One step at a time; a second click while one is under way does nothing. @param {() => Promise<void>} act */
async function guarded(act) {
  if (busy) return;
  busy = true;
  byId("quiz-form").setAttribute("aria-busy", "true");
  try {
    await act();
  } catch (error) {
    offerRetry(`Not saved. ${inWords(error)}`);
  } finally {
    busy = false;
    byId("quiz-form").removeAttribute("aria-busy");
  }
}

async function next() {
  if (round.at >= round.trail.length) return present({ focus: true });
  const preferred = selection();
  if (preferred === undefined) {
    if (performance.now() - shownAt > DOUBLE_CLICK_MS) {
      showHint("Choose a picture first, or “No preference”.");
    }
    return;
  }
  const entry = round.trail[round.at];
  const seen = sleep(SEEN_MS);
  if (entry.preferred !== preferred) await save(entry.pair.pair_id, preferred);
  await seen;
  keep(steps.answer(round, preferred));
  if (steps.isComplete(round)) {
    finish();
    return;
  }
  await present({ focus: true, saved: preferred === null ? "Saved as a tie." : "Saved." });
}

/** @param {string} pairId @param {import("../shared/api.js").Preferred} preferred */
async function save(pairId, preferred) {
  const waiting = round.pending;
  const same = waiting?.pair_id === pairId && waiting.preferred === preferred;
  const pending = same ? waiting : { pair_id: pairId, preferred, key: newKey() };
  keep({ ...round, pending });
  await postChoice(pairId, preferred, pending.key);
  answeredBefore.add(pairId);
}

async function goBack() {
  keep(steps.back(round));
  await present({ focus: true });
}

async function skipPair() {
  const entry = round.trail[round.at];
  if (entry && !steps.isAnswered(entry)) keep(steps.skip(round));
  else keep({ ...round, at: round.at + 1 });
  await present({ focus: true, saved: "Skipped, nothing saved." });
}

function finish() {
  byId("quiz-error").hidden = true;
  if (round.again) keep({ ...steps.EMPTY_ROUND });
  announce("All four choices are saved.");
  callbacks.onComplete();
}

/** Shows the current question, asking the service for a new one when the trail ends. @param {{focus: boolean, saved?: string}} how */
async function present(how) {
  if (round.at >= round.trail.length) {
    try {
      const pair = await findPair();
      if (pair === null) return noPairsLeft();
      keep(steps.ask(round, pair));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      offerRetry(`The next pair could not be loaded. ${inWords(error)}`);
      return;
    }
  }
  await draw(how);
}

async function findPair() {
  const shown = shownPairs();
  const pair = await nextPair(shown, new Set(round.skipped));
  if (pair !== null || round.skipped.length === 0) return pair;
  keep({ ...round, skipped: [] });
  return nextPair(shown, new Set());
}

/** The pairs that were asked in this round or answered before. */
const shownPairs = () => new Set([...answeredBefore, ...round.trail.map((entry) => entry.pair.pair_id)]);

/** @param {{focus: boolean, saved?: string}} how */
async function draw(how) {
  const entry = round.trail[round.at];
  const pair = entry.pair;
  const order = pair.order ?? [0, 1];
  await Promise.all(order.map((index, side) => hang(side, pair.images[index])));
  byId("quiz-caption").textContent = pair.caption;
  const value = round.pending?.pair_id === pair.pair_id ? round.pending.preferred : entry.preferred;
  const radios = choices();
  order.forEach((index, side) => (radios[side].value = String(index)));
  for (const radio of radios) radio.checked = value !== undefined && radio.value === String(value ?? "tie");
  hideError();
  drawProgress();
  byId("quiz-back").disabled = round.at === 0;
  offerNext();
  byId("quiz-skip").hidden = steps.isAnswered(entry); // Next leaves an answer as it is
  shownAt = performance.now();
  const number = `Pair ${steps.questionNumber(round)} of ${steps.NEEDED}.`;
  if (how.saved) announce(`${how.saved} ${number}`);
  lookAhead(shownPairs(), new Set(round.skipped));
  if (how.focus) (radios.find((radio) => radio.checked) ?? radios[0]).focus({ preventScroll: true });
}

/** Shows a picture once it is decoded, so that a pair never appears half. @param {number} side @param {import("../shared/api.js").PairImage} image */
async function hang(side, image) {
  const shown = byId(`choice-image-${side}`);
  shown.alt = `${side === 0 ? "Left" : "Right"} picture: ${image.alt}`;
  shown.src = image.url;
  const decoded = shown.decode().catch(() => undefined); // a picture that fails still has its alt text
  await Promise.race([decoded, sleep(DECODE_MS)]);
}

/** Next is there for what is chosen and not sent yet. */
function offerNext() {
  byId("quiz-next").hidden = selection() === undefined;
}

function drawProgress() {
  const number = steps.questionNumber(round);
  byId("quiz-count").textContent = `${number} of ${steps.NEEDED}`;
  const decided = steps.decidedCount(round.trail);
  [...byId("quiz-dots").children].forEach((dot, i) => {
    dot.className = i + 1 === number ? "now" : i < decided ? "done" : "";
  });
}

function noPairsLeft() {
  showHint("That was every pair there is. Go back to change a tie into a choice.");
}

/** @returns {HTMLInputElement[]} */
const choices = () => [...byId("quiz-form").elements.namedItem("preferred")];

/** @returns {import("../shared/api.js").Preferred | undefined} */
function selection() {
  const value = choices().find((radio) => radio.checked)?.value;
  if (value === undefined) return undefined;
  return value === "tie" ? null : value === "0" ? 0 : 1;
}

/** @param {steps.Round} changed */
function keep(changed) {
  round = changed;
  store.write(round);
}

/** @param {string} sentence */
function offerRetry(sentence) {
  byId("quiz-error-text").textContent = sentence;
  byId("quiz-retry").hidden = false;
  byId("quiz-error").hidden = false;
}

/** @param {string} sentence */
function showHint(sentence) {
  byId("quiz-error-text").textContent = sentence;
  byId("quiz-retry").hidden = true;
  byId("quiz-error").hidden = false;
}

function hideError() {
  byId("quiz-error").hidden = true;
}
