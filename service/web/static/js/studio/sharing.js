// @ts-check
/** Codes under which the person's tastes are shared, and the field for somebody else's. */
import { currentTaste, getShares, inWords, newKey, postShare, revokeShare } from "../shared/api.js";
import { announce, byId, make, showError } from "../shared/dom.js";
import { calledTaste } from "../shared/tastes.js";

/** @typedef {import("../shared/api.js").Share} Share */

/** The code in the field, as codes are written. @returns {string | null} */
export const givenCode = () => byId("taste-code").value.replace(/\s/g, "").toLowerCase() || null;

/** @param {string | null} code */
export function setCode(code) {
  byId("taste-code").value = code ?? "";
  if (code !== null) byId("sharing").open = true;
}

/** @param {{code: string | null, onCode: (code: string | null) => void}} options */
export function wireSharing({ code, onCode }) {
  setCode(code);
  byId("taste-code").addEventListener("input", () => onCode(givenCode()));
  byId("share-make").addEventListener("click", () => change(async () => {
    const made = await postShare(newKey());
    announce("The code is made.");
    return `#share-${made.id} button`;
  }, "Not shared."));
  byId("sharing").addEventListener("toggle", () => {
    if (byId("sharing").open) change(async () => null, "The codes could not be loaded.");
  });
}

/** Does something about the codes, and lists them anew. @param {() => Promise<string | null>} act gives what has the focus then @param {string} failed */
async function change(act, failed) {
  /** @type {string | null} */
  let focused = null;
  byId("share-make").disabled = true;
  try {
    focused = await act();
    const { results } = await getShares();
    byId("share-list").replaceChildren(...results.map(row));
    showError(byId("share-error"), null);
  } catch (error) {
    showError(byId("share-error"), `${failed} ${inWords(error)}`);
  } finally {
    byId("share-make").disabled = false;
  }
  const next = focused === null ? null : document.querySelector(focused);
  if (next instanceof HTMLElement) next.focus();
}

/** @param {Share} share */
function row(share) {
  const about = share.taste === currentTaste() ? "this taste" : calledTaste(share.taste);
  const end = make("button", { type: "button", class: "link-button small", "aria-label": `End the code for ${about}` }, "End it");
  end.addEventListener("click", () => change(async () => {
    await revokeShare(share.id);
    announce("The code opens nothing any more.");
    return "#share-make";
  }, "Not ended."));
  const code = share.code === null ? make("span", { class: "small" }, "A code that cannot be shown again") : make("code", {}, share.code);
  const said = make("span", { class: "small muted" }, `for ${about}`);
  return make("li", { class: "share", id: `share-${share.id}` }, code, said, ...(share.code === null ? [] : [copy(share.code, about)]), end);
}

/** @param {string} code @param {string} about */
function copy(code, about) {
  const button = make("button", { type: "button", class: "link-button small", "aria-label": `Copy the code for ${about}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await Promise.resolve(navigator.clipboard?.writeText(code)).then(() => navigator.clipboard !== undefined, () => false);
    announce(done ? "Copied." : "This browser did not copy it. Select the code and copy it yourself.");
    if (done) button.textContent = "Copied";
  });
  return button;
}
