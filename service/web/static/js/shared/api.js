// @ts-check
/**
 * The one place that speaks HTTP. Every refusal becomes an ApiError that can say itself in words.
 *
 * @typedef {{url: string, alt: string}} PairImage
 * @typedef {{pair_id: string, caption: string, images: [PairImage, PairImage], order?: [0 | 1, 0 | 1]}} Pair
 *   order: which picture of `images` hangs left and which right; the service draws it
 * @typedef {0 | 1 | null} Preferred   index into a pair's images, wherever they hung; null is a tie
 * @typedef {{text: string, likes: string[], dislikes: string[], not_understood: string[], answers_used: number, confidence?: number, confidence_after_four_more?: number}} Profile
 * @typedef {{version: number, source: string}} ProfileVersion
 * @typedef {{id: number, pair_id: string | null, caption: string, images: string[], preferred: Preferred, counts: boolean}} RecordedChoice
 * @typedef {{status: string, contribute: boolean, choices: RecordedChoice[], profile: Profile | null, profile_version: number | null, profiles: ProfileVersion[]}} Preferences
 * @typedef {{taste: string | null, status: string, answers: number}} Taste   the first one has no name
 * @typedef {{id: string, taste: string | null, code: string | null}} Share
 * @typedef {{url: string, seed: number}} ResultImage
 * @typedef {{images: ResultImage[], personalization_applied: boolean, reason?: string, strength: number, warnings?: {code: string, detail: string}[]}} Result
 * @typedef {{code?: string, detail?: string, title?: string}} Problem
 * @typedef {{id: string, status: string, result?: Result, error?: Problem, links: Record<string, string>}} Job
 */

const REQUEST_TIMEOUT_MS = 45_000;

export class ApiError extends Error {
  /**
   * @param {number} status  HTTP status; 0 when no answer arrived
   * @param {any} problem    problem+json body, possibly empty
   * @param {number | null} retryAfterS
   */
  constructor(status, problem, retryAfterS) {
    super(problem?.detail || problem?.title || `status ${status}`);
    this.status = status;
    this.code = problem?.code ?? null;
    this.errors = Array.isArray(problem?.errors) ? problem.errors : [];
    this.requestId = problem?.request_id ?? null;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * What went wrong, for a person.
 * @param {unknown} error
 * @returns {string}
 */
export function inWords(error) {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 0) return "The service did not answer. Check that it is running, then try again.";
  if (error.status === 401) return "This browser’s session has ended. Reload the page to go on.";
  if (error.status === 429 && error.retryAfterS !== null) {
    return `Too many requests at once. Try again in ${error.retryAfterS} seconds.`;
  }
  const parts = [error.message];
  for (const item of error.errors) {
    const field = String(item.pointer ?? "").split("/").filter(Boolean).join(" ");
    const words = item.message ?? item.detail;
    if (words) parts.push(field ? `${field}: ${words}` : String(words));
  }
  return parts.join(" · ");
}

/** @returns {string} the user this browser's session owns */
export function sessionUser() {
  const meta = document.querySelector('meta[name="ppd-user"]');
  return meta?.getAttribute("content") ?? "";
}

/** @returns {string} the model preset behind the service */
export function presetName() {
  const meta = document.querySelector('meta[name="ppd-preset"]');
  return meta?.getAttribute("content") ?? "";
}

/** @returns {string} */
export function newKey() {
  // randomUUID exists only in secure contexts; a service on a LAN address is not one.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{body?: unknown, key?: string, waitS?: number, keepalive?: boolean, bearer?: string}} [options]
 *   bearer: an API key, in the place of the browser's session
 * @returns {Promise<any>} parsed JSON, or null for an empty answer
 * @throws {ApiError}
 */
export async function request(method, path, options = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  if (options.key) headers["Idempotency-Key"] = options.key;
  if (options.bearer !== undefined) headers["Authorization"] = `Bearer ${options.bearer}`;
  if (options.waitS) headers["Prefer"] = `wait=${options.waitS}`;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      credentials: "same-origin",
      cache: "no-store",
      keepalive: options.keepalive ?? false,
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  } catch {
    throw new ApiError(0, null, null);
  }
  const text = await response.text().catch(() => "");
  const parsed = parseJson(text);
  if (!response.ok) {
    const retryAfter = Number(response.headers.get("Retry-After") ?? NaN);
    throw new ApiError(response.status, parsed, Number.isFinite(retryAfter) ? retryAfter : null);
  }
  if (text !== "" && parsed === undefined) {
    throw new ApiError(response.status, { detail: "The service answered with something unreadable." }, null);
  }
  return parsed ?? null;
}

/** @param {string} text */
function parseJson(text) {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return undefined;
  }
}

