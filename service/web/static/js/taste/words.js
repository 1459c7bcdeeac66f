// @ts-check
/** A profile of words alone, for whoever would rather write than choose. */
import { inWords, startProfile } from "../shared/api.js";
import { byId, showError } from "../shared/dom.js";

/** @param {{onRead: () => void, onBack: () => void}} callbacks */
export function wireWords({ onRead, onBack }) {
  byId("words-back").addEventListener("click", onBack);
  byId("words-form").addEventListener("submit", async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const problem = await read(byId("words-input").value.trim());
    showError(byId("words-error"), problem);
    if (problem === null) onRead();
  });
}

/**
 * @param {string} text
 * @returns {Promise<string | null>} what is wrong, if anything
 */
async function read(text) {
  if (text === "") return "Write a few words first.";
  byId("words-save").disabled = true;
  try {
    const state = await startProfile(text);
    return state.status === "failed" ? (state.error?.detail ?? "This could not be read.") : null;
  } catch (error) {
    return `Not saved. ${inWords(error)}`;
  } finally {
    byId("words-save").disabled = false;
  }
}
