import assert from "node:assert/strict";
import { test } from "node:test";

import { Clock } from "../static/annotate/clock.js";

test("nothing is counted before the image is on the screen", () => {
  const clock = new Clock();
  clock.turn(500, true);
  clock.turn(900, false);
  assert.deepEqual(clock.read(1000), { duration_ms: 0, hidden_ms: 0 });
  assert.equal(clock.running, false);
});

test("time with the page hidden is counted apart", () => {
  const clock = new Clock();
  clock.start(1000, false);
  clock.turn(3000, true);
  clock.turn(10_000, false);
  assert.deepEqual(clock.read(11_500.4), { duration_ms: 3500, hidden_ms: 7000 });
});

test("an image painted while the page is hidden waits for it", () => {
  const clock = new Clock();
  clock.start(0, true);
  clock.turn(400, false);
  assert.deepEqual(clock.read(1000), { duration_ms: 600, hidden_ms: 400 });
});

test("starting twice does not start over", () => {
  const clock = new Clock();
  clock.start(0, false);
  clock.start(800, false);
  assert.equal(clock.read(1000).duration_ms, 1000);
});

test("what was counted before a reload is kept", () => {
  const clock = new Clock({ duration_ms: 2500, hidden_ms: 100 });
  clock.start(0, false);
  assert.deepEqual(clock.read(50), { duration_ms: 2550, hidden_ms: 100 });
});

test("a clock that steps back counts nothing", () => {
  const clock = new Clock();
  clock.start(1000, false);
  assert.equal(clock.read(900).duration_ms, 0);
});
