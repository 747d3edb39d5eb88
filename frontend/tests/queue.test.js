import assert from "node:assert/strict";
import { test } from "node:test";

import { Queue } from "../static/annotate/queue.js";

const trial = (position) => ({ id: `t${position}`, image_url: `/${position}.png`, position, framing: "others", note: "" });
const said = (id, percentage) => ({ id, named: [{ category: 1, percentage }], impossible: [] });
const queue = (more = {}) =>
  new Queue({
    trials: [trial(4), trial(5), trial(6)],
    answered: [1, 2, 3].map((position) => ({ ...trial(position), response: said(`r${position}`, 50) })),
    done: 3,
    total: 6,
    back: 2,
    ...more,
  });

test("an answered trial makes room for the next and can be corrected", () => {
  const here = queue();
  here.settle("t4", said("r4", 80));
  assert.deepEqual([here.current?.id, here.done, here.remaining], ["t5", 4, 2]);
  assert.equal(here.before(null)?.answered.response.id, "r4");
});

test("a trial that was skipped is done but not to be corrected", () => {
  const here = queue();
  here.settle("t4");
  assert.deepEqual([here.current?.id, here.done], ["t5", 4]);
  assert.equal(here.before(null)?.answered.id, "t3");
});

test("the way back ends after as many steps as the study allows", () => {
  const here = queue();
  const first = here.before(null);
  const second = here.before(first);
  assert.deepEqual([first?.answered.id, second?.answered.id, here.before(second)], ["t3", "t2", null]);
  assert.equal(queue({ back: 0 }).before(null), null);
  assert.equal(queue({ answered: [] }).before(null), null);
});

test("a correction is what is shown the next time", () => {
  const here = queue();
  here.correct("t3", said("r3b", 70));
  assert.equal(here.before(null)?.answered.response.id, "r3b");
  assert.deepEqual([here.done, here.current?.id], [3, "t4"]);
});

test("an answer that the server refused comes after the one on the screen", () => {
  const here = queue();
  here.settle("t4", said("r4", 80));
  here.reopen("t4");
  assert.deepEqual(here.trials.map(({ id }) => id), ["t5", "t4", "t6"]);
  assert.equal(here.done, 3);
  assert.equal(here.before(null)?.answered.id, "t3");
  here.settle("t5", said("r5", 80));
  here.reopen("t5", true);
  assert.deepEqual(here.trials.map(({ id }) => id), ["t5", "t4", "t6"]);
});

test("what is settled twice, or unknown, changes nothing", () => {
  const here = queue();
  here.settle("t4");
  here.settle("t4");
  here.settle("nowhere");
  assert.equal(here.reopen("nowhere"), undefined);
  assert.deepEqual([here.done, here.remaining], [4, 2]);
});

test("the last one refused is the only one left", () => {
  const here = queue({ trials: [trial(6)], done: 5 });
  here.settle("t6", said("r6", 10));
  assert.equal(here.current, undefined);
  here.reopen("t6");
  assert.equal(here.current?.id, "t6");
});
