/** Quick marks: six percentages, one press each, for the category that was named last. */

import { isNamed, readPercentage } from "./answer.js";
import { setText } from "./dom.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Category} Category */
/** @typedef {ReturnType<typeof import("./wording.js").readWording>} Say */

const OF_THE_TOP = [50, 60, 70, 80, 90, 100];
/** An alternative can't be likelier than the most likely, so its marks lie lower. */
const OF_AN_ALTERNATIVE = [5, 10, 20, 30, 40, 50];

/**
 * @param {Answer} answer
 * @returns {{ category: number, percentages: readonly number[] } | null} null: nothing is named
 */
export function marksOf({ top, last }) {
  return last === null ? null : { category: last, percentages: last === top ? OF_THE_TOP : OF_AN_ALTERNATIVE };
}

/**
 * @param {HTMLElement} box its first element is the title, the buttons follow
 * @param {Answer} answer
 * @param {readonly Category[]} categories
 * @param {Say} say
 */
export function drawMarks(box, answer, categories, say) {
  const [title, ...buttons] = box.children;
  const marks = marksOf(answer);
  const name = categories.find(({ index }) => index === marks?.category)?.name ?? "";
  const reading = marks && isNamed(answer, marks.category) ? readPercentage(answer.percentages[marks.category]) : {};
  box.classList.toggle("idle", !marks);
  if (title) {
    setText(title, marks ? say("marks_of", { name }) : "");
  }
  buttons.forEach((button, place) => {
    const percent = (marks?.percentages ?? OF_THE_TOP)[place] ?? 0;
    const pressed = "value" in reading && reading.value === percent;
    setText(button, say("mark", { percent }));
    button.setAttribute("value", String(percent));
    button.setAttribute("aria-label", say("mark_label", { name, percent }));
    button.setAttribute("aria-pressed", String(pressed));
    button.toggleAttribute("disabled", !marks);
  });
}
