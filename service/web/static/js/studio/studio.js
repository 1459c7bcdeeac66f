// @ts-check
/** START HERE for `/studio`: one prompt and seed, painted with the person's taste and without. */
import { ApiError, cancelJob, currentTaste, getJob, getPreferences, getVocabulary, inWords, newKey, postGenerate, sessionUser } from "../shared/api.js";
import { announce, byId, make, showError } from "../shared/dom.js";
import { askBetter, isMasked, mask, wireBetter } from "./better.js";
import { showContribution, wireContribution } from "./contribution.js";
import { drawPreview, drawProgress, drawStopped, hang, nameMine, setView, wireViews } from "./frames.js";
import { drawGallery, withPair } from "./gallery.js";
import { follow, hasEnded } from "../shared/jobs.js";
import { memory } from "../shared/memory.js";
import { chooseTaste, drawTastesOrSay } from "../shared/tastes.js";
import { drawHint, drawIdeas } from "../shared/vocabulary.js";
import { givenCode, setCode, wireSharing } from "./sharing.js";

/**
 * @typedef {import("./gallery.js").Wish} Wish
 * @typedef {import("./gallery.js").PaintedPair} PaintedPair
 * @typedef {import("./frames.js").Kind} Kind
 * @typedef {import("../shared/api.js").Job} Job
 * @typedef {Wish & {mine: string, base: string, blind?: import("./gallery.js").Blind}} Running   the two jobs under way
 */

const LARGEST_SEED = 2 ** 32 - 1;
const FRIENDLY_SEEDS = 1_000_000;
/** @type {Kind[]} */
const KINDS = ["mine", "base"];

const REASONS = /** @type {Record<string, string>} */ ({
  no_profile: "not personalised: there is no profile of you yet",
  encoding: "not personalised: your choices are still being read",
  strength_zero: "strength 0: exactly the base",
});
const SHARED_REASONS = /** @type {Record<string, string>} */ ({
  ...REASONS,
  no_profile: "not personalised: the shared taste has no profile yet",
  encoding: "not personalised: the shared taste is still being read",
});

const store = memory("studio", {
  prompt: "",
  strength: 1,
  seed: /** @type {number | null} */ (null),
  locked: false,
  view: "side",
  blind: false,
  code: /** @type {string | null} */ (null),
  pairs: /** @type {PaintedPair[]} */ ([]),
  running: /** @type {Running | null} */ (null),
});
const kept = store.read();
/** @type {PaintedPair | null} */
let shown = null;
let painting = false;
/** @type {import("./gallery.js").Blind | null} */
let blindPainting = null;
/** @type {Set<string>} */
let knownWords = new Set();

const remember = () => store.write(kept);

// --- the panel ---

function wirePanel() {
  if (byId("prompt").value === "") byId("prompt").value = kept.prompt; // else typed while loading
  byId("strength").value = String(kept.strength);
  byId("seed-lock").checked = kept.locked;
  setSeed(kept.seed ?? rollSeed());
  drawStrength();
  promptChanged();
  byId("prompt").addEventListener("input", promptChanged);
  byId("prompt").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      byId("studio-form").requestSubmit();
    }
  });
  byId("strength").addEventListener("input", drawStrength);
  byId("seed").addEventListener("input", () => setLocked(true));
  byId("dice").addEventListener("click", () => setSeed(rollSeed()));
  byId("seed-lock").addEventListener("change", () => setLocked(byId("seed-lock").checked));
  byId("studio-form").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    paint();
  });
  byId("cancel").addEventListener("click", cancel);
  byId("gallery-clear").addEventListener("click", () => {
    kept.pairs = [];
    remember();
    drawGallery(kept.pairs, shown, show);
  });
  byId("go").disabled = false;
}

function promptChanged() {
  kept.prompt = byId("prompt").value;
  remember();
  drawHint(kept.prompt, knownWords);
}

function drawStrength() {
  kept.strength = Number(byId("strength").value);
  remember();
  byId("strength-value").textContent = kept.strength.toFixed(2);
}

const rollSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % FRIENDLY_SEEDS;