const user = () => encodeURIComponent(sessionUser());

/** The taste that is meant, by its name; null is the first. @type {string | null} */
let taste = null;

export const currentTaste = () => taste;

/** @param {string | null} name */
export function useTaste(name) {
  taste = name;
}

/** @param {string | null} name */
const ofTaste = (name) => (name === null ? "" : `?taste=${encodeURIComponent(name)}`);

/** @returns {Promise<{results: Taste[], most: number}>} */
export const getTastes = () => request("GET", `/users/${user()}/tastes`);

/** @param {string} name */
export const deleteTaste = (name) => request("DELETE", `/users/${user()}/tastes/${encodeURIComponent(name)}`);

/** @returns {Promise<{results: Share[]}>} */
export const getShares = () => request("GET", `/users/${user()}/shares`);

/** A code for the taste that is meant. @param {string} key @returns {Promise<Share>} */
export const postShare = (key) => request("POST", `/users/${user()}/shares`, { body: taste === null ? {} : { taste }, key });

/** @param {string} id */
export const revokeShare = (id) => request("DELETE", `/users/${user()}/shares/${encodeURIComponent(id)}`);

/** @returns {Promise<Preferences>} */
export const getPreferences = () => request("GET", `/users/${user()}/preferences${ofTaste(taste)}`);

/** @returns {Promise<{needed: number, answered: number, pairs: Pair[], ahead: Pair[]}>} */
export const getQuiz = () => request("GET", `/users/${user()}/quiz${ofTaste(taste)}`);

/**
 * @param {string | null} cursor
 * @returns {Promise<{results: Pair[], next: string | null}>}
 */
export const getPairs = (cursor) =>
  request("GET", `/pairs?limit=50${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);

/**
 * @param {string} pairId
 * @param {Preferred} preferred
 * @param {string} key
 */
export const postChoice = (pairId, preferred, key) =>
  request("POST", `/users/${user()}/preferences${ofTaste(taste)}`, {
    body: { choices: [{ pair_id: pairId, preferred }] },
    key,
    keepalive: true,
  });

/**
 * Which of two pictures that were made is liked better.
 * @param {[string, string]} imageIds
 * @param {Preferred} preferred
 * @param {boolean} blind
 * @param {string | null} of  the taste that learns from it
 * @param {string} key
 */
export const postBetter = (imageIds, preferred, blind, of, key) =>
  request("POST", `/users/${user()}/preferences${ofTaste(of)}`, { body: { choices: [{ image_ids: imageIds, preferred, blind }] }, key });

/**
 * Whether this person's answers may be used for training.
 * @param {boolean} contribute
 * @returns {Promise<{contribute: boolean}>}
 */
export const putContribution = (contribute) => request("PUT", `/users/${user()}/contribution`, { body: { contribute } });

/** @param {number} id */
export const removeAnswer = (id) => request("DELETE", `/users/${user()}/preferences/${id}${ofTaste(taste)}`);

/** @param {string} text */
export const putProfile = (text) => request("PUT", `/users/${user()}/profile${ofTaste(taste)}`, { body: { text } });

/**
 * A profile of words alone, once it is read.
 * @param {string} text
 * @returns {Promise<{status: string, error: Problem | null}>}
 */
export const startProfile = (text) =>
  request("PUT", `/users/${user()}/profile${ofTaste(taste)}`, { body: { text }, waitS: 30 });

export const exportUser = () => request("GET", `/users/${user()}/export`);
export const deleteUser = () => request("DELETE", `/users/${user()}`);

/** @returns {Promise<{subjects: string[], settings: string[], words: string[], suggestions: string[]}>} */
export const getVocabulary = () => request("GET", "/vocabulary");

/**
 * @param {Record<string, unknown>} body
 * @param {string} key
 * @returns {Promise<Job>}
 */
export const postGenerate = (body, key) => request("POST", "/generate", { body, key });

/** @param {string} id @returns {Promise<Job>} */
export const getJob = (id) => request("GET", `/jobs/${encodeURIComponent(id)}`);

/** @param {string} id */
export const cancelJob = (id) => request("DELETE", `/jobs/${encodeURIComponent(id)}`);
