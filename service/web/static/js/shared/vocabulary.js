// @ts-check
/** What the model knows: suggestions under the prompt, and an honest word on words it never saw. */
import { presetName } from "./api.js";
import { byId, make } from "./dom.js";

const IDEAS_SHOWN = 4;

/**
 * The words of a prompt that the model has not learnt, each once, in order.
 * @param {string} prompt
 * @param {Set<string>} known  lower case; empty means that nothing is known about the vocabulary
 * @returns {string[]}
 */
export function unknownWords(prompt, known) {
  if (known.size === 0) return [];
  const words = prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return [...new Set(words.filter((word) => !known.has(word)))];
}

/** @param {string} prompt @param {Set<string>} known */
export function drawHint(prompt, known) {
  const hint = byId("prompt-hint");
  const unknown = unknownWords(prompt, known);
  if (unknown.length === 0) {
    const empty = prompt.trim() === "";
    hint.textContent = known.size === 0 ? "" : empty ? `${presetName()} knows ${known.size} words.` : `${presetName()} knows all of these words.`;
    return;
  }
  const named = unknown.slice(0, 6).flatMap((word, i) => [i > 0 ? ", " : "", make("strong", {}, word)]);
  const more = unknown.length > 6 ? ` and ${unknown.length - 6} more` : "";
  hint.replaceChildren(`${presetName()} never saw the `, unknown.length > 1 ? "words " : "word ", ...named, `${more}. It paints as if ${unknown.length > 1 ? "they were" : "it was"} not there.`);
}

/**
 * @param {{subjects: string[], settings: string[], suggestions: string[]}} vocabulary
 * @param {(prompt: string) => void} onPick
 */
export function drawIdeas(vocabulary, onPick) {
  const start = Math.floor(Math.random() * vocabulary.suggestions.length);
  const turned = [...vocabulary.suggestions.slice(start), ...vocabulary.suggestions.slice(0, start)];
  byId("ideas").replaceChildren(
    ...turned.slice(0, IDEAS_SHOWN).map((prompt) => {
      const idea = make("button", { type: "button", class: "idea" }, prompt);
      idea.addEventListener("click", () => onPick(prompt));
      return idea;
    }),
  );
  byId("known-subjects").textContent = vocabulary.subjects.join(", ");
  byId("known-settings").textContent = vocabulary.settings.join(", ");
}
