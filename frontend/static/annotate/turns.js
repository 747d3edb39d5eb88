/** One tab at a time: by the browser's own locks or, on pages without TLS, which have none, by a lease in the store. */

/** @typedef {import("./store.js").Store} Store */

/** A tab that falls silent for so long (milliseconds) loses its turn. */
export const LEASE = 6000;
const RENEWAL = 1500;

/**
 * @typedef {object} Wires
 * @property {LockManager | undefined} locks
 * @property {Store} store
 * @property {() => number} now milliseconds since 1970
 * @property {(wake: () => void, milliseconds: number) => unknown} setTimer
 */

/**
 * Waits for the turn, and has it until `work` is done.
 * @param {string} session
 * @param {string} holder this tab
 * @param {() => Promise<void>} work
 * @param {Wires} wires
 */
export async function inTurn(session, holder, work, { locks, store, now, setTimer }) {
  if (locks) {
    await locks.request(`elicit.outbox.${session}`, work);
    return;
  }
  while (!(await store.lease(session, holder, now(), now() + LEASE))) {
    await new Promise((/** @type {(value?: undefined) => void} */ wake) => setTimer(wake, RENEWAL));
  }
  let working = true;
  const renew = () => {
    if (working) {
      void store.lease(session, holder, now(), now() + LEASE).catch(() => false);
      setTimer(renew, RENEWAL);
    }
  };
  setTimer(renew, RENEWAL);
  try {
    await work();
  } finally {
    working = false;
    // A lease that is over already is free.
    await store.lease(session, holder, now(), now());
  }
}
