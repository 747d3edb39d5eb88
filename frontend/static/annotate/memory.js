/** What the screen remembers of a session through reloads: the latest answers' pace, and which questions were asked. */

/**
 * @typedef {object} Memory
 * @property {number[]} tops percentages of the most likely, oldest first
 * @property {number[]} durations milliseconds, oldest first
 * @property {string[]} asked codes of the soft warnings that were shown
 */

const PREFIX = "elicit.session.";
const MOST = 50;

/**
 * @param {string} session
 * @returns {Memory}
 */
export function recall(session) {
  try {
    const found = JSON.parse(localStorage.getItem(PREFIX + session) ?? "null");
    return { tops: listOf(found?.tops), durations: listOf(found?.durations), asked: listOf(found?.asked) };
  } catch {
    // Storage may be switched off, or hold something that is not ours.
    return { tops: [], durations: [], asked: [] };
  }
}

/**
 * @param {string} session
 * @param {Memory} memory
 */
export function remember(session, { tops, durations, asked }) {
  try {
    const kept = { tops: tops.slice(-MOST), durations: durations.slice(-MOST), asked };
    localStorage.setItem(PREFIX + session, JSON.stringify(kept));
  } catch {
    // Without storage it holds until the page is left.
  }
}

/**
 * @param {unknown} value
 * @returns {any[]}
 */
function listOf(value) {
  return Array.isArray(value) ? value : [];
}
