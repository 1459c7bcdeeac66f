// @ts-check
/** A taste in words, with one phrase less. Pure text; what is no plain list is left to the person. */

const SENTENCE = /[^.!?\n]+[.!?]*\s*/g;
const SEPARATOR = /(,\s*(?:and|or)\s+|,\s*|\s+(?:and|or)\s+)/i;
const SEVERAL_CLAUSES = /[;:]|\b(but|while|whereas|although|though|rather than|instead of|as opposed to|over)\b/i;
const ARTICLE = /\s+(?:an?|the)\s*$/i;

/**
 * @param {string} text    a profile
 * @param {string} phrase  a like or dislike that was read out of it
 * @returns {string | null} the profile without it, possibly empty; null when the phrase is not found
 *   exactly once, or stands where taking it out could change what the rest says
 */
export function withoutPhrase(text, phrase) {
  const sentences = [...(text.match(SENTENCE) ?? [])];
  const at = sentences.findIndex((sentence) => places(sentence, phrase).length === 1);
  if (at < 0 || places(text, phrase).length !== 1) return null;
  const shorter = withoutItem(sentences[at], phrase);
  return shorter === null ? null : sentences.with(at, shorter).join("").trim();
}

/**
 * Where whole words of a text are this phrase, in whatever case.
 * @param {string} text
 * @param {string} phrase
 * @returns {[number, number][]} start and end
 */
export function places(text, phrase) {
  const literal = phrase.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  const words = new RegExp(`(?<![\\p{L}\\p{N}])${literal}(?![\\p{L}\\p{N}])`, "giu");
  return [...text.matchAll(words)].map((match) => [match.index, match.index + match[0].length]);
}

/** @param {string} sentence  of the form "Prefers one, two and three. " @param {string} phrase */
function withoutItem(sentence, phrase) {
  if (SEVERAL_CLAUSES.test(sentence)) return null;
  const end = /[.!?]*\s*$/.exec(sentence)?.[0] ?? "";
  const parts = sentence.slice(0, sentence.length - end.length).split(SEPARATOR);
  const items = parts.filter((_, i) => i % 2 === 0);
  const last = / or /i.test(` ${parts.at(-2)?.replace(",", "")} `) ? " or " : " and ";
  const index = items.findIndex((item) => places(item, phrase).at(-1)?.[1] === item.length);
  if (index < 0) return null;
  if (items.length === 1) return "";
  // The first item carries the verb, which is the next one's now.
  const verb = index === 0 ? items[0].slice(0, places(items[0], phrase)[0][0]).trimEnd().replace(ARTICLE, "") : "";
  const rest = items.toSpliced(index, 1);
  if (index === 0) {
    if (verb === "") return null;
    rest[0] = `${verb} ${rest[0]}`;
  }
  const list = rest.length === 1 ? rest[0] : rest.slice(0, -1).join(", ") + last + rest.at(-1);
  return list + end;
}
