/** The rows of the trial screen, one for each category: their controls, and how an answer looks on them. */

import { isNamed, readPercentage } from "./answer.js";
import { byId, maybeById, setText } from "./dom.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Category} Category */
/** @typedef {ReturnType<typeof import("./wording.js").readWording>} Say */

/** @typedef {ReturnType<typeof findRow>} Row */

/** @param {Category} category */
export function findRow({ index, name }) {
  const group = byId(`row-${index}`, HTMLElement);
  return {
    index,
    name,
    group,
    /** The digits that choose it, null for none. */
    code: group.querySelector("kbd"),
    top: byId(`top-${index}`, HTMLInputElement),
    plausible: maybeById(`plausible-${index}`, HTMLInputElement),
    impossible: maybeById(`impossible-${index}`, HTMLInputElement),
    amount: byId(`amount-${index}`, HTMLElement),
    /** Which of these there are is a setting of the study: a slider, a number to type, one that is only shown. */
    slider: maybeById(`slider-${index}`, HTMLInputElement),
    number: maybeById(`percentage-${index}`, HTMLInputElement),
    shown: maybeById(`shown-${index}`, HTMLElement),
    problem: byId(`problem-${index}`, HTMLElement),
  };
}

/**
 * @param {Row} row
 * @param {Answer} answer
 * @param {Say} say
 * @param {boolean} offered whether the bare track of a category that is not named may be pressed, to name it
 */
export function drawRow(row, answer, say, offered) {
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
  const track = offered && !impossible && row.slider !== null;
  row.amount.hidden = !named && !track;
  row.amount.classList.toggle("offered", !named && track);
  if (row.slider) {
    // A further way by mouse only: keyboards and screen readers have the ticks.
    row.slider.tabIndex = named ? 0 : -1;
    row.slider.ariaHidden = named ? null : "true";
  }

  const text = answer.percentages[row.index] ?? "";
  const reading = readPercentage(text);
  const value = "value" in reading ? reading.value : null;
  if (row.number && row.number.value !== text) {
    row.number.value = text;
  }
  if (row.shown) {
    setText(row.shown, text);
  }
  if (row.slider) {
    drawSlider(row.slider, value, say);
  }
}

/**
 * @param {HTMLInputElement} slider
 * @param {number | null} value null: untouched
 * @param {Say} say
 */
function drawSlider(slider, value, say) {
  const position = String(Math.round(value ?? 0));
  if (slider.value !== position) {
    slider.value = position;
  }
  slider.classList.toggle("untouched", value === null);
  slider.style.setProperty("--at", String(value ?? 0));
  slider.setAttribute("aria-valuetext", value === null ? say("untouched") : say("percent", { percent: value }));
}

/**
 * Where the percentage of a row is set: the slider, which raises no keyboard on a phone, before the number.
 * @param {Row} row
 */
export function amountOf(row) {
  return row.slider ?? row.number;
}
