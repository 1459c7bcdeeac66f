// @ts-check
/** The one switch by which a person gives their answers for training, or no longer. Off by default. */
import { inWords, putContribution } from "../shared/api.js";
import { announce, byId, showError } from "../shared/dom.js";

export function wireContribution() {
  byId("contribute").addEventListener("change", change);
}

/** @param {boolean} contribute how it stands with the service */
export function showContribution(contribute) {
  byId("contribute").checked = contribute;
  byId("contribute").disabled = false;
}

async function change() {
  const wanted = byId("contribute").checked;
  byId("contribute").disabled = true;
  showError(byId("contribute-error"), null);
  try {
    showContribution((await putContribution(wanted)).contribute);
    announce(wanted ? "Your answers may be used for training." : "Your answers are not used for training.");
  } catch (error) {
    showContribution(!wanted);
    showError(byId("contribute-error"), `Not changed. ${inWords(error)}`);
  }
}
