/**
 * How an answer came about: by which input device, when each thing was first and last said, how often it was changed.
 * Times are milliseconds that the image was looked at, as the trial's clock counts them. Pure.
 */

/** @typedef {"keyboard" | "mouse" | "touch" | "pen"} Device */
/** @typedef {"top" | "plausible" | "impossible" | "percentage" | "sweep"} FieldName */
/** @typedef {"scale_mix_up" | "always_certain" | "too_fast"} WarningCode */

/**
 * @typedef {object} Field
 * @property {FieldName} field
 * @property {number | null} category null for "top" and "sweep", which there is one of
 * @property {number} first_ms
 * @property {number} last_ms
 * @property {number} changes how often what was said here was changed or taken back
 * @property {Device} input the device of the last time
 */

/** @typedef {{ code: WarningCode, ms: number, kept: boolean }} Warning kept: sent unchanged after the question */

/**
 * @typedef {object} Process
 * @property {Device | "mixed"} input
 * @property {number | null} first_touch_ms null: nothing was touched, as in a correction that changes nothing
 * @property {number} changes those of all fields
 * @property {Field[]} fields in the order of their first touch
 * @property {Warning[]} warnings
 */

/** @typedef {{ code: WarningCode, ms: number, about: string }} Asked about: what would have been sent */
/** @typedef {{ fields: Field[], devices: Device[], asked: Asked[] }} Kept what outlives a reload */

/** A drag, a number typed, a run of arrow keys: changes of one percentage this close together (ms) are one. */
export const STRETCH = 1000;

export class Recorder {
  /** @param {Kept | undefined} [earlier] */
  constructor(earlier) {
    this.fields = (earlier?.fields ?? []).map((field) => ({ ...field }));
    /** @type {Set<Device>} */
    this.devices = new Set(earlier?.devices ?? []);
    this.asked = [...(earlier?.asked ?? [])];
    /** @type {Field | null} */
    this.latest = null;
  }

  /**
   * Something was said, changed or taken back.
   * @param {FieldName} field
   * @param {number | null} category
   * @param {number} ms
   * @param {Device} input
   * @returns {boolean} whether this goes on with the change before it
   */
  note(field, category, ms, input) {
    this.devices.add(input);
    const known = this.fields.find((one) => one.field === field && one.category === category);
    if (!known) {
      this.latest = { field, category, first_ms: ms, last_ms: ms, changes: 0, input };
      this.fields.push(this.latest);
      return false;
    }
    const goesOn =
      field === "percentage" && known === this.latest && known.input === input && ms - known.last_ms < STRETCH;
    known.changes += goesOn ? 0 : 1;
    known.last_ms = ms;
    known.input = input;
    this.latest = known;
    return goesOn;
  }

  /**
   * @param {WarningCode} code
   * @param {number} ms
   * @param {string} about the answer in question, as text to compare
   */
  ask(code, ms, about) {
    this.asked.push({ code, ms, about });
  }

  /** @returns {Kept} */
  keep() {
    return { fields: this.fields, devices: [...this.devices], asked: this.asked };
  }

  /**
   * @param {Device} device the one that sends the answer, for an answer in which nothing was touched
   * @param {string} [said] the answer that is sent, as text to compare
   * @returns {Process}
   */
  read(device, said) {
    const [only = device, ...others] = this.devices;
    return {
      input: others.length ? "mixed" : only,
      first_touch_ms: this.fields.length ? Math.min(...this.fields.map(({ first_ms }) => first_ms)) : null,
      changes: this.fields.reduce((sum, { changes }) => sum + changes, 0),
      fields: this.fields.map((field) => ({ ...field })),
      warnings: this.asked.map(({ code, ms, about }) => ({ code, ms, kept: about === said })),
    };
  }
}

/**
 * The device behind an event, null where the event does not tell.
 * @param {{ type: string, pointerType?: string }} event
 * @returns {Device | null}
 */
export function deviceOf({ type, pointerType }) {
  if (type.startsWith("key")) {
    return "keyboard";
  }
  return pointerType === "mouse" || pointerType === "touch" || pointerType === "pen" ? pointerType : null;
}

/** @typedef {import("./answer.js").Answer} Answer */

/**
 * What differs between two answers, field by field.
 * @param {Answer} before
 * @param {Answer} after
 * @returns {[FieldName, number | null][]}
 */
export function differences(before, after) {
  /** @type {[FieldName, number | null][]} */
  const found = before.top === after.top ? [] : [["top", null]];
  for (const kind of /** @type {const} */ (["plausible", "impossible"])) {
    const [was, is] = [before[kind], after[kind]];
    const changed = [...was.filter((one) => !is.includes(one)), ...is.filter((one) => !was.includes(one))];
    found.push(...changed.map((category) => /** @type {[FieldName, number]} */ ([kind, category])));
  }
  const touched = new Set([...Object.keys(before.percentages), ...Object.keys(after.percentages)].map(Number));
  for (const category of touched) {
    if (before.percentages[category] !== after.percentages[category]) {
      found.push(["percentage", category]);
    }
  }
  return found;
}
