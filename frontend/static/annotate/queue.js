/** Which trial is shown: those to come, those already answered, and the way back to correct one. Pure. */

/** @typedef {{ id: string, image_url: string, position: number, framing: "others" | "self", note: string }} Trial */
/** @typedef {import("./answer.js").Said} Said */
/** @typedef {Trial & { response: Said & { id: string } }} Answered */

/**
 * A trial to correct, with the answer that it has, and how many steps back it lies (from 1).
 * @typedef {{ answered: Answered, steps: number }} Correction
 */

export class Queue {
  /** @param {{ trials: readonly Trial[], answered: readonly Answered[], done: number, total: number, back: number }} data */
  constructor({ trials, answered, done, total, back }) {
    this.trials = [...trials];
    this.answered = [...answered];
    this.done = done;
    this.total = total;
    this.back = back;
  }

  /** @returns {Trial | undefined} the one to answer */
  get current() {
    return this.trials[0];
  }

  get remaining() {
    return this.trials.length;
  }

  /**
   * A trial is answered or skipped, here or in another tab.
   * @param {string} id
   * @param {Answered["response"]} [response] what was said, where it is known
   */
  settle(id, response) {
    const trial = this.trials.find((one) => one.id === id);
    if (!trial) {
      return;
    }
    this.trials = this.trials.filter((one) => one !== trial);
    this.done += 1;
    if (response) {
      this.answered.push({ ...trial, response });
    }
  }

  /**
   * The server refused what was said: its trial comes next, or at once.
   * @param {string} id
   * @param {boolean} [atOnce] before the current one
   */
  reopen(id, atOnce = false) {
    const trial = this.answered.find((one) => one.id === id);
    if (trial) {
      this.answered = this.answered.filter((one) => one !== trial);
      this.done -= 1;
      this.trials.splice(atOnce ? 0 : 1, 0, trial);
    }
    return trial;
  }

  /**
   * @param {string} id
   * @param {Answered["response"]} response
   */
  correct(id, response) {
    this.answered = this.answered.map((one) => (one.id === id ? { ...one, response } : one));
  }

  /**
   * The answered trial one step further back, null where the way ends.
   * @param {Correction | null} from where one stands already; null: at the current trial
   * @returns {Correction | null}
   */
  before(from) {
    const steps = (from?.steps ?? 0) + 1;
    const answered = this.answered.at(-steps);
    return answered && steps <= this.back ? { answered, steps } : null;
  }
}
