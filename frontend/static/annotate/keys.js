/**
 * The trial screen by keyboard, on top of the native order of tabs. Up to ten categories have three keys each, one for
 * each column and laid out like them: the digits say what is most likely, the row of letters below what is plausible, the
 * row below that what is impossible. More have numbers of two digits, and letters that lead to a column. On a slider
 * digits set its percentage. Nothing but Enter and Escape is taken from a field that takes text, and no character that a
 * number may have from one that takes a number. Pure: a press and its place go in, a command comes out.
 */

/** @typedef {"top" | "plausible" | "impossible"} Column */
/** @typedef {Column | "slider" | "number" | "text" | "elsewhere"} Focus */

/** @typedef {Pick<KeyboardEvent, "key" | "code" | "shiftKey" | "ctrlKey" | "altKey" | "metaKey">} Press */

/**
 * @typedef {object} Place
 * @property {Focus} focus
 * @property {boolean} named whether a most likely category is chosen
 */

/**
 * @typedef {{ kind: "percentage", text: string }
 *   | { kind: "category", column: Column, number: number }
 *   | { kind: "go", number: number }
 *   | { kind: "column", column: Column }
 *   | { kind: "pending" | "sweep" | "undo" | "submit" | "back" | "help" | "find" | "leave" }} Command
 *   category: tick that of this number (from 1) in that column; go: to its percentage; column: there with the keyboard;
 *   pending: the first digit of a number of two
 */

/** The keys of the columns, in the order of the categories. */
export const PLAUSIBLE = "qwertyuiop";
export const IMPOSSIBLE = "asdfghjkl;";

/** @type {Readonly<Record<string, Command>>} */
const OF_FEW = { x: { kind: "sweep" }, b: { kind: "back" } };

/** @type {Readonly<Record<string, Command>>} */
const OF_MANY = {
  a: { kind: "column", column: "plausible" },
  x: { kind: "column", column: "impossible" },
  t: { kind: "column", column: "top" },
  i: { kind: "sweep" },
  u: { kind: "undo" },
  b: { kind: "back" },
  f: { kind: "find" },
};

export class Keyboard {
  /** @param {number} categories up to 10 have one digit (0 is the tenth), up to 100 two (00 is the hundredth), more none */
  constructor(categories) {
    this.length = categories <= 10 ? 1 : categories <= 100 ? 2 : 0;
    /** Digits pressed on the slider that has the keyboard. */
    this.percentage = "";
    /** The first digit of a number of two. */
    this.number = "";
  }

  /** The keyboard went elsewhere: what was typed of a number is over. */
  forget() {
    this.percentage = "";
    this.number = "";
  }

  /**
   * @param {Press} press
   * @param {Place} place
   * @returns {Command | null} null: leave the press to the browser
   */
  read(press, { focus, named }) {
    const { key, ctrlKey, metaKey, altKey, shiftKey } = press;
    if (key === "Enter" || key === "Escape") {
      this.forget();
      return ctrlKey || metaKey || altKey ? null : { kind: key === "Enter" ? "submit" : "leave" };
    }
    if (focus === "text" || altKey) {
      return null;
    }
    if (focus === "number" && (ctrlKey || metaKey || key === "Backspace" || /^\d$/.test(key))) {
      return null;
    }
    if (ctrlKey || metaKey) {
      return key.toLowerCase() === "z" && !shiftKey ? this.over({ kind: "undo" }) : null;
    }
    const digit = digitOf(press);
    if (digit !== null) {
      if (focus === "slider" && !shiftKey) {
        this.number = "";
        this.percentage = nextDigits(this.percentage, digit);
        return { kind: "percentage", text: percentageOf(this.percentage) };
      }
      return this.category(digit, shiftKey ? "top" : focus, named);
    }
    if (key === "Backspace") {
      return this.over({ kind: "undo" });
    }
    if (key === "?") {
      return this.over({ kind: "help" });
    }
    const command = shiftKey ? null : this.letter(letterOf(press));
    return command ? this.over(command) : null;
  }

  /**
   * @param {string} letter
   * @returns {Command | null}
   */
  letter(letter) {
    if (this.length !== 1) {
      return OF_MANY[letter] ?? null;
    }
    const [plausible, impossible] = [PLAUSIBLE, IMPOSSIBLE].map((keys) => (letter ? keys.indexOf(letter) : -1) + 1);
    if (plausible || impossible) {
      return { kind: "category", column: plausible ? "plausible" : "impossible", number: plausible || impossible || 0 };
    }
    return OF_FEW[letter] ?? null;
  }

  /**
   * @param {string} digit
   * @param {Focus} focus
   * @param {boolean} named
   * @returns {Command | null}
   */
  category(digit, focus, named) {
    if (!this.length) {
      return null;
    }
    this.percentage = "";
    const code = this.number + digit;
    if (code.length < this.length) {
      this.number = code;
      return { kind: "pending" };
    }
    this.number = "";
    const number = Number(code) || 10 ** this.length;
    if (focus === "plausible" || focus === "impossible" || focus === "top") {
      return { kind: "category", column: focus, number };
    }
    return named ? { kind: "go", number } : { kind: "category", column: "top", number };
  }

  /**
   * @param {Command} command
   * @returns {Command}
   */
  over(command) {
    this.forget();
    return command;
  }
}

/**
 * The digits that stand for a percentage after one more: two at the most, but for 100.
 * @param {string} digits
 * @param {string} digit
 */
export function nextDigits(digits, digit) {
  const longer = digits + digit;
  return longer.length <= 2 || longer === "100" ? longer : digit;
}

/**
 * 8 is 80 at once and 0 is 100; a second digit makes a number of two: 85, 05.
 * @param {string} digits 1 to 3 of them
 */
export function percentageOf(digits) {
  if (digits.length > 1) {
    return String(Number(digits));
  }
  return digits === "0" ? "100" : `${digits}0`;
}

/** @param {Press} press */
function digitOf({ key, code }) {
  // The place on the keyboard, not the character: with Shift, and on French keyboards without, it is another one.
  const place = /^Digit(\d)$/.exec(code)?.[1];
  return place ?? (/^\d$/.test(key) ? key : null);
}

/** @param {Press} press */
function letterOf({ key, code }) {
  // On a keyboard of another script the place of the Latin letter counts, and so it does for the tenth of a row.
  const latin = /^[a-z]$/i.test(key) ? key : (/^Key([A-Z])$/.exec(code)?.[1] ?? "");
  const known = latin !== "" && (PLAUSIBLE + IMPOSSIBLE).includes(latin.toLowerCase());
  const tenth = code === "Semicolon" && !known;
  return tenth ? ";" : latin.toLowerCase();
}
