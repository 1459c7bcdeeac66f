// @ts-check
/** The two pictures on the wall: empty, being painted, done, or refused. */
import { byId } from "../shared/dom.js";

/**
 * @typedef {"mine" | "base"} Kind
 * @typedef {{url: string, note: string, alt: string, file: string}} Picture
 */

/** @param {Kind} kind */
function parts(kind) {
  const frame = byId(`frame-${kind}`);
  const find = (/** @type {string} */ selector) => frame.querySelector(selector);
  return {
    picture: find(".frame-picture"),
    image: byId(`image-${kind}`),
    preview: byId(`preview-${kind}`),
    empty: find(".frame-empty"),
    progress: find(".frame-progress"),
    bar: find(".bar > span"),
    step: find(".frame-step"),
    note: find(".frame-note"),
    save: find(".frame-save"),
  };
}

/** @param {Kind} kind @param {string} words @param {number} [done] share in [0, 1] */
export function drawProgress(kind, words, done = 0) {
  const at = parts(kind);
  at.progress.hidden = false;
  at.picture.classList.add("stale");
  at.empty.hidden = true;
  at.step.textContent = words;
  at.bar.style.transform = `scaleX(${done})`;
}

/** Hangs what the picture looks like so far, the more blurred the less of it is done. @param {Kind} kind @param {string} url @param {string} alt @param {number} done share in [0, 1] */
export function drawPreview(kind, url, alt, done) {
  const at = parts(kind);
  if (at.progress.hidden) return;
  at.preview.src = url;
  at.preview.alt = alt;
  at.preview.style.setProperty("--left", String(1 - done));
  at.preview.hidden = false;
}

/** Takes the progress away; what hung there before stays. @param {Kind} kind @param {string} [note] */
export function drawStopped(kind, note) {
  const at = parts(kind);
  at.progress.hidden = true;
  at.preview.hidden = true;
  at.preview.removeAttribute("src");
  at.picture.classList.remove("stale");
  at.empty.hidden = !at.image.hidden;
  if (note !== undefined) at.note.textContent = note;
}

/** @param {Kind} kind @param {Picture | null} picture  null empties the frame */
export async function hang(kind, picture) {
  const at = parts(kind);
  if (picture === null) {
    at.image.hidden = true;
    at.image.removeAttribute("src");
    at.save.hidden = true;
    drawStopped(kind, "");
    return;
  }
  at.image.src = picture.url;
  at.image.alt = picture.alt;
  const whole = await at.image.decode().then(() => true, () => false);
  at.image.hidden = !whole;
  at.save.hidden = !whole;
  at.save.href = picture.url;
  at.save.download = picture.file;
  drawStopped(kind, whole ? picture.note : "This picture is no longer kept.");
}

/** Calls the picture in a taste this. @param {"Yours" | "Shared"} name */
export function nameMine(name) {
  byId("frame-mine").querySelector("figcaption strong").textContent = name;
}

const showMine = () => (byId("frame-mine").querySelector("figcaption strong").textContent === "Yours" ? "Show yours" : "Show the shared one");

/** Wires the switch between side by side and in place. @param {(view: string) => void} onView */
export function wireViews(onView) {
  const frames = byId("frames");
  for (const view of ["side", "flip"]) {
    byId(`view-${view}`).addEventListener("change", () => {
      setView(view);
      onView(view);
    });
  }
  const flip = () => {
    if (frames.dataset.view !== "flip") return;
    frames.dataset.show = frames.dataset.show === "mine" ? "base" : "mine";
    byId("flip").textContent = frames.dataset.show === "mine" ? "Show the base" : showMine();
  };
  byId("flip").addEventListener("click", flip);
  frames.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    if (event.target instanceof Element && event.target.closest(".frame-picture")) flip();
  });
}

/** @param {string} view side or flip */
export function setView(view) {
  const frames = byId("frames");
  frames.dataset.view = view;
  frames.dataset.show = "mine";
  byId("flip").textContent = "Show the base";
  byId("flip").hidden = view !== "flip";
  byId(`view-${view}`).checked = true;
}
