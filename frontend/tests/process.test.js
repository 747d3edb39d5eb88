import assert from "node:assert/strict";
import { test } from "node:test";

import { chooseTop, emptyAnswer, setImpossible, setPercentage, setPlausible } from "../static/annotate/answer.js";
import { deviceOf, differences, Recorder, STRETCH } from "../static/annotate/process.js";

test("what is said once is no change, what is said again is one", () => {
  const recorder = new Recorder();
  recorder.note("top", null, 900, "mouse");
  recorder.note("percentage", 3, 1500, "mouse");
  recorder.note("top", null, 4000, "mouse");
  assert.deepEqual(recorder.read("mouse"), {
    input: "mouse",
    first_touch_ms: 900,
    changes: 1,
    fields: [
      { field: "top", category: null, first_ms: 900, last_ms: 4000, changes: 1, input: "mouse" },
      { field: "percentage", category: 3, first_ms: 1500, last_ms: 1500, changes: 0, input: "mouse" },
    ],
    warnings: [],
  });
});

test("a drag or a number typed is one change however many events it makes", () => {
  const recorder = new Recorder();
  for (let ms = 0; ms < 5000; ms += 50) {
    assert.equal(recorder.note("percentage", 3, ms, "touch"), ms > 0);
  }
  recorder.note("percentage", 3, 4950 + STRETCH, "touch");
  const { changes, fields } = recorder.read("touch");
  assert.equal(changes, 1);
  assert.deepEqual([fields.length, fields[0].first_ms, fields[0].last_ms], [1, 0, 4950 + STRETCH]);
});

test("a percentage goes on neither after another field nor by another device", () => {
  const recorder = new Recorder();
  recorder.note("percentage", 3, 0, "keyboard");
  assert.equal(recorder.note("percentage", 3, 10, "mouse"), false);
  recorder.note("plausible", 5, 20, "mouse");
  assert.equal(recorder.note("percentage", 3, 30, "mouse"), false);
  assert.equal(recorder.read("mouse").changes, 2);
});

test("a tick that is taken back at once counts", () => {
  const recorder = new Recorder();
  recorder.note("plausible", 5, 100, "mouse");
  recorder.note("plausible", 5, 101, "mouse");
  assert.equal(recorder.read("mouse").changes, 1);
});

test("several devices are mixed, none is the one that sends", () => {
  const recorder = new Recorder();
  assert.deepEqual(recorder.read("touch"), { input: "touch", first_touch_ms: null, changes: 0, fields: [], warnings: [] });
  recorder.note("top", null, 1, "mouse");
  recorder.note("percentage", 1, 2, "keyboard");
  assert.equal(recorder.read("keyboard").input, "mixed");
});

test("a warning is kept where the answer is sent as it was when it was asked about", () => {
  const recorder = new Recorder();
  recorder.ask("always_certain", 500, "A");
  recorder.ask("too_fast", 900, "B");
  assert.deepEqual(recorder.read("mouse", "B").warnings, [
    { code: "always_certain", ms: 500, kept: false },
    { code: "too_fast", ms: 900, kept: true },
  ]);
});

test("what was recorded outlives a reload", () => {
  const before = new Recorder();
  before.note("top", null, 5, "pen");
  before.ask("scale_mix_up", 6, "A");
  const after = new Recorder(JSON.parse(JSON.stringify(before.keep())));
  after.note("top", null, 9, "pen");
  const { input, changes, fields, warnings } = after.read("pen", "A");
  assert.deepEqual([input, changes, fields[0].first_ms, warnings[0].kept], ["pen", 1, 5, true]);
  assert.equal(before.read("pen").changes, 0);
});

test("the device is told by the event", () => {
  assert.equal(deviceOf({ type: "keydown" }), "keyboard");
  assert.equal(deviceOf({ type: "pointerdown", pointerType: "touch" }), "touch");
  assert.equal(deviceOf({ type: "pointerdown", pointerType: "" }), null);
});

test("two answers differ by fields", () => {
  const before = setPercentage(chooseTop(emptyAnswer(), 3), 3, "80");
  const after = setImpossible(setPlausible(setPercentage(chooseTop(before, 4), 3, ""), 5, true), 0, true);
  assert.deepEqual(differences(before, after), [["top", null], ["plausible", 5], ["impossible", 0], ["percentage", 3]]);
  assert.deepEqual(differences(after, after), []);
});
