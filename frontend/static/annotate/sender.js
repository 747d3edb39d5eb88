/**
 * Sends one request until the server has settled it. A lost connection, a busy server or a reply that is not ours
 * (a hotel's login page answers 200 too, or 403) is tried again with growing pauses; a resend is harmless because the
 * response's id was made here and stays the same.
 */

/** @typedef {{ id: string, image_url: string, position: number, framing: "others" | "self", note: string }} Trial */

/**
 * @typedef {object} Stored
 * @property {number} done
 * @property {number} total
 * @property {Trial | null} next
 * @property {{ html: string, shares: { category: number, percentage: number }[] } | null} [feedback] practice only
 */

/** @typedef {{ code: string, message: string, fields: Record<string, string> }} Refusal */

/**
 * @typedef {{ kind: "stored", stored: Stored }
 *   | { kind: "elsewhere" }
 *   | { kind: "over", refusal: Refusal }
 *   | { kind: "refused", refusal: Refusal }} Outcome
 *   elsewhere: the trial has another answer already; over: the session takes none any more
 */

/**
 * @typedef {object} Waiting
 * @property {"network" | "server"} cause
 * @property {number} attempt attempts so far, from 1
 * @property {number} delay milliseconds until the next
 */

/**
 * @typedef {object} Tools
 * @property {(url: string, init: RequestInit) => Promise<Response>} fetch
 * @property {(wake: () => void, milliseconds: number) => unknown} setTimer
 * @property {(waiting: Waiting) => void} onWaiting
 * @property {() => void} onAttempt
 */

export const FIRST_DELAY = 500;
export const LONGEST_DELAY = 15_000;
/** A connection that hangs for so long (milliseconds) is given up and tried anew. */
export const PATIENCE = 20_000;

/** Browsers let requests outlive a page up to 64 KiB, and fail longer ones. */
const LONGEST_KEPT_ALIVE = 32_768;
/** Statuses that say "not now", beside all from 500. */
const NOT_NOW = new Set([408, 425, 429]);
const ANSWERED = "trial_already_answered";
const OVER = new Set(["session_closed", "session_not_at_trials", "place_given_away"]);

export class Sender {
  /** @param {Tools} tools */
  constructor(tools) {
    this.tools = tools;
    /** @type {(() => void) | null} */
    this.cut = null;
  }

  /** Ends the current pause. */
  tryNow() {
    this.cut?.();
  }

  /**
   * @param {string} url
   * @param {string} authorization
   * @param {string} body JSON
   * @returns {Promise<Outcome>}
   */
  async send(url, authorization, body) {
    for (let attempt = 1; ; attempt += 1) {
      this.tools.onAttempt();
      const settled = await this.attempt(url, authorization, body);
      if (typeof settled !== "string") {
        return settled;
      }
      const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1));
      this.tools.onWaiting({ cause: settled, attempt, delay });
      await new Promise((/** @type {(value?: undefined) => void} */ wake) => {
        this.cut = wake;
        this.tools.setTimer(wake, delay);
      });
      this.cut = null;
    }
  }

  /**
   * @param {string} url
   * @param {string} authorization
   * @param {string} body
   * @returns {Promise<Outcome | "network" | "server">} a word where it has to be tried again
   */
  async attempt(url, authorization, body) {
    /** @type {Response} */
    let response;
    /** @type {unknown} */
    let data;
    try {
      response = await this.tools.fetch(url, {
        method: "PUT",
        headers: { Authorization: authorization, "Content-Type": "application/json", Accept: "application/json" },
        body,
        redirect: "error",
        credentials: "same-origin",
        // What is on its way when the tab is closed arrives all the same.
        keepalive: body.length < LONGEST_KEPT_ALIVE,
        signal: AbortSignal.timeout(PATIENCE),
      });
      data = parse(await response.text());
    } catch {
      return "network";
    }
    if (response.ok) {
      return isStored(data) ? { kind: "stored", stored: data } : "server";
    }
    const refusal = asRefusal(data);
    if (!refusal || response.status >= 500 || NOT_NOW.has(response.status)) {
      return "server";
    }
    if (response.status === 409 && refusal.code === ANSWERED) {
      return { kind: "elsewhere" };
    }
    return { kind: response.status === 409 && OVER.has(refusal.code) ? "over" : "refused", refusal };
  }
}

/**
 * @param {string} text
 * @returns {unknown} undefined where it is not JSON
 */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * @param {unknown} data
 * @returns {data is Record<string, unknown>}
 */
function isObject(data) {
  return typeof data === "object" && data !== null;
}

/**
 * @param {unknown} data
 * @returns {data is Stored}
 */
function isStored(data) {
  return isObject(data) && typeof data.done === "number" && "next" in data;
}

/**
 * @param {unknown} data
 * @returns {Refusal | null} null: not from our server
 */
function asRefusal(data) {
  if (!isObject(data) || typeof data.code !== "string") {
    return null;
  }
  const { code, message, fields } = data;
  /** @type {Record<string, string>} */
  const sentences = {};
  for (const [field, sentence] of Object.entries(isObject(fields) ? fields : {})) {
    sentences[field] = String(Array.isArray(sentence) ? sentence.join(" ") : sentence);
  }
  return { code, message: typeof message === "string" ? message : "", fields: sentences };
}

/** @returns {string} a version 4 UUID, also where the page has no TLS and hence no crypto.randomUUID */
export function newId() {
  if (typeof crypto.randomUUID === "function") {
    return crypto.randomUUID();
  }
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
