/**
 * Soft warnings: what is allowed, yet often meant otherwise. Each is asked about once in a session, and the answer may
 * be sent all the same. Pure.
 */

import { median } from "./pace.js";

/** @typedef {import("./process.js").WarningCode} WarningCode */
/** @typedef {{ tops: readonly number[], durations: readonly number[] }} History answers so far, oldest first */

/** The most likely at 100 so many times running. */
export const CERTAIN_RUN = 5;
/** The pace is the median of so many answers. */
export const PACE_RUN = 5;

/**
 * What to ask about an answer:
 * - scale_mix_up: the most likely has a percentage of at most 1, such as 0.8 for 80
 * - always_certain: the most likely has 100 for the fifth time running
 * - too_fast: the median of the last five answers is below `secondsFloor`
 * @param {{ top: number, duration: number }} answer percentage of the most likely; milliseconds
 * @param {History} history
 * @param {{ secondsFloor: number, asked: readonly string[] }} rules
 * @returns {WarningCode[]}
 */
export function findWarnings({ top, duration }, { tops, durations }, { secondsFloor, asked }) {
  const lastTops = [...tops, top].slice(-CERTAIN_RUN);
  const lastDurations = [...durations, duration].slice(-PACE_RUN);
  /** @type {WarningCode[]} */
  const found = [];
  if (top > 0 && top <= 1) {
    found.push("scale_mix_up");
  }
  if (lastTops.length === CERTAIN_RUN && lastTops.every((value) => value === 100)) {
    found.push("always_certain");
  }
  if (lastDurations.length === PACE_RUN && median(lastDurations) < secondsFloor * 1000) {
    found.push("too_fast");
  }
  return found.filter((code) => !asked.includes(code));
}