/** @param {number} seed */
function setSeed(seed) {
  byId("seed").value = String(seed);
  kept.seed = seed;
  remember();
}

/** @param {boolean} locked */
function setLocked(locked) {
  byId("seed-lock").checked = locked;
  kept.locked = locked;
  remember();
}

/** @returns {Wish | string} what is asked for, or what is wrong with it */
function readWish() {
  const prompt = byId("prompt").value.trim();
  if (prompt === "") return "Write what the picture should show, or take one of the suggestions.";
  const digits = byId("seed").value.trim();
  const seed = Number(digits);
  if (!/^\d+$/.test(digits) || seed > LARGEST_SEED) return `The seed is a whole number from 0 to ${LARGEST_SEED}.`;
  return { prompt, seed, strength: kept.strength, taste: currentTaste(), code: givenCode() };
}

// --- painting ---

async function paint() {
  if (kept.running || byId("go").disabled) return;
  if (shown !== null && !kept.locked && String(shown.seed) === byId("seed").value) setSeed(rollSeed());
  const wish = readWish();
  if (typeof wish === "string") {
    refuse(wish);
    byId(wish.startsWith("The seed") ? "seed" : "prompt").focus();
    return;
  }
  refuse(null);
  setSeed(wish.seed);
  const known = kept.pairs.some((pair) => pair.prompt === wish.prompt && pair.seed === wish.seed && !isMasked(pair));
  const blind = kept.blind ? { swapped: crypto.getRandomValues(new Uint8Array(1))[0] % 2 === 1, known } : undefined;
  setPainting(true, blind);
  for (const kind of KINDS) drawProgress(kind, "Sending");
  bringIntoView(byId("frames"));
  const asked = await Promise.allSettled(KINDS.map((kind) => postGenerate(requestBody(wish, kind), newKey())));
  const refused = asked.find((answer) => answer.status === "rejected");
  const jobs = asked.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
  if (refused) {
    await Promise.allSettled(jobs.map((job) => cancelJob(job.id)));
    refuse(inWords(refused.reason));
    stopPainting();
    if (refused.reason.code === "share_not_found") byId("taste-code").focus();
    return;
  }
  kept.running = { ...wish, mine: jobs[0].id, base: jobs[1].id, blind };
  remember();
  await finishPainting(kept.running, jobs[0], jobs[1]);
}

/** @param {Wish} wish @param {Kind} kind */
function requestBody(wish, kind) {
  const { prompt, seed, strength, taste, code } = wish;
  if (kind === "base") return { prompt, seed };
  const whose = code ? { taste_code: code } : taste ? { taste } : {};
  return { prompt, seed, user_id: sessionUser(), ...whose, strength };
}

/** @param {Running} running @param {Job} mineJob @param {Job} baseJob */
async function finishPainting(running, mineJob, baseJob) {
  try {
    const { prompt } = running;
    const [mine, base] = await Promise.all([watch("mine", mineJob, prompt), watch("base", baseJob, prompt)]);
    const ended = [mine, base];
    if (ended.every((job) => job.status === "succeeded" && job.result)) {
      const pair = pairOf(running, mine, base);
      kept.pairs = withPair(kept.pairs, pair);
      kept.running = null;
      await show(pair, { fillForm: false });
      announce("Both pictures are painted.");
    } else if (ended.some((job) => job.status === "canceled")) {
      announce("Cancelled.");
    } else {
      const failed = ended.find((job) => job.status !== "succeeded");
      refuse(failed?.error?.detail ?? failed?.error?.title ?? "The picture could not be painted.");
    }
  } catch (error) {
    refuse(inWords(error));
  }
  kept.running = null;
  stopPainting();
}

