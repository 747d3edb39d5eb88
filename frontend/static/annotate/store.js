/**
 * Where the outbox keeps things: in IndexedDB, which outlives the tab, or in memory, which doesn't. A record says what
 * became of a trial in this browser, an entry is one request that the server has still to take.
 */

/** @typedef {import("./sender.js").Refusal} Refusal */

/**
 * @typedef {object} Entry
 * @property {number} [order] given by the store: entries are sent in this order
 * @property {string} session
 * @property {string} trial
 * @property {string} response
 * @property {"response" | "skip"} kind
 * @property {string} url
 * @property {string} authorization kept no longer than the entry
 * @property {Record<string, unknown>} body
 */

/**
 * @typedef {object} TrialRecord
 * @property {string} session
 * @property {string} trial
 * @property {"waiting" | "stored" | "refused" | "elsewhere"} state elsewhere: the server has another answer than ours
 * @property {"response" | "skip"} kind
 * @property {string} response the latest accepted
 * @property {Record<string, unknown>} body
 * @property {string[]} earlier responses that it replaces
 * @property {Refusal | null} error
 * @property {number} at when it was accepted, in milliseconds since 1970
 */

/** @typedef {{ state: "stored" | "elsewhere" } | { state: "refused", error: Refusal }} Settlement */

/**
 * @typedef {object} Store
 * @property {boolean} lasting whether it outlives the tab
 * @property {(entry: Entry, now: number) => Promise<boolean>} accept false: this browser has another answer already
 * @property {(session: string) => Promise<Entry | undefined>} next the first that waits
 * @property {(entry: Entry, settlement: Settlement) => Promise<TrialRecord["state"] | null>} settle how the trial
 *   stands now: "waiting" where a correction is still to be sent; null: another tab settled it
 * @property {(session: string) => Promise<number>} waiting
 * @property {(session: string) => Promise<TrialRecord[]>} records
 * @property {() => Promise<string[]>} sessions those for which something waits
 * @property {(session: string) => Promise<void>} forget its records, unless something waits
 * @property {(before: number) => Promise<void>} forgetOld settled records of that age or older
 * @property {(session: string, holder: string, now: number, until: number) => Promise<boolean>} lease
 */

/**
 * @param {TrialRecord | undefined} record what this browser has of the trial
 * @param {Entry} entry
 * @param {number} now
 * @returns {TrialRecord | null} the record with the entry in it; null: answered already
 */
function take(record, entry, now) {
  const { session, trial, kind, response, body } = entry;
  if (record && !mayReplace(record, body.revises)) {
    return null;
  }
  const kept = record?.state === "waiting" || record?.state === "stored";
  const earlier = record && kept ? [...record.earlier, record.response] : [];
  return { session, trial, state: "waiting", kind, response, body, earlier, error: null, at: now };
}

/**
 * @param {TrialRecord} record
 * @param {unknown} revises
 */
function mayReplace({ state, response, earlier }, revises) {
  if (state === "refused") {
    return true;
  }
  if (typeof revises !== "string" || earlier.includes(revises)) {
    return false;
  }
  // Once the server has it, it may know of a later one from another device, and judges.
  return revises === response || state !== "waiting";
}

/**
 * @param {TrialRecord | undefined} record
 * @param {Entry} entry
 * @param {Settlement} settlement
 * @param {Entry[]} others that still wait
 * @returns {TrialRecord | Entry | null} what has to be written
 */
function conclude(record, entry, settlement, others) {
  if (record?.response === entry.response) {
    return { ...record, state: settlement.state, error: settlement.state === "refused" ? settlement.error : null };
  }
  // A correction waits behind it. The server never got what that corrects, so it corrects what this one did.
  const correction = others.find(({ trial, body }) => trial === entry.trial && body.revises === entry.response);
  if (settlement.state === "refused" && correction) {
    return { ...correction, body: { ...correction.body, revises: entry.body.revises ?? null } };
  }
  return null;
}

