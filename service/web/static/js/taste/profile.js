// @ts-check
/** The result: the taste in words, and everything a person may do with what is kept about them. */
import { currentTaste, deleteTaste, deleteUser, exportUser, inWords, putProfile } from "../shared/api.js";
import { announce, byId, make, showError } from "../shared/dom.js";
import { forgetAll } from "../shared/memory.js";
import { chooseTaste, memoryOfTaste } from "../shared/tastes.js";
import { showAnswers, wireAnswers } from "./answers.js";
import { places, withoutPhrase } from "./phrases.js";
import { EMPTY_ROUND } from "./trail.js";

/** The newest removal, which can be undone. @type {{phrase: string, before: string, after: string} | null} */
let removal = null;
/** @type {() => void} */
let readAgain;

/** @param {import("../shared/api.js").Preferences} held  with a profile */
export function showProfile(held) {
  const profile = held.profile;
  if (!profile) throw new Error("there is no profile to show");
  const source = held.profiles.find((entry) => entry.version === held.profile_version)?.source;
  const given = source === "edited" || source === "written";
  byId("profile-source").textContent = given ? "In your own words" : "Read from your choices";
  const stale = held.status === "failed";
  showError(byId("profile-stale"), stale ? "The newest reading failed, so this is your earlier profile. Your answers are kept." : null);
  byId("profile-text").textContent = profile.text;
  drawChips("likes", profile.likes);
  drawChips("dislikes", profile.dislikes);
  showError(byId("profile-chips-error"), null);
  const removed = removal !== null && profile.text === removal.after ? removal : null;
  byId("profile-removed").hidden = removed === null;
  byId("profile-removed-text").textContent = removed ? `Removed “${removed.phrase}”.` : "";
  const unread = profile.not_understood;
  byId("profile-unread").hidden = unread.length === 0;
  byId("profile-unread").textContent = `The model does not know these words and passes over them: ${unread.join(", ")}.`;
  byId("profile-caution").textContent = given
    ? "The model reads your words together with what you chose."
    : profile.answers_used < 8
      ? `A first impression. It rests on ${profile.answers_used} answers only; it can be wrong about you.`
      : `It rests on ${profile.answers_used} answers; it can still be wrong about you.`;
  showError(byId("profile-foretold"), foretold(profile));
  showAnswers(held);
  byId("taste-delete").hidden = currentTaste() === null;
  byId("data-delete").textContent = currentTaste() === null ? "Delete my taste" : "Delete everything";
  byId("taste-delete-name").textContent = currentTaste() ?? "";
  closeEditor();
}

/** What is to be expected of the taste, in words; null where nobody has measured that.
 * @param {import("../shared/api.js").Profile} profile */
function foretold(profile) {
  if (profile.confidence === undefined) return null;
  const now = Math.round(100 * profile.confidence);
  const told = `Of 100 pictures made with this taste, about ${now} should please you more than the same without it, going by simulated people.`;
  if (profile.confidence_after_four_more === undefined) return told;
  const more = Math.round(100 * profile.confidence_after_four_more) - now;
  return more > 0
    ? `${told} Four more answers should make that about ${now + more}.`
    : `${told} Four more answers would hardly change that.`;
}

/** @param {"likes" | "dislikes"} kind @param {string[]} phrases */
function drawChips(kind, phrases) {
  byId(`profile-${kind}`).replaceChildren(...phrases.map((phrase) => {
    const name = `Remove “${phrase}” from your profile`;
    const remove = make("button", { type: "button", class: "chip-remove", "aria-label": name, title: "Remove" }, "×");
    remove.addEventListener("click", () => removePhrase(phrase));
    return make("li", {}, make("span", {}, phrase), remove);
  }));
  byId(`profile-${kind}-block`).hidden = phrases.length === 0;
}

/** @param {{onRetake: () => void, onEdited: () => void, onAnswerRemoved: () => void}} callbacks */
export function wireProfile({ onRetake, onEdited, onAnswerRemoved }) {
  readAgain = onEdited;
  wireAnswers(onAnswerRemoved);
  byId("profile-undo").addEventListener("click", () => {
    if (removal) saveChips(removal.before);
  });
  byId("profile-retake").addEventListener("click", onRetake);
  byId("profile-edit").addEventListener("click", openEditor);
  byId("profile-cancel").addEventListener("click", () => {
    closeEditor();
    byId("profile-edit").focus();
  });
  byId("profile-form").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    saveEdit(onEdited);
  });
  byId("data-export").addEventListener("click", download);
  wireDelete();
  wireDeleteTaste();
}

