/** Shows what is wrong beside the controls that it is about. */

import { setText } from "./dom.js";
import { amountOf } from "./rows.js";

/** @typedef {import("./answer.js").Place} Place */
/** @typedef {import("./rows.js").Row} Row */

/** @typedef {{ key: string, place: Place, sentence: string }} Remark */

/**
 * @param {readonly Remark[]} remarks
 * @param {readonly Row[]} rows
 * @param {HTMLElement} wholeLine where a remark on the answer as a whole is written
 */
export function drawRemarks(remarks, rows, wholeLine) {
  const whole = remarks.filter(({ place }) => place.kind === "answer");
  write(wholeLine, whole);
  const concerned = new Set(whole.length ? wholeControls(rows) : []);
  for (const row of rows) {
    const here = remarks.filter(({ place }) => place.category === row.index);
    write(row.problem, here);
    row.group.classList.toggle("is-wrong", here.length > 0);
    const wrong = new Set(here.map(({ place }) => place.kind));
    /** @type {(control: HTMLInputElement | null, kind: Place["kind"]) => void} */
    const mark = (control, kind) => {
      if (control) {
        const line = wrong.has(kind) ? row.problem : concerned.has(control) ? wholeLine : null;
        markControl(control, line);
      }
    };
    mark(row.top, "top");
    mark(row.plausible, "plausible");
    mark(row.impossible, "impossible");
    mark(row.slider, "percentage");
    mark(row.number, "percentage");
  }
}

/**
 * The control to go to for a remark.
 * @param {Remark} remark
 * @param {readonly Row[]} rows
 * @returns {HTMLElement | null}
 */
export function controlOf({ place }, rows) {
  const row = rows.find(({ index }) => index === place.category);
  if (!row || place.kind === "answer") {
    return wholeControls(rows)[0] ?? null;
  }
  if (place.kind === "percentage") {
    return amountOf(row);
  }
  return row[place.kind];
}

/**
 * The controls that a remark on the answer as a whole is about.
 * @param {readonly Row[]} rows
 */
function wholeControls(rows) {
  const chosen = rows.some(({ top }) => top.checked);
  const controls = chosen ? rows.filter(({ amount }) => !amount.hidden).map(amountOf) : rows.map(({ top }) => top);
  return controls.filter((control) => control !== null);
}

/**
 * @param {HTMLElement} line
 * @param {readonly Remark[]} remarks
 */
function write(line, remarks) {
  setText(line, [...new Set(remarks.map(({ sentence }) => sentence))].join(" "));
  line.hidden = !remarks.length;
}

/**
 * @param {HTMLInputElement} control
 * @param {HTMLElement | null} line which says what is wrong; null: nothing is
 */
function markControl(control, line) {
  if (!line) {
    control.removeAttribute("aria-describedby");
    control.removeAttribute("aria-invalid");
    return;
  }
  control.setAttribute("aria-describedby", line.id);
  // ARIA knows no invalid radio button.
  if (control.type !== "radio") {
    control.setAttribute("aria-invalid", "true");
  }
}
