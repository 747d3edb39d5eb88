/** How fast somebody answers, and what follows: the time that is left, when a break is offered. Pure. */

/** Answers from which a pace can be told. */
const ENOUGH = 3;
/** The latest so many count: people get faster. */
const RECENT = 12;

/**
 * @param {readonly number[]} values
 * @returns {number} NaN for none
 */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const [low, high] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]];
  return low === undefined || high === undefined ? Number.NaN : (low + high) / 2;
}

/**
 * @param {readonly number[]} durations milliseconds of the answers so far, oldest first
 * @param {number} remaining how many are to come
 * @returns {number | null} whole minutes, 0 for less than one; null: too early to tell
 */
export function minutesLeft(durations, remaining) {
  if (durations.length < ENOUGH || remaining < 1) {
    return null;
  }
  const minutes = (median(durations.slice(-RECENT)) * remaining) / 60_000;
  return minutes < 1 ? 0 : Math.ceil(minutes);
}

/**
 * @param {number} done
 * @param {number} total
 * @param {number | null} every
 */
export function isBreakDue(done, total, every) {
  return every !== null && every > 0 && done > 0 && done < total && done % every === 0;
}
