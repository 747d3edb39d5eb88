/** Keeps the unfinished answer to a trial, and how it came about, through a reload of the tab. */

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./clock.js").Times} Times */

/** @typedef {import("./process.js").Kept} Kept */

/** @typedef {{ response: string, answer: Answer, times: Times, process: Kept }} Draft */

const PREFIX = "elicit.draft.";

/**
 * @param {string} trial
 * @returns {Draft | null}
 */
export function loadDraft(trial) {
  try {
    const draft = JSON.parse(sessionStorage.getItem(PREFIX + trial) ?? "null");
    return draft?.response && draft.answer && draft.times && draft.process ? draft : null;
  } catch {
    // Storage may be switched off, or hold something that is not ours.
    return null;
  }
}

/**
 * @param {string} trial
 * @param {Draft} draft
 */
export function saveDraft(trial, draft) {
  try {
    sessionStorage.setItem(PREFIX + trial, JSON.stringify(draft));
  } catch {
    // Without storage the answer still stands on the screen; only a reload would lose it.
  }
}

/** @param {string} trial */
export function clearDraft(trial) {
  try {
    sessionStorage.removeItem(PREFIX + trial);
  } catch {
    // As above.
  }
}

/**
 * Drops the drafts of all trials but these: the others are done, or of another session.
 * @param {readonly string[]} open
 */
export function dropOtherDrafts(open) {
  try {
    for (const key of Object.keys(sessionStorage)) {
      if (key.startsWith(PREFIX) && !open.includes(key.slice(PREFIX.length))) {
        sessionStorage.removeItem(key);
      }
    }
  } catch {
    // As above.
  }
}
