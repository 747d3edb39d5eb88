/**
 * On every page that is no trial: sends what earlier pages have left in this browser's outbox, of whichever session.
 * On a session's last page, <script ... data-over="id of the session"> has it forgotten once all of it is sent.
 */

import { lastingStores, openOutbox } from "./outbox.js";

/** What became of a session's trials is kept for so long (milliseconds) where its last page is never seen. */
const LONGEST = 30 * 24 * 60 * 60 * 1000;

/** @param {string} session */
async function send(session) {
  // Each entry knows its own address.
  const outbox = await openOutbox({ session, api: "", skipApi: "", authorization: "" });
  await outbox.idle();
}

for (const store of await lastingStores()) {
  await store.forgetOld(Date.now() - LONGEST);
  await Promise.all((await store.sessions()).map(send));
  const over = document.querySelector("script[data-over]")?.getAttribute("data-over");
  if (over) {
    await store.forget(over);
  }
}
