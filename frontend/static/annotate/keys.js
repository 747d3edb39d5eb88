/**
 * The trial screen by keyboard, on top of the native order of tabs: digits name categories, Shift and a digit rules one
 * out. Nothing but Enter is taken from a field that takes text.
 */

/** @typedef {import("./rows.js").Row} Row */

/**
 * @typedef {object} Actions
 * @property {() => boolean} ready whether single keys are listened to at the moment
 * @property {() => boolean} away whether something else than the form has the keyboard, such as a dialog
 * @property {() => void} submit
 * @property {(row: Row) => void} name
 * @property {(row: Row) => void} ruleOut
 * @property {() => void} sweep
 * @property {() => void} takeBack
 * @property {() => void} help
 */

/**
 * @param {readonly Row[]} rows
 * @param {Actions} actions
 */
export function wireKeys(rows, actions) {
  const byDigit = new Map(rows.filter(({ key }) => key).map((row) => [row.key, row]));

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) {
      return;
    }
    const target = event.target instanceof Element ? event.target : document.body;
    if (actions.away() || (event.key === "Enter" && target.closest("button, a"))) {
      return;
    }
    const action = event.key === "Enter" ? enter(target) : takesText(target) ? null : single(event);
    if (action) {
      event.preventDefault();
      if (!event.repeat) {
        action();
      }
    }
  });

  /** @param {Element} target */
  function enter(target) {
    const row = rows.find(({ number }) => number === target);
    return row ? () => row.group.focus({ preventScroll: true }) : actions.submit;
  }

  /**
   * @param {KeyboardEvent} event
   * @returns {(() => void) | null}
   */
  function single(event) {
    if (!actions.ready()) {
      return null;
    }
    const row = byDigit.get(digitOf(event) ?? "");
    if (row) {
      return event.shiftKey ? () => actions.ruleOut(row) : () => actions.name(row);
    }
    if (event.key === "?") {
      return actions.help;
    }
    if (event.key === "Backspace") {
      return actions.takeBack;
    }
    return event.key.toLowerCase() === "i" ? actions.sweep : null;
  }
}

/** @param {Element} target */
function takesText(target) {
  return target instanceof HTMLInputElement && target.type === "text";
}

/** @param {KeyboardEvent} event */
function digitOf(event) {
  // The place on the keyboard, not the character: with Shift, and on French keyboards without, it is another one.
  const place = /^Digit(\d)$/.exec(event.code)?.[1];
  return place ?? (/^\d$/.test(event.key) ? event.key : null);
}