/** @param {Kind} kind @param {Job} job @param {string} prompt */
function watch(kind, job, prompt) {
  const taste = kept.running?.blind ? "one of two" : kind === "mine" ? inTaste(kept.running) : "without it";
  if (hasEnded(job.status)) drawProgress(kind, "Done", 1); // painted before, and kept
  else drawProgress(kind, job.status === "queued" ? "Waiting for its turn" : "Painting");
  return follow(job, ({ status, step, steps }) => {
    if (step !== undefined && steps) drawProgress(kind, `Step ${step} of ${steps}`, step / steps);
    else if (status === "queued") drawProgress(kind, "Waiting for its turn");
    else if (status === "running") drawProgress(kind, "Painting");
    else if (status === "succeeded") drawProgress(kind, "Done", 1);
  }, ({ image, step, steps }) => {
    drawPreview(kind, image, `Preview of ${prompt}, ${taste}, not finished: step ${step} of ${steps}`, step / steps);
  });
}

/** @param {Running} wish @param {Job} mine @param {Job} base @returns {PaintedPair} */
function pairOf(wish, mine, base) {
  const made = (/** @type {Job} */ job) => ({ url: /** @type {any} */ (job.result).images[0].url, jobId: job.id });
  const result = /** @type {any} */ (mine.result);
  const facts = ["model", "adapter_version", "encoder_version", "profile_version"].flatMap((name) =>
    result[name] === null || result[name] === undefined ? [] : [/** @type {[string, string]} */ ([name.replace("_", " "), String(result[name])])],
  );
  const warnings = (result.warnings ?? []).map((/** @type {{detail: string}} */ warning) => warning.detail);
  const { prompt, seed, strength, taste, code, blind } = wish;
  if (result.shared_taste) facts.push(["taste", "shared with you"]);
  else if (result.taste) facts.push(["taste", result.taste]);
  return { prompt, seed, strength, taste, code, ...(blind && result.personalization_applied ? { blind } : {}), mine: made(mine), base: made(base), applied: result.personalization_applied, reason: result.reason ?? null, facts, warnings };
}

/** @param {{code?: string | null} | null} wish */
const inTaste = (wish) => (wish?.code ? "in a taste that was shared" : "in your taste");

async function cancel() {
  const running = kept.running;
  if (!running) return;
  byId("cancel").disabled = true;
  const answers = await Promise.allSettled(KINDS.map((kind) => cancelJob(running[kind])));
  const failed = answers.find((answer) => answer.status === "rejected" && answer.reason.status === 0);
  if (failed?.status === "rejected") refuse(`Not cancelled. ${inWords(failed.reason)}`);
  byId("cancel").disabled = false;
}

/** Takes up what was being painted when the page was left. */
async function resume() {
  const running = kept.running;
  if (!running) return;
  setPainting(true, running.blind);
  for (const kind of KINDS) drawProgress(kind, "Looking for it");
  try {
    const [mine, base] = await Promise.all([getJob(running.mine), getJob(running.base)]);
    await finishPainting(running, mine, base);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) refuse(inWords(error));
    kept.running = null;
    stopPainting();
  }
}

/** @param {boolean} now @param {import("./gallery.js").Blind} [blind] how the two hang, where nothing is to tell which is which */
function setPainting(now, blind) {
  painting = now;
  blindPainting = blind ?? null;
  tellWhichIsWhich();
  byId("go").disabled = painting;
  byId("go").textContent = painting ? "Painting" : "Paint both";
  byId("cancel").hidden = !painting;
}

function stopPainting() {
  remember();
  for (const kind of KINDS) drawStopped(kind);
  setPainting(false);
  drawGallery(kept.pairs, shown, show);
}

/** On a narrow screen the wall hangs below the form. @param {HTMLElement} element */
function bringIntoView(element) {
  const { top, bottom } = element.getBoundingClientRect();
  if (top >= 0 && bottom <= window.innerHeight) return;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
}

/** @param {string | null} sentence */
const refuse = (sentence) => showError(byId("studio-error"), sentence, byId("studio-error-text"));

// --- the wall ---

