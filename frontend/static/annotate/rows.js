/** The rows of the trial screen, one for each category: their controls, and how an answer looks on them. */

import { isNamed, readPercentage } from "./answer.js";
import { byId, maybeById } from "./dom.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Category} Category */
/** @typedef {ReturnType<typeof import("./wording.js").readWording>} Say */

/** @typedef {ReturnType<typeof findRow>} Row */

/** @param {Category} category */
export function findRow({ index, name }) {
  const top = byId(`top-${index}`, HTMLInputElement);
  return {
    index,
    name,
    /** The digit that chooses it, empty for none: the one that the page shows. */
    key: top.getAttribute("aria-keyshortcuts") ?? "",
    group: byId(`row-${index}`, HTMLElement),
    top,
    plausible: maybeById(`plausible-${index}`, HTMLInputElement),
    impossible: maybeById(`impossible-${index}`, HTMLInputElement),
    amount: byId(`amount-${index}`, HTMLElement),
    slider: byId(`slider-${index}`, HTMLInputElement),
    number: byId(`percentage-${index}`, HTMLInputElement),
    problem: byId(`problem-${index}`, HTMLElement),
  };
}

/**
 * @param {Row} row
 * @param {Answer} answer
 * @param {Say} say
 */
export function drawRow(row, answer, say) {
  const named = isNamed(answer, row.index);
  const impossible = answer.impossible.includes(row.index);
  row.top.checked = answer.top === row.index;
  if (row.plausible) {
    row.plausible.checked = answer.plausible.includes(row.index);
  }
  if (row.impossible) {
    row.impossible.checked = impossible;
  }
  row.group.classList.toggle("is-top", answer.top === row.index);
  row.group.classList.toggle("is-named", named);
  row.group.classList.toggle("is-impossible", impossible && !named);
  row.amount.hidden = !named;

  const text = answer.percentages[row.index] ?? "";
  const reading = readPercentage(text);
  const value = "value" in reading ? reading.value : null;
  if (row.number.value !== text) {
    row.number.value = text;
  }
  const position = String(Math.round(value ?? 0));
  if (row.slider.value !== position) {
    row.slider.value = position;
  }
  row.slider.classList.toggle("untouched", value === null);
  row.slider.style.setProperty("--at", String(value ?? 0));
  row.slider.setAttribute("aria-valuetext", value === null ? say("untouched") : say("percent", { percent: value }));
}
