import assert from "node:assert/strict";
import { test } from "node:test";

import { chooseTop, emptyAnswer, setImpossible, setPercentage, setPlausible } from "../static/annotate/answer.js";
import { compare } from "../static/annotate/feedback.js";
import { match } from "../static/annotate/find.js";
import { marksOf } from "../static/annotate/marks.js";

const NAMES = ["Airplane", "Automobile", "Bird"];
const setting = {
  categories: NAMES.map((name, index) => ({ index, name })),
  rules: { most_named: null, sum_limit: null, ask_impossible: true },
};

test("quick marks are for the category named last, lower ones for an alternative", () => {
  assert.equal(marksOf(emptyAnswer()), null);
  const top = chooseTop(emptyAnswer(), 2);
  assert.deepEqual(marksOf(top), { category: 2, percentages: [50, 60, 70, 80, 90, 100] });
  assert.deepEqual(marksOf(setPlausible(top, 0, true)), { category: 0, percentages: [5, 10, 20, 30, 40, 50] });
});

test("practice compares the implied label with the study's, likeliest first", () => {
  const answer = setPercentage(chooseTop(emptyAnswer(), 2), 2, "80");
  assert.deepEqual(compare([{ category: 0, percentage: 70 }, { category: 2, percentage: 30 }], answer, setting), [
    { category: 0, own: 0, other: 70 },
    { category: 2, own: 80, other: 30 },
    { category: null, own: 20, other: 0 },
  ]);
});

test("nothing open, nothing compared for it", () => {
  const answer = setImpossible(setImpossible(setPercentage(chooseTop(emptyAnswer(), 2), 2, "80"), 0, true), 1, true);
  assert.deepEqual(compare([], answer, setting), [{ category: 2, own: 100, other: 0 }]);
});

test("names are found by any part, without case and accents, beginnings first", () => {
  const names = ["Sea lion", "Lion", "Léopard", "Dandelion"].map((name) => ({ name }));
  assert.deepEqual(match("LION ", names).map(({ name }) => name), ["Lion", "Sea lion", "Dandelion"]);
  assert.deepEqual(match("leo", names).map(({ name }) => name), ["Léopard"]);
  assert.deepEqual(match("  ", names), []);
});