/** @implements {Store} */
export class MemoryStore {
  lasting = false;
  constructor() {
    /** @type {Map<string, TrialRecord>} */
    this.kept = new Map();
    /** @type {Entry[]} */
    this.queue = [];
    this.orders = 0;
  }

  /**
   * @param {Entry} entry
   * @param {number} now
   */
  async accept(entry, now) {
    const record = take(this.kept.get(entry.trial), entry, now);
    if (record) {
      this.orders += 1;
      this.kept.set(entry.trial, record);
      this.queue.push({ ...entry, order: this.orders });
    }
    return record !== null;
  }

  /** @param {string} session */
  async next(session) {
    return this.queue.find((entry) => entry.session === session);
  }

  /**
   * @param {Entry} entry
   * @param {Settlement} settlement
   * @returns {Promise<TrialRecord["state"] | null>}
   */
  async settle(entry, settlement) {
    const place = this.queue.findIndex(({ order }) => order === entry.order);
    if (place < 0) {
      return null;
    }
    this.queue.splice(place, 1);
    const record = this.kept.get(entry.trial);
    const change = conclude(record, entry, settlement, this.queue);
    if (change && "state" in change) {
      this.kept.set(entry.trial, change);
      return change.state;
    }
    if (change) {
      this.queue = this.queue.map((other) => (other.order === change.order ? change : other));
    }
    return record?.state ?? settlement.state;
  }

  /** @param {string} session */
  async waiting(session) {
    return this.queue.filter((entry) => entry.session === session).length;
  }

  /** @param {string} session */
  async records(session) {
    return [...this.kept.values()].filter((record) => record.session === session);
  }

  async sessions() {
    return [...new Set(this.queue.map(({ session }) => session))];
  }

  /** @param {string} session */
  async forget(session) {
    if (!(await this.waiting(session))) {
      this.drop((record) => record.session === session);
    }
  }

  /** @param {number} before */
  async forgetOld(before) {
    this.drop((record) => record.state !== "waiting" && record.at <= before);
  }

  /** @param {(record: TrialRecord) => boolean} which */
  drop(which) {
    for (const record of this.kept.values()) {
      if (which(record)) {
        this.kept.delete(record.trial);
      }
    }
  }

  async lease() {
    return true;
  }
}

const NAME = "elicit";
const VERSION = 1;

/** @implements {Store} */
export class IndexedStore {
  lasting = true;

  /** @param {IDBFactory} factory */
  constructor(factory) {
    this.factory = factory;
    /** @type {Promise<IDBDatabase> | null} */
    this.opened = null;
  }

  /** @returns {Promise<IDBDatabase>} rejected where the browser allows no storage */
  open() {
    this.opened ??= new Promise((resolve, reject) => {
      const request = this.factory.open(NAME, VERSION);
      request.onupgradeneeded = () => {
        const database = request.result;
        database.createObjectStore("records", { keyPath: "trial" }).createIndex("session", "session");
        const queue = database.createObjectStore("queue", { keyPath: "order", autoIncrement: true });
        queue.createIndex("session", "session");
        database.createObjectStore("leases", { keyPath: "session" });
      };
      request.onsuccess = () => {
        const database = request.result;
        // A phone may take the connection away from a page in the background: the next need opens another.
        database.onclose = () => this.close();
        database.onversionchange = () => {
          database.close();
          this.close();
        };
        resolve(database);
      };
      request.onerror = () => {
        this.close();
        reject(request.error);
      };
    });
    return this.opened;
  }

  close() {
    this.opened = null;
  }

