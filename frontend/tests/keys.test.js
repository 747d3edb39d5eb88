import assert from "node:assert/strict";
import { test } from "node:test";

import { IMPOSSIBLE, Keyboard, nextDigits, percentageOf, PLAUSIBLE } from "../static/annotate/keys.js";

/** A press as a browser tells it: "Shift+3" and "Control+z" too. */
const press = (name) => {
  const [key, ...held] = name.split("+").reverse();
  const code = /^\d$/.test(key) ? `Digit${key}` : /^[a-z]$/i.test(key) ? `Key${key.toUpperCase()}` : key;
  const has = (one) => held.includes(one);
  return { key, code, shiftKey: has("Shift"), ctrlKey: has("Control"), altKey: has("Alt"), metaKey: has("Meta") };
};
const read = (keyboard, name, focus = "elsewhere", named = false) => keyboard.read(press(name), { focus, named });

/** The percentages that a slider shows while these digits are pressed. */
const sliding = (digits) => {
  const keyboard = new Keyboard(10);
  return [...digits].map((digit) => Number(read(keyboard, digit, "slider", true).text));
};

test("a first digit sets tens at once, a second one the number of two", () => {
  assert.deepEqual(sliding("8"), [80]);
  assert.deepEqual(sliding("85"), [80, 85]);
  assert.deepEqual(sliding("05"), [100, 5]);
  assert.deepEqual(sliding("00"), [100, 0]);
  assert.deepEqual(sliding("100"), [10, 10, 100]);
});

test("a third digit starts anew, but for 100", () => {
  assert.deepEqual(sliding("857"), [80, 85, 70]);
  assert.deepEqual(sliding("1005"), [10, 10, 100, 50]);
  assert.equal(nextDigits("10", "1"), "1");
  assert.equal(percentageOf("07"), "7");
});

test("another key, or the keyboard going elsewhere, ends a number", () => {
  const keyboard = new Keyboard(10);
  read(keyboard, "8", "slider", true);
  keyboard.forget();
  assert.equal(read(keyboard, "5", "slider", true).text, "50");
  read(keyboard, "w", "slider", true);
  assert.equal(read(keyboard, "5", "slider", true).text, "50");
});

test("with nothing named a digit chooses the most likely", () => {
  const keyboard = new Keyboard(10);
  assert.deepEqual(read(keyboard, "3"), { kind: "category", column: "top", number: 3 });
  assert.deepEqual(read(keyboard, "0"), { kind: "category", column: "top", number: 10 });
});

test("with something named a digit outside all columns changes nothing, it goes there", () => {
  assert.deepEqual(read(new Keyboard(10), "3", "elsewhere", true), { kind: "go", number: 3 });
});

test("two rows of letters mirror the columns, wherever the keyboard is", () => {
  for (const focus of ["slider", "number", "plausible", "elsewhere"]) {
    [...PLAUSIBLE].forEach((letter, place) => {
      const wanted = { kind: "category", column: "plausible", number: place + 1 };
      assert.deepEqual(read(new Keyboard(10), letter, focus, true), wanted);
    });
    [...IMPOSSIBLE.slice(0, 9)].forEach((letter, place) => {
      const wanted = { kind: "category", column: "impossible", number: place + 1 };
      assert.deepEqual(read(new Keyboard(10), letter, focus, true), wanted);
    });
  }
  assert.deepEqual(read(new Keyboard(10), "x", "slider", true), { kind: "sweep" });
  assert.deepEqual(read(new Keyboard(10), "b", "slider", true), { kind: "back" });
});

test("the tenth impossible category has the key beside L, whatever it writes", () => {
  const tenth = { kind: "category", column: "impossible", number: 10 };
  for (const key of [";", "ö", "m", "é"]) {
    const held = { key, code: "Semicolon", shiftKey: false, ctrlKey: false, altKey: false, metaKey: false };
    assert.deepEqual(new Keyboard(10).read(held, { focus: "slider", named: true }), tenth);
  }
});

