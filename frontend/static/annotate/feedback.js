/** What is shown after a practice answer: the study's words, and its label beside the one that the answer implies. */

import { impliedShares } from "./answer.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Setting} Setting */
/** @typedef {ReturnType<typeof import("./wording.js").readWording>} Say */
/** @typedef {{ html: string, shares: { category: number, percentage: number }[] }} Feedback */

/** @typedef {{ category: number | null, own: number, other: number }} Line percentages; category null: left open */

/**
 * One line for each category that either of the two gives something, the likeliest of the comparison first.
 * @param {Feedback["shares"]} shares
 * @param {Answer} answer
 * @param {Setting} setting
 * @returns {Line[]}
 */
export function compare(shares, answer, setting) {
  const own = impliedShares(answer, setting).map(({ category, share }) => ({ category, share: Math.round(share * 1e6) / 1e4 }));
  /** @type {(category: number | null) => Line} */
  const line = (category) => ({
    category,
    own: own.find((one) => one.category === category)?.share ?? 0,
    other: shares.find((one) => one.category === category)?.percentage ?? 0,
  });
  const categories = [...setting.categories.map(({ index }) => index), null];
  const lines = categories.map(line).filter((one) => one.own > 0 || one.other > 0);
  return lines.sort((a, b) => b.other - a.other || b.own - a.own);
}

/**
 * @param {{ text: HTMLElement, table: HTMLTableElement }} elements
 * @param {Feedback} feedback
 * @param {Answer} answer
 * @param {Setting} setting
 * @param {Say} say
 */
export function drawFeedback({ text, table }, feedback, answer, setting, say) {
  // Written by the study's curator in Markdown, made into safe HTML by the server.
  text.innerHTML = feedback.html;
  const lines = compare(feedback.shares, answer, setting);
  table.hidden = !feedback.shares.length;
  table.tBodies[0]?.replaceChildren(
    ...lines.map(({ category, own, other }) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = setting.categories.find(({ index }) => index === category)?.name ?? say("bar_open");
      row.append(head, cell(own, "own", say), cell(other, "other", say));
      return row;
    }),
  );
}

/**
 * @param {number} percent
 * @param {"own" | "other"} kind
 * @param {Say} say
 */
function cell(percent, kind, say) {
  const made = document.createElement("td");
  const bar = document.createElement("span");
  bar.className = `bar ${kind}`;
  bar.style.setProperty("inline-size", `${percent}%`);
  const track = document.createElement("span");
  track.className = "track";
  track.append(bar);
  const number = document.createElement("span");
  number.className = "figure";
  number.textContent = say("figure", { percent: Math.round(percent) });
  made.append(number, track);
  return made;
}