  /**
   * Runs `work` in a transaction and waits until that is committed.
   * @template T
   * @param {"readonly" | "readwrite"} mode
   * @param {(store: (name: "records" | "queue" | "leases") => IDBObjectStore) => Promise<T>} work
   * @param {IDBTransactionDurability} [durability] strict: on the disk, not in the system's memory
   * @returns {Promise<T>}
   */
  async run(mode, work, durability = "relaxed") {
    const transaction = await this.begin(mode, durability);
    const committed = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error ?? new Error("The transaction was aborted."));
    });
    const worked = work((name) => transaction.objectStore(name)).catch((error) => {
      // Half of the work would be worse than none.
      transaction.abort();
      throw error;
    });
    const [made] = await Promise.all([worked, committed]);
    return made;
  }

  /**
   * @param {"readonly" | "readwrite"} mode
   * @param {IDBTransactionDurability} durability
   */
  async begin(mode, durability) {
    const stores = ["records", "queue", "leases"];
    try {
      return (await this.open()).transaction(stores, mode, { durability });
    } catch {
      this.close();
      return (await this.open()).transaction(stores, mode, { durability });
    }
  }

  /**
   * @param {Entry} entry
   * @param {number} now
   */
  accept(entry, now) {
    return this.run(
      "readwrite",
      async (store) => {
        const record = take(await result(store("records").get(entry.trial)), entry, now);
        if (record) {
          store("records").put(record);
          store("queue").add(entry);
        }
        return record !== null;
      },
      "strict",
    );
  }

  /** @param {string} session */
  next(session) {
    return this.run("readonly", async (store) => {
      const [entry] = await result(store("queue").index("session").getAll(session, 1));
      return /** @type {Entry | undefined} */ (entry);
    });
  }

  /**
   * @param {Entry} entry
   * @param {Settlement} settlement
   * @returns {Promise<TrialRecord["state"] | null>}
   */
  settle(entry, settlement) {
    const { order } = entry;
    return this.run("readwrite", async (store) => {
      const waiting = /** @type {Entry[]} */ (await result(store("queue").index("session").getAll(entry.session)));
      if (order === undefined || !waiting.some((other) => other.order === order)) {
        return null;
      }
      store("queue").delete(order);
      const others = waiting.filter((other) => other.order !== order);
      /** @type {TrialRecord | undefined} */
      const record = await result(store("records").get(entry.trial));
      const change = conclude(record, entry, settlement, others);
      if (change && "state" in change) {
        store("records").put(change);
        return change.state;
      }
      if (change) {
        store("queue").put(change);
      }
      return record?.state ?? settlement.state;
    });
  }

  /** @param {string} session */
  waiting(session) {
    return this.run("readonly", (store) => result(store("queue").index("session").count(session)));
  }

  /**
   * @param {string} session
   * @returns {Promise<TrialRecord[]>}
   */
  records(session) {
    return this.run("readonly", (store) => result(store("records").index("session").getAll(session)));
  }

  sessions() {
    return this.run("readonly", async (store) => {
      const entries = /** @type {Entry[]} */ (await result(store("queue").getAll()));
      return [...new Set(entries.map(({ session }) => session))];
    });
  }

  /** @param {string} session */
  forget(session) {
    return this.run("readwrite", async (store) => {
      if (await result(store("queue").index("session").count(session))) {
        return;
      }
      for (const trial of await result(store("records").index("session").getAllKeys(session))) {
        store("records").delete(trial);
      }
      store("leases").delete(session);
    });
  }

  /** @param {number} before */
  forgetOld(before) {
    return this.run("readwrite", async (store) => {
      for (const record of /** @type {TrialRecord[]} */ (await result(store("records").getAll()))) {
        if (record.state !== "waiting" && record.at <= before) {
          store("records").delete(record.trial);
        }
      }
    });
  }

  /**
   * @param {string} session
   * @param {string} holder
   * @param {number} now
   * @param {number} until
   */
  lease(session, holder, now, until) {
    return this.run("readwrite", async (store) => {
      const held = await result(store("leases").get(session));
      if (held && held.holder !== holder && held.until > now) {
        return false;
      }
      store("leases").put({ session, holder, until });
      return true;
    });
  }
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
