// @ts-check
/** The answers that a profile was read from: each can be taken back. */
import { inWords, removeAnswer } from "../shared/api.js";
import { announce, byId, make, showError } from "../shared/dom.js";

/** @type {() => void} */
let readAgain;

/** @param {() => void} onRemoved */
export function wireAnswers(onRemoved) {
  readAgain = onRemoved;
}

/** @param {import("../shared/api.js").Preferences} held */
export function showAnswers(held) {
  const answers = held.choices.toReversed();
  byId("answers").hidden = answers.length === 0;
  byId("answers-count").textContent = answers.length === 1 ? "Your answer" : `Your ${answers.length} answers`;
  byId("answers-list").replaceChildren(...answers.map(row));
  showError(byId("answers-error"), null);
}

/** @param {import("../shared/api.js").RecordedChoice} answer */
function row(answer) {
  const pictures = answer.images.map((url, side) => {
    const mark = answer.preferred === side ? "answer-picture answer-preferred" : "answer-picture";
    const alt = answer.preferred === side ? `${answer.caption}: the one you took` : `${answer.caption}: the other one`;
    return make("img", { src: url, alt, width: "64", height: "64", loading: "lazy", class: mark });
  });
  const said = answer.preferred === null ? "No preference" : answer.counts ? answer.caption : `${answer.caption} (left out)`;
  const remove = make("button", { type: "button", class: "link-button small", "aria-label": `Take back your answer to “${answer.caption}”` }, "Take back");
  remove.addEventListener("click", () => takeBack(answer.id, remove));
  return make("li", { class: "answer" }, ...pictures, make("span", { class: "answer-said small" }, said), remove);
}

/** @param {number} id @param {HTMLButtonElement} button */
async function takeBack(id, button) {
  button.disabled = true;
  try {
    await removeAnswer(id);
    announce("The answer is taken back.");
    readAgain();
  } catch (error) {
    button.disabled = false;
    showError(byId("answers-error"), `Not taken back. ${inWords(error)}`);
  }
}
