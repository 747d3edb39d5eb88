/** Finds categories by name where they are many: what is typed leaves the rows whose names hold it, and the named ones. */

import { setText } from "./dom.js";

/** @typedef {import("./rows.js").Row} Row */
/** @typedef {ReturnType<typeof import("./wording.js").readWording>} Say */

export class Finder {
  /**
   * @param {HTMLInputElement} box
   * @param {HTMLElement} line says how many were found
   * @param {readonly Row[]} rows
   * @param {Say} say
   */
  constructor(box, line, rows, say) {
    this.box = box;
    this.line = line;
    this.rows = rows;
    this.say = say;
    box.addEventListener("input", () => this.show());
  }

  /** Those whose names hold what was typed, beginnings first; none while nothing is typed. */
  get matches() {
    return match(this.box.value, this.rows);
  }

  show() {
    const wanted = this.box.value.trim() ? new Set(this.matches) : null;
    for (const row of this.rows) {
      row.group.hidden = wanted !== null && !wanted.has(row) && !row.group.classList.contains("is-named");
    }
    setText(this.line, wanted ? this.say("found", { count: wanted.size }) : "");
  }

  clear() {
    this.box.value = "";
    this.show();
  }
}

/**
 * @template {{ name: string }} T
 * @param {string} typed
 * @param {readonly T[]} rows
 * @returns {T[]}
 */
export function match(typed, rows) {
  const wanted = plain(typed.trim());
  const found = wanted ? rows.filter(({ name }) => plain(name).includes(wanted)) : [];
  /** @type {(row: T) => number} */
  const rank = ({ name }) => (plain(name).startsWith(wanted) ? 0 : 1);
  return [...found].sort((a, b) => rank(a) - rank(b));
}

/**
 * Without case and accents.
 * @param {string} text
 */
function plain(text) {
  return text.normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase();
}
