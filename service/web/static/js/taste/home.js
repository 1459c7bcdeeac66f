// @ts-check
/** START HERE for `/`: decides between the quiz, the wait while it is read, and the result. */
import { currentTaste, getPreferences, inWords } from "../shared/api.js";
import { drawTastesOrSay } from "../shared/tastes.js";
import { byId } from "../shared/dom.js";
import { wireProfile, showProfile } from "./profile.js";
import { openQuiz, wireQuiz } from "./quiz.js";
import { wireReading, readUntilReady } from "./reading.js";
import { wireWords } from "./words.js";

const SECTIONS = ["loading", "load-failed", "quiz", "words", "reading", "profile"];

/** @param {string} name */
function showOnly(name) {
  for (const section of SECTIONS) byId(section).hidden = section !== name;
  window.scrollTo({ top: 0 });
}

/** Shows what fits what the service holds. */
async function open() {
  showOnly("loading");
  try {
    const held = await getPreferences();
    if (held.profile !== null || currentTaste() !== null) drawTastesOrSay(() => window.location.reload());
    const quizOpen = await openQuiz(held);
    if (quizOpen) showOnly("quiz");
    else await result(held);
  } catch (error) {
    byId("load-failed-detail").textContent = inWords(error);
    showOnly("load-failed");
  }
}

/**
 * @param {import("../shared/api.js").Preferences} [held]  what was just read, if it was
 * @param {"choices" | "edit"} [what]              what is being read
 */
async function result(held, what = "choices") {
  if (held?.profile && (held.status === "ready" || held.status === "failed")) {
    showProfile(held);
    showOnly("profile");
    return;
  }
  showOnly("reading");
  const read = await readUntilReady(what);
  if (read === null) return;
  drawTastesOrSay(() => window.location.reload());
  showProfile(read);
  showOnly("profile");
  byId("profile-title").focus({ preventScroll: true });
}

/** After an answer is gone: the profile that follows, or the quiz where too few are left. */
async function follow() {
  try {
    const held = await getPreferences();
    if (held.status === "collecting") await quiz({ again: false });
    else await result(held);
  } catch (error) {
    byId("load-failed-detail").textContent = inWords(error);
    showOnly("load-failed");
  }
}

/** @param {{again: boolean}} how */
async function quiz(how) {
  try {
    await openQuiz(await getPreferences(), { force: true, ...how });
    showOnly("quiz");
  } catch (error) {
    byId("load-failed-detail").textContent = inWords(error);
    showOnly("load-failed");
  }
}

wireQuiz({ onComplete: () => result(), onLeave: () => open() });
wireWords({ onRead: () => result(undefined, "edit"), onBack: () => quiz({ again: false }) });
byId("quiz-words").addEventListener("click", () => {
  showOnly("words");
  byId("words-title").focus({ preventScroll: true });
});
wireReading({ onBack: () => quiz({ again: false }) });
wireProfile({ onRetake: () => quiz({ again: true }), onEdited: () => result(undefined, "edit"), onAnswerRemoved: follow });
byId("load-retry").addEventListener("click", open);
open();
