// @ts-check
/**
 * What this browser remembers between reloads, per user. The service holds the answers; this holds
 * only where the person was. Private windows may refuse storage: then it lasts until the reload.
 */
import { sessionUser } from "./api.js";

/**
 * @template T
 * @param {string} name
 * @param {T} empty
 */
export function memory(name, empty) {
  const key = `ppd.${name}.${sessionUser()}`;
  return {
    /** @returns {T} */
    read() {
      try {
        return { ...structuredClone(empty), ...JSON.parse(localStorage.getItem(key) ?? "{}") };
      } catch {
        return structuredClone(empty);
      }
    },
    /** @param {T} value */
    write(value) {
      try {
        localStorage.setItem(key, JSON.stringify(value));
      } catch {
        console.warn(`could not remember ${key} in this browser`);
      }
    },
  };
}

/** Forgets everything this site ever stored in this browser. */
export function forgetAll() {
  try {
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith("ppd.")) localStorage.removeItem(key);
    }
  } catch {
    console.warn("this browser refuses storage; there was nothing to forget");
  }
}
