import assert from "node:assert/strict";
import { test } from "node:test";

import { isBreakDue, median, minutesLeft } from "../static/annotate/pace.js";
import { findWarnings } from "../static/annotate/warnings.js";

test("the median of an even number of values lies between the middle two", () => {
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.ok(Number.isNaN(median([])));
});

test("the time left is the median pace times what remains, rounded up", () => {
  assert.equal(minutesLeft([20_000, 20_000, 300_000], 20), 7);
  assert.equal(minutesLeft([20_000, 20_000, 20_000], 2), 0);
});

test("no time is told before there is a pace, nor at the end", () => {
  assert.equal(minutesLeft([20_000, 20_000], 20), null);
  assert.equal(minutesLeft([20_000, 20_000, 20_000], 0), null);
});

test("a pace is that of the latest answers", () => {
  const slowStart = [...Array(12).fill(90_000), ...Array(12).fill(10_000)];
  assert.equal(minutesLeft(slowStart, 12), 2);
});

test("a break is due after every so many, but neither at the start nor at the end", () => {
  const due = (/** @type {number | null} */ every) => [0, 1, 5, 9, 10, 20, 27].filter((done) => isBreakDue(done, 27, every));
  assert.deepEqual(due(10), [10, 20]);
  assert.deepEqual(due(9), [9]);
  assert.deepEqual(due(null), []);
});

const rules = { secondsFloor: 3, asked: [] };
const calm = { tops: [80, 90], durations: [9000, 9000] };

test("a percentage of at most 1 for the most likely may be a share", () => {
  for (const top of [1, 0.8, 0.01]) {
    assert.deepEqual(findWarnings({ top, duration: 9000 }, calm, rules), ["scale_mix_up"]);
  }
  assert.deepEqual(findWarnings({ top: 2, duration: 9000 }, calm, rules), []);
});

test("100 is asked about the fifth time running", () => {
  const certain = (/** @type {number[]} */ tops) => findWarnings({ top: 100, duration: 9000 }, { tops, durations: [] }, rules);
  assert.deepEqual(certain([100, 100, 100, 100]), ["always_certain"]);
  assert.deepEqual(certain([50, 100, 100, 100, 100]), ["always_certain"]);
  assert.deepEqual(certain([100, 100, 100]), []);
  assert.deepEqual(certain([100, 100, 99, 100]), []);
});

test("speed is asked about by the median of five answers", () => {
  const fast = (/** @type {number[]} */ durations) => findWarnings({ top: 80, duration: 1000 }, { tops: [], durations }, rules);
  assert.deepEqual(fast([9000, 1000, 1000, 9000]), ["too_fast"]);
  assert.deepEqual(fast([9000, 9000, 9000, 1000]), []);
  assert.deepEqual(fast([1000, 1000, 1000]), []);
});

test("what was asked is not asked again", () => {
  const all = { tops: [100, 100, 100, 100], durations: [1, 1, 1, 1] };
  assert.deepEqual(findWarnings({ top: 100, duration: 1 }, all, rules), ["always_certain", "too_fast"]);
  assert.deepEqual(findWarnings({ top: 100, duration: 1 }, all, { ...rules, asked: ["always_certain"] }), ["too_fast"]);
});
