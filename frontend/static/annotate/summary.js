/** What the answer leaves over, in words, and the label that it implies, as a bar. */

import { impliedShares, leftover } from "./answer.js";
import { setText } from "./dom.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Setting} Setting */
/** @typedef {ReturnType<typeof import("./wording.js").readWording>} Say */

/** Names listed before "and n more". */
const MOST_NAMES = 4;

/**
 * @param {Answer} answer
 * @param {Setting} setting
 * @param {Say} say
 * @returns {string}
 */
export function leftoverSentence(answer, setting, say) {
  const { state, percent, categories, all } = leftover(answer, setting);
  const names = categories.map((category) => nameOf(setting, category));
  const list = names.join(", ");
  if (state === "open" && names.length > MOST_NAMES) {
    const some = names.slice(0, MOST_NAMES - 1);
    const more = names.length - some.length;
    return all
      ? say("left_open_all", { percent, count: names.length })
      : say("left_open_more", { percent, names: some.join(", "), more });
  }
  if (state === "missing" && percent < 100) {
    return say("left_missing_some", { percent, names: list });
  }
  const limit = setting.rules.sum_limit;
  if (state === "over" && limit !== null && percent > limit) {
    return say("left_over_limit", { percent });
  }
  return say(`left_${state}`, { percent, names: list });
}

/**
 * @param {{ line: HTMLElement, bar: HTMLElement }} elements
 * @param {Answer} answer
 * @param {Setting} setting
 * @param {Say} say
 */
export function drawSummary({ line, bar }, answer, setting, say) {
  setText(line, leftoverSentence(answer, setting, say));
  const parts = impliedShares(answer, setting).map(({ category, share }) => {
    const part = document.createElement("span");
    part.className = category === null ? "part open" : category === answer.top ? "part first" : "part other";
    part.style.setProperty("flex-grow", String(share));
    part.textContent = category === null ? say("bar_open") : nameOf(setting, category);
    return part;
  });
  bar.replaceChildren(...parts);
  for (const part of parts) {
    if (part.scrollWidth > part.clientWidth) {
      part.textContent = "";
    }
  }
}

/**
 * @param {Setting} setting
 * @param {number} index
 */
function nameOf(setting, index) {
  return setting.categories.find((category) => category.index === index)?.name ?? "";
}
