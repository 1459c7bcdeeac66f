// @ts-check
/** The wait between the last answer and the profile. */
import { ApiError, getPreferences, inWords, newKey, postChoice } from "../shared/api.js";
import { byId, make, sleep } from "../shared/dom.js";
import { memoryOfTaste } from "../shared/tastes.js";
import { EMPTY_ROUND } from "./trail.js";

const FIRST_POLL_MS = 300;
const SLOWEST_POLL_MS = 1500;
const LONG_WAIT_MS = 30_000;

const WORDS = {
  choices: ["Reading your choices", "The model looks at your four pairs and puts your taste in words. This takes a few seconds."],
  edit: ["Reading your words", "The model reads your text, together with your choices where there are four. This takes a few seconds."],
};

let waits = 0;

/** @param {{onBack: () => void}} callbacks */
export function wireReading({ onBack }) {
  byId("reading-back").addEventListener("click", () => {
    waits += 1;
    onBack();
  });
}

/**
 * Waits until the newest profile is there.
 * @param {"choices" | "edit"} what
 * @returns {Promise<import("../shared/api.js").Preferences | null>} with a profile; null when the person went away
 */
export async function readUntilReady(what) {
  const mine = ++waits;
  const [title, text] = WORDS[what];
  byId("reading-title").textContent = title;
  byId("reading-text").textContent = text;
  byId("reading-error").hidden = true;
  byId("reading-back").hidden = what === "edit";
  byId("reading-title").focus({ preventScroll: true });
  drawChosen();
  const started = performance.now();
  for (let pause = FIRST_POLL_MS; mine === waits; pause = Math.min(pause * 1.3, SLOWEST_POLL_MS)) {
    const held = await ask(mine);
    if (held) return held;
    if (performance.now() - started > LONG_WAIT_MS) {
      byId("reading-text").textContent = "This takes longer than usual. Your answers are safe; you can also come back later.";
    }
    await sleep(pause);
  }
  return null;
}

/** @param {number} mine @returns {Promise<import("../shared/api.js").Preferences | null>} */
async function ask(mine) {
  try {
    const held = await getPreferences();
    if (mine !== waits) return null;
    if (held.status === "ready" || (held.status === "failed" && held.profile)) return held;
    if (held.status === "failed") {
      await retryAsked("The profile could not be written. Your answers are kept.");
      await encodeAgain(held);
    }
  } catch (error) {
    await retryAsked(inWords(error));
  }
  return null;
}

/** Resolves when the person asks to try again. @param {string} sentence */
function retryAsked(sentence) {
  byId("reading-error-text").textContent = sentence;
  byId("reading-error").hidden = false;
  return new Promise((resolve) => {
    byId("reading-retry").addEventListener("click", () => {
      byId("reading-error").hidden = true;
      resolve(undefined);
    }, { once: true });
  });
}

/** Sends the newest decided answer once more, which asks for a new reading. @param {import("../shared/api.js").Preferences} held */
async function encodeAgain(held) {
  const newest = held.choices.findLast((choice) => choice.pair_id !== null && choice.preferred !== null);
  if (!newest?.pair_id) throw new ApiError(0, null, null);
  await postChoice(newest.pair_id, newest.preferred, newKey());
}

function drawChosen() {
  const { trail } = memoryOfTaste("quiz", EMPTY_ROUND).read();
  const chosen = trail.flatMap(({ pair, preferred }) => (preferred === 0 || preferred === 1 ? [pair.images[preferred].url] : []));
  byId("reading-pictures").replaceChildren(
    ...chosen.slice(-4).map((src) => make("img", { src, alt: "", width: "72", height: "72" })),
  );
}