test("a letter is what the keyboard writes, or where it lies on one of another script", () => {
  const held = { shiftKey: false, ctrlKey: false, altKey: false, metaKey: false };
  const at = { focus: "slider", named: true };
  const french = new Keyboard(10).read({ key: "a", code: "KeyQ", ...held }, at);
  const russian = new Keyboard(10).read({ key: "й", code: "KeyQ", ...held }, at);
  assert.deepEqual(french, { kind: "category", column: "impossible", number: 1 });
  assert.deepEqual(russian, { kind: "category", column: "plausible", number: 1 });
});

test("other letters do nothing", () => {
  for (const letter of ["z", "c", "v", "n", "m"]) {
    assert.equal(read(new Keyboard(10), letter, "slider", true), null);
  }
});

test("a field that takes a number keeps what a number may have, and gives away letters", () => {
  const keyboard = new Keyboard(10);
  for (const name of ["8", "Backspace", "Control+z", ".", ","]) {
    assert.equal(read(keyboard, name, "number", true), null);
  }
  assert.deepEqual(read(keyboard, "x", "number", true), { kind: "sweep" });
});

test("in a column a digit ticks there", () => {
  const keyboard = new Keyboard(10);
  assert.deepEqual(read(keyboard, "4", "plausible", true), { kind: "category", column: "plausible", number: 4 });
  assert.deepEqual(read(keyboard, "5", "impossible", true), { kind: "category", column: "impossible", number: 5 });
  assert.deepEqual(read(keyboard, "2", "top", true), { kind: "category", column: "top", number: 2 });
});

test("among more than ten, letters lead to the columns", () => {
  const keyboard = new Keyboard(40);
  assert.deepEqual(read(keyboard, "a", "slider", true), { kind: "column", column: "plausible" });
  assert.deepEqual(read(keyboard, "x", "slider", true), { kind: "column", column: "impossible" });
  assert.deepEqual(read(keyboard, "T", "slider", true), { kind: "column", column: "top" });
});

test("Shift and a digit names another most likely at any time, a slider or not", () => {
  for (const focus of ["slider", "elsewhere", "top", "plausible"]) {
    assert.deepEqual(read(new Keyboard(10), "Shift+7", focus), { kind: "category", column: "top", number: 7 });
  }
});

test("a number of two digits names among more than ten", () => {
  const keyboard = new Keyboard(40);
  assert.deepEqual(read(keyboard, "1"), { kind: "pending" });
  assert.equal(keyboard.number, "1");
  assert.deepEqual(read(keyboard, "2"), { kind: "category", column: "top", number: 12 });
  assert.deepEqual([read(keyboard, "0").kind, read(keyboard, "0")], ["pending", { kind: "category", column: "top", number: 100 }]);
  read(keyboard, "3");
  assert.deepEqual(read(keyboard, "Escape"), { kind: "leave" });
  assert.deepEqual(read(keyboard, "4"), { kind: "pending" });
  // On a slider two digits are a percentage still.
  keyboard.forget();
  assert.deepEqual(read(keyboard, "4", "slider", true), { kind: "percentage", text: "40" });
});

test("beyond a hundred categories digits name none, letters still work", () => {
  assert.equal(read(new Keyboard(101), "1"), null);
  assert.deepEqual(read(new Keyboard(101), "f"), { kind: "find" });
});

test("a field of text keeps its letters and digits, but for Enter and Escape", () => {
  const keyboard = new Keyboard(10);
  for (const key of ["8", "a", "i", "Backspace", "?", "Control+z", "Shift+3"]) {
    assert.equal(read(keyboard, key, "text", true), null);
  }
  assert.deepEqual(read(keyboard, "Enter", "text", true), { kind: "submit" });
  assert.deepEqual(read(keyboard, "Escape", "text", true), { kind: "leave" });
});

test("two keys undo, and the browser keeps its own shortcuts", () => {
  const keyboard = new Keyboard(10);
  for (const key of ["Backspace", "Control+z", "Meta+z"]) {
    assert.deepEqual(read(keyboard, key, "slider", true), { kind: "undo" });
  }
  for (const key of ["Control+a", "Alt+3", "Meta+i", "Control+Shift+z", "Control+3", "Tab", "ArrowLeft", "PageUp"]) {
    assert.equal(read(keyboard, key, "slider", true), null);
  }
});