/** @param {string} phrase */
function removePhrase(phrase) {
  const before = byId("profile-text").textContent;
  const after = withoutPhrase(before, phrase);
  if (after) {
    saveChips(after, { phrase, before, after });
    return;
  }
  const why = after === "" ? "This is all that your profile says. Write what it should say instead." : "These words cannot be taken out on their own. Change the text as you like.";
  openEditor();
  showError(byId("profile-form-error"), why);
  const [first] = places(before, phrase);
  if (first) byId("profile-input").setSelectionRange(...first);
}

/** Saves a text that came of a click on a phrase. @param {string} text @param {typeof removal} made */
async function saveChips(text, made = null) {
  const buttons = [...document.querySelectorAll(".chip-remove, #profile-undo")];
  // Not `disabled`: that would take the focus away from whoever works by keyboard.
  if (buttons.some((button) => button.getAttribute("aria-disabled") === "true")) return;
  for (const button of buttons) button.setAttribute("aria-disabled", "true");
  try {
    await putProfile(text);
    removal = made;
    if (made) announce(`Removed “${made.phrase}”.`);
    readAgain();
  } catch (error) {
    showError(byId("profile-chips-error"), `Not saved. ${inWords(error)}`);
  } finally {
    for (const button of buttons) button.removeAttribute("aria-disabled");
  }
}

function openEditor() {
  byId("profile-input").value = byId("profile-text").textContent;
  showError(byId("profile-form-error"), null);
  byId("profile-view").hidden = true;
  byId("profile-form").hidden = false;
  byId("profile-input").focus();
}

function closeEditor() {
  byId("profile-form").hidden = true;
  byId("profile-view").hidden = false;
}

/** @param {() => void} onEdited */
async function saveEdit(onEdited) {
  const text = byId("profile-input").value.trim();
  const box = byId("profile-form-error");
  if (text === "") return showError(box, "Write a few words first.");
  byId("profile-save").disabled = true;
  try {
    await putProfile(text);
    showError(box, null);
    onEdited();
  } catch (error) {
    showError(box, `Not saved. ${inWords(error)}`);
  } finally {
    byId("profile-save").disabled = false;
  }
}

async function download() {
  try {
    const held = await exportUser();
    const file = new Blob([JSON.stringify(held, null, 2)], { type: "application/json" });
    const url = URL.createObjectURL(file);
    make("a", { href: url, download: "my-taste.json" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    showError(byId("data-error"), null);
    announce("Your data was downloaded.");
  } catch (error) {
    showError(byId("data-error"), `Could not download. ${inWords(error)}`);
  }
}

function wireDeleteTaste() {
  /** @type {HTMLDialogElement} */
  const dialog = byId("taste-delete-dialog");
  byId("taste-delete").addEventListener("click", () => dialog.showModal());
  byId("taste-delete-cancel").addEventListener("click", () => dialog.close());
  byId("taste-delete-confirm").addEventListener("click", async () => {
    const name = currentTaste();
    if (name === null) return;
    byId("taste-delete-confirm").disabled = true;
    try {
      await deleteTaste(name);
      memoryOfTaste("quiz", EMPTY_ROUND).write(EMPTY_ROUND);
      chooseTaste(null);
      window.location.reload();
    } catch (error) {
      dialog.close();
      showError(byId("data-error"), `Not deleted. ${inWords(error)}`);
    } finally {
      byId("taste-delete-confirm").disabled = false;
    }
  });
}

function wireDelete() {
  /** @type {HTMLDialogElement} */
  const dialog = byId("delete-dialog");
  byId("data-delete").addEventListener("click", () => dialog.showModal());
  byId("delete-cancel").addEventListener("click", () => dialog.close());
  byId("delete-confirm").addEventListener("click", async () => {
    byId("delete-confirm").disabled = true;
    try {
      await deleteUser();
      forgetAll();
      window.location.assign("/");
    } catch (error) {
      dialog.close();
      showError(byId("data-error"), `Not deleted. ${inWords(error)}`);
    } finally {
      byId("delete-confirm").disabled = false;
    }
  });
}
