/**
 * The outbox: an answer is accepted once the browser has it on its disk, and is then sent, in order of acceptance,
 * until the server has settled it: through lost connections, restarts, reloads and closed tabs. A trial is accepted
 * once in a browser, whatever number of tabs show it; one tab at a time sends.
 */

import { FIRST_DELAY, newId, Sender } from "./sender.js";
import { IndexedStore, MemoryStore } from "./store.js";
import { inTurn } from "./turns.js";

/** @typedef {import("./sender.js").Outcome} Outcome */
/** @typedef {import("./sender.js").Refusal} Refusal */
/** @typedef {import("./sender.js").Stored} Stored */
/** @typedef {import("./sender.js").Waiting} Waiting */
/** @typedef {import("./store.js").Entry} Entry */
/** @typedef {import("./store.js").Settlement} Settlement */
/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("./store.js").TrialRecord} TrialRecord */

/**
 * @typedef {object} Address
 * @property {string} session its id
 * @property {string} api with {trial} and {response} to be filled in
 * @property {string} skipApi with {trial} to be filled in
 * @property {string} authorization
 */

/**
 * What `detail` of each event is; all tabs of a session hear all of them.
 * @typedef {object} Events
 * @property {{ trial: string, response: string, kind: "response" | "skip" } & Stored} stored
 * @property {{ trial: string, response: string, body: Record<string, unknown>, error: Refusal }} refused
 * @property {{ trial: string, by: "tab" | "server" }} elsewhere tab: just accepted in another tab of this browser;
 *   server: the server had another answer to it already, say from another device
 * @property {{ code: string }} over the session takes no answers any more
 * @property {Waiting & { count: number }} waiting a pause before the next attempt; count: answers not yet stored
 * @property {{ count: number }} trying an attempt
 */

/**
 * What a browser has and a test can replace.
 * @typedef {object} Tools
 * @property {Store[]} stores the first that takes an answer keeps it
 * @property {LockManager | undefined} locks
 * @property {Pick<BroadcastChannel, "postMessage" | "close"> & { onmessage: ((event: MessageEvent) => void) | null }
 *   | null} channel
 * @property {(url: string, init: RequestInit) => Promise<Response>} fetch
 * @property {(wake: () => void, milliseconds: number) => unknown} setTimer
 * @property {() => number} now milliseconds since 1970
 */

export class Outbox extends EventTarget {
  /**
   * @param {Address} address
   * @param {Tools} tools
   */
  constructor(address, tools) {
    super();
    this.address = address;
    this.tools = tools;
    this.tab = newId();
    /** @type {Promise<void> | null} */
    this.work = null;
    this.woken = false;
    this.sender = new Sender({
      fetch: tools.fetch,
      setTimer: tools.setTimer,
      onAttempt: () => void this.tell("trying", {}),
      onWaiting: (waiting) => void this.tell("waiting", waiting),
    });
    if (tools.channel) {
      tools.channel.onmessage = ({ data }) => this.hear(data);
    }
  }

  /**
   * Resolves once the answer can't be lost any more.
   * @param {string} trial its id
   * @param {{ response?: string, body: Record<string, unknown>, kind?: "response" | "skip" }} said
   * @returns {Promise<"accepted" | "elsewhere">} elsewhere: this browser has another answer to it already
   */
  async accept(trial, { response = "", body, kind = "response" }) {
    const { session, api, skipApi, authorization } = this.address;
    const url = (kind === "skip" ? skipApi : api).replace("{trial}", trial).replace("{response}", response);
    const entry = { session, trial, response, kind, url, authorization, body };
    for (const store of this.tools.stores) {
      let taken;
      try {
        taken = await store.accept(entry, this.tools.now());
      } catch (error) {
        if (store.lasting) {
          continue; // no room on the disk, say
        }
        throw error;
      }
      if (!taken) {
        return "elsewhere";
      }
      this.post("elsewhere", { trial, by: "tab" });
      const sent = this.wake();
      if (store.lasting) {
        return "accepted";
      }
      await sent;
      const record = (await store.records(session)).find((each) => each.trial === trial);
      return record?.state === "elsewhere" ? "elsewhere" : "accepted";
    }
    throw new Error("The outbox has no store.");
  }

  /**
   * Everything accepted in this browser, settled or not, until the session is over.
   * @returns {Promise<TrialRecord[]>}
   */
  async records() {
    const { session } = this.address;
    const found = await Promise.all(this.tools.stores.map((store) => store.records(session).catch(() => [])));
    return found.flat();
  }

  /** How many answers the server has still to take. */
  async waiting() {
    const { session } = this.address;
    const found = await Promise.all(this.tools.stores.map((store) => store.waiting(session).catch(() => 0)));
    return found.reduce((sum, count) => sum + count, 0);
  }

  /** Resolves when nothing waits. */
  async idle() {
    while (await this.waiting()) {
      await this.wake();
    }
  }

