/**
 * How long an image was looked at. Time with the page hidden is counted apart. Pure: the caller says what time it is
 * (milliseconds of any steady clock).
 */

/** @typedef {{ duration_ms: number, hidden_ms: number }} Times */

export class Clock {
  /** @param {Times} [earlier] what was counted before a reload */
  constructor(earlier = { duration_ms: 0, hidden_ms: 0 }) {
    this.seen = earlier.duration_ms;
    this.hidden = earlier.hidden_ms;
    /** @type {number | null} when the current stretch began; null: not started */
    this.since = null;
    this.away = false;
  }

  /**
   * The image is on the screen.
   * @param {number} now
   * @param {boolean} hidden whether the page is hidden at this moment
   */
  start(now, hidden) {
    if (this.since === null) {
      this.since = now;
      this.away = hidden;
    }
  }

  get running() {
    return this.since !== null;
  }

  /**
   * The page was hidden or is in sight again.
   * @param {number} now
   * @param {boolean} hidden
   */
  turn(now, hidden) {
    if (this.since === null) {
      return;
    }
    const times = this.read(now);
    this.seen = times.duration_ms;
    this.hidden = times.hidden_ms;
    this.since = now;
    this.away = hidden;
  }

  /**
   * @param {number} now
   * @returns {Times} whole milliseconds
   */
  read(now) {
    const stretch = this.since === null ? 0 : Math.max(0, now - this.since);
    return {
      duration_ms: Math.round(this.seen + (this.away ? 0 : stretch)),
      hidden_ms: Math.round(this.hidden + (this.away ? stretch : 0)),
    };
  }
}
