// @ts-check
/** Follows a job to its end: by Server-Sent Events, and by asking now and then in case they stop. */
import { getJob } from "./api.js";
import { sleep } from "./dom.js";

/** @typedef {import("./api.js").Job} Job */

const ENDED = new Set(["succeeded", "failed", "canceled", "expired"]);
const CHECK_MS = 4000;

/** @param {string} status */
export const hasEnded = (status) => ENDED.has(status);

/**
 * @param {Job} job
 * @param {(progress: {status: string, step?: number, steps?: number}) => void} onProgress
 * @param {(preview: {index: number, step: number, steps: number, image: string}) => void} onPreview
 * @returns {Promise<Job>} the ended job
 * @throws {import("./api.js").ApiError} when the job cannot be read any more
 */
export async function follow(job, onProgress, onPreview) {
  if (hasEnded(job.status)) return job;
  const events = new EventSource(job.links.events);
  const ended = new Promise((resolve) => {
    const read = (/** @type {MessageEvent} */ message) => {
      const data = JSON.parse(message.data);
      onProgress(data);
      if (hasEnded(data.status)) resolve(undefined);
    };
    events.addEventListener("status", read);
    events.addEventListener("step", read);
    events.addEventListener("preview", (/** @type {MessageEvent} */ message) => onPreview(JSON.parse(message.data)));
  });
  try {
    for (;;) {
      await Promise.race([ended, sleep(CHECK_MS)]);
      const now = await getJob(job.id);
      if (hasEnded(now.status)) return now;
    }
  } finally {
    events.close();
  }
}