  /** Ends the current pause, whichever tab makes it. */
  tryNow() {
    this.sender.tryNow();
    this.post("try", {});
    void this.wake();
  }

  /** Forgets what became of the session's trials, unless some still wait. */
  async forget() {
    await Promise.all(this.tools.stores.map((store) => store.forget(this.address.session)));
  }

  close() {
    this.tools.channel?.close();
  }

  /** Sends what waits. Resolves when this tab sees nothing left. */
  wake() {
    this.woken = true;
    this.work ??= this.run();
    return this.work;
  }

  async run() {
    const { stores, ...wires } = this.tools;
    const [first] = stores;
    while (this.woken && first) {
      this.woken = false;
      try {
        await inTurn(this.address.session, this.tab, () => this.drain(), { ...wires, store: first });
      } catch {
        // The storage failed. Where it is gone for good it counts nothing as waiting, and the next page looks again.
        await new Promise((/** @type {(value?: undefined) => void} */ wake) => wires.setTimer(wake, FIRST_DELAY));
        this.woken = (await this.waiting()) > 0;
      }
    }
    this.work = null;
  }

  async drain() {
    for (;;) {
      const found = await this.first();
      if (!found) {
        return;
      }
      const { store, entry } = found;
      const outcome = await this.sender.send(entry.url, entry.authorization, JSON.stringify(entry.body));
      const state = await store.settle(entry, settlement(outcome));
      if (state) {
        this.announce(entry, outcome, state);
      }
    }
  }

  /** @returns {Promise<{ store: Store, entry: Entry } | null>} */
  async first() {
    for (const store of this.tools.stores) {
      const entry = await store.next(this.address.session).catch(() => undefined);
      if (entry) {
        return { store, entry };
      }
    }
    return null;
  }

  /**
   * @param {Entry} entry
   * @param {Outcome} outcome
   * @param {TrialRecord["state"]} state of the trial: what a correction is about to replace is no news
   */
  announce({ trial, response, kind, body }, outcome, state) {
    if (outcome.kind === "stored") {
      this.emit("stored", { ...outcome.stored, trial, response, kind });
    } else if (outcome.kind === "elsewhere") {
      this.emit("elsewhere", { trial, by: "server" });
    } else if (state !== "waiting") {
      this.emit("refused", { trial, response, body, error: outcome.refusal });
    }
    if (outcome.kind === "over") {
      this.emit("over", { code: outcome.refusal.code });
    }
  }

  /**
   * @param {"trying" | "waiting"} type
   * @param {object} detail
   */
  async tell(type, detail) {
    this.emit(type, { ...detail, count: await this.waiting() });
  }

  /**
   * In this tab and in the others.
   * @param {string} type
   * @param {object} detail
   */
  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
    this.post(type, detail);
  }

  /**
   * In the other tabs only.
   * @param {string} type
   * @param {object} detail
   */
  post(type, detail) {
    this.tools.channel?.postMessage({ type, detail });
  }

  /** @param {{ type: string, detail: object }} message from another tab */
  hear({ type, detail }) {
    if (type === "try") {
      this.sender.tryNow();
    } else {
      this.dispatchEvent(new CustomEvent(type, { detail }));
    }
  }
}

/**
 * @param {Outcome} outcome
 * @returns {Settlement}
 */
function settlement(outcome) {
  return outcome.kind === "stored" || outcome.kind === "elsewhere"
    ? { state: outcome.kind }
    : { state: "refused", error: outcome.refusal };
}

/**
 * The outbox of a session in this browser, sending at once what an earlier page left.
 * @param {Address} address
 * @returns {Promise<Outbox>}
 */
export async function openOutbox(address) {
  const outbox = new Outbox(address, {
    stores: [...(await lastingStores()), new MemoryStore()],
    locks: navigator.locks,
    channel: "BroadcastChannel" in window ? new BroadcastChannel(`elicit.outbox.${address.session}`) : null,
    fetch: (url, init) => fetch(url, init),
    setTimer: (wake, milliseconds) => setTimeout(wake, milliseconds),
    now: () => Date.now(),
  });
  window.addEventListener("online", () => outbox.tryNow());
  document.addEventListener("visibilitychange", () => {
    // Timers of a page in the background are slowed down.
    if (!document.hidden) {
      outbox.tryNow();
    }
  });
  void outbox.wake();
  return outbox;
}

/** Some browsers never answer a page that opens its storage: after so long (milliseconds) the page does without. */
const STORAGE_PATIENCE = 3000;

/** @returns {Promise<IndexedStore[]>} none where the browser keeps nothing */
export async function lastingStores() {
  try {
    const store = new IndexedStore(indexedDB);
    const late = new Promise((resolve) => setTimeout(resolve, STORAGE_PATIENCE, null));
    return (await Promise.race([store.open(), late])) ? [store] : [];
  } catch {
    return [];
  }
}
