// @ts-check
/** START HERE for `/wins`: what blind choices say, asked with the key that the operator gives. */
import { ApiError, inWords, request } from "../shared/api.js";
import { announce, byId, make, showError } from "../shared/dom.js";

/**
 * @typedef {{people: number, observed: number, wins: number | null, interval: [number, number] | null}} Wins
 * @typedef {Wins & {adapter_version: string, choices: {won: number, lost: number, tied: number, inconsistent: number}}} AdapterWins
 * @typedef {{first: string | null, trial: string, share: number, since: string, until: string | null, of_first: Wins, of_trial: Wins,
 *   difference: number | null, interval: [number, number] | null, better: "first" | "trial" | null}} ShareWins
 * @typedef {{each: number, confidence: number, results: AdapterWins[], share: ShareWins | null}} Report
 */

const REFUSED = /** @type {Record<number, string>} */ ({
  401: "This service knows no such key.",
  403: "This is a client’s key. The page needs an admin’s.",
});

/** @param {SubmitEvent} event */
async function show(event) {
  event.preventDefault();
  byId("show").disabled = true;
  try {
    const each = Number(byId("each").value);
    draw(await request("GET", `/admin/wins?each=${each}`, { bearer: byId("key").value.trim() }));
    showError(byId("wins-error"), null);
  } catch (error) {
    hideAll();
    const refused = error instanceof ApiError ? REFUSED[error.status] : undefined;
    showError(byId("wins-error"), refused ?? inWords(error));
  } finally {
    byId("show").disabled = false;
  }
}

function hideAll() {
  for (const id of ["wins-adapters", "wins-share", "wins-none"]) byId(id).hidden = true;
}

/** @param {Report} report */
function draw(report) {
  hideAll();
  byId("wins-none").hidden = report.results.length > 0;
  byId("wins-adapters").hidden = report.results.length === 0;
  byId("confidence").textContent = percent(report.confidence);
  byId("adapters-rows").replaceChildren(...report.results.map(rowOf));
  if (report.share !== null) drawShare(report.share);
  if (report.results.length > 0) byId("adapters-title").focus();
  announce(report.results.length > 0 ? "The wins are shown." : "Nobody has chosen blind yet.");
}

/** @param {AdapterWins} adapter */
function rowOf(adapter) {
  const { won, lost, tied, inconsistent } = adapter.choices;
  const numbers = [won, lost, tied, inconsistent, adapter.people].map((number) => make("td", { class: "number" }, String(number)));
  return make("tr", {}, make("th", { scope: "row" }, adapter.adapter_version), ...numbers, make("td", {}, estimate(adapter)));
}

/** @param {ShareWins} share */
function drawShare(share) {
  const first = share.first ?? "the shipped adapter";
  const until = share.until === null ? "and still does" : `until ${time(share.until)}`;
  byId("share-facts").textContent = `${share.trial} served ${percent(share.share)} of the people in the place of ${first}, from ${time(share.since)} ${until}.`;
  byId("share-verdict").textContent = verdict(share);
  byId("share-arms").replaceChildren(
    make("dt", {}, share.trial), make("dd", {}, estimate(share.of_trial)),
    make("dt", {}, first), make("dd", {}, estimate(share.of_first)),
  );
  byId("wins-share").hidden = false;
}

/** @param {ShareWins} share */
function verdict({ difference, interval, better }) {
  if (difference === null || interval === null) return "There is nothing to compare yet: of one of the two nobody was observed.";
  const numbers = `difference ${signed(difference)}, between ${signed(interval[0])} and ${signed(interval[1])} points`;
  if (better === "trial") return `The new one is better: ${numbers}.`;
  if (better === "first") return `The new one is worse: ${numbers}.`;
  return `Neither is known to be better: ${numbers}.`;
}

/** @param {Wins} wins */
function estimate({ wins, interval, observed }) {
  if (wins === null || interval === null) return make("span", { class: "muted small" }, "nobody is observed yet");
  const range = make("span", { class: "range", "aria-hidden": "true" }, make("i"), make("b"));
  range.style.setProperty("--mean", String(wins));
  range.style.setProperty("--low", String(interval[0]));
  range.style.setProperty("--high", String(interval[1]));
  const words = `${percent(wins)}, between ${percent(interval[0])} and ${percent(interval[1])}; of ${observed} observed`;
  return make("div", { class: "estimate" }, range, make("span", { class: "small" }, words));
}

/** @param {number} part */
const percent = (part) => `${(100 * part).toFixed(1).replace(/\.0$/, "")} %`;

/** In hundredths. @param {number} part */
const signed = (part) => `${part < 0 ? "−" : "+"}${(100 * Math.abs(part)).toFixed(1)}`;

/** @param {string} at */
const time = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

byId("wins-form").addEventListener("submit", show);
byId("show").disabled = false;