/** @param {PaintedPair} pair @param {{fillForm: boolean}} [how] */
async function show(pair, how = { fillForm: true }) {
  shown = pair;
  if (how.fillForm) fillForm(pair);
  const masked = isMasked(pair);
  tellWhichIsWhich();
  const file = (/** @type {string} */ kind) => `${pair.prompt.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60)}-${pair.seed}-${kind}.png`;
  const reasons = pair.code ? SHARED_REASONS : REASONS;
  const mineNote = pair.applied ? `strength ${pair.strength.toFixed(2)}` : reasons[pair.reason ?? ""] ?? "not personalised";
  await Promise.all([
    hang("mine", { url: pair.mine.url, note: mineNote, alt: `${pair.prompt}, ${masked ? "one of two" : inTaste(pair)}`, file: file("yours") }),
    hang("base", { url: pair.base.url, note: pair.code ? "same seed, without it" : "same seed, without you", alt: `${pair.prompt}, ${masked ? "one of two" : pair.code ? "without it" : "without your taste"}`, file: file("base") }),
  ]);
  nameMine(pair.code ? "Shared" : "Yours");
  byId("stage-caption").textContent = `${pair.prompt} · seed ${pair.seed}`;
  byId("stage-warning").textContent = (pair.warnings ?? []).join(" ");
  byId("facts-list").replaceChildren(...pair.facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  byId("facts").hidden = pair.facts.length === 0;
  drawGallery(kept.pairs, shown, show);
}

/** Labels the frames and asks which is liked better, unless that is not to be told, or not yet. */
function tellWhichIsWhich() {
  const open = shown !== null && isMasked(shown) ? shown.blind ?? null : null;
  const blind = painting ? blindPainting : open;
  mask(blind);
  setView(blind === null ? kept.view : "side");
  askBetter(painting ? null : shown);
}

/** @param {Wish} wish */
function fillForm(wish) {
  byId("prompt").value = wish.prompt;
  byId("strength").value = String(wish.strength);
  setSeed(wish.seed);
  setLocked(true);
  drawStrength();
  promptChanged();
  setCode(wish.code ?? null);
  codeChanged(wish.code ?? null);
  const known = [...byId("taste-select").options].some((option) => option.value === (wish.taste ?? ""));
  if (known && currentTaste() !== (wish.taste ?? null)) {
    byId("taste-select").value = wish.taste ?? "";
    chooseTaste(wish.taste ?? null);
    drawTaste();
  }
}

/** @param {string | null} code */
function codeChanged(code) {
  kept.code = code;
  remember();
  drawTaste();
}

// --- what is around ---

async function drawTaste() {
  const text = byId("taste-text");
  try {
    const { status, profile, contribute } = await getPreferences();
    showContribution(contribute);
    if (kept.code !== null) {
      text.textContent = "Painted in the taste that somebody shared with you. Empty the code to paint in your own.";
      byId("taste-link").textContent = "Your taste";
      return;
    }
    if (profile) text.textContent = profile.text;
    else if (status === "encoding") text.textContent = "Your choices are still being read. Until then both pictures are the same.";
    else text.textContent = "There is no profile of you yet, so both pictures will be the same.";
    byId("taste-link").textContent = profile ? "Read or change it" : status === "encoding" ? "Your taste" : "Make four choices";
  } catch (error) {
    text.textContent = `Your profile could not be loaded. ${inWords(error)}`;
  }
}

async function drawVocabulary() {
  try {
    const vocabulary = await getVocabulary();
    knownWords = new Set(vocabulary.words.map((word) => word.toLowerCase()));
    drawIdeas(vocabulary, (prompt) => {
      byId("prompt").value = prompt;
      promptChanged();
      byId("prompt").focus();
    });
    drawHint(kept.prompt, knownWords);
  } catch (error) {
    byId("prompt-hint").textContent = `Suggestions could not be loaded. ${inWords(error)}`;
  }
}

wirePanel();
wireContribution();
wireBetter({
  blind: kept.blind,
  onBlind: (blind) => {
    kept.blind = blind;
    remember();
  },
  onAnswered: (pair) => {
    remember();
    show(pair, { fillForm: false });
    drawTaste();
  },
});
wireSharing({ code: kept.code, onCode: codeChanged });
wireViews((view) => {
  kept.view = view;
  remember();
});
setView(kept.view);
drawGallery(kept.pairs, shown, show);
if (kept.pairs.length > 0) await show(kept.pairs[0], { fillForm: false });
drawTaste();
drawTastesOrSay(drawTaste);
drawVocabulary();
resume();
