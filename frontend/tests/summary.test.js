import assert from "node:assert/strict";
import { test } from "node:test";

import { chooseTop, emptyAnswer, setImpossible, setPercentage, setPlausible } from "../static/annotate/answer.js";
import { leftoverSentence } from "../static/annotate/summary.js";

const NAMES = ["Airplane", "Automobile", "Bird", "Cat", "Deer", "Dog", "Frog", "Horse", "Ship", "Truck"];
const setting = {
  categories: NAMES.map((name, index) => ({ index, name })),
  rules: { most_named: null, sum_limit: null, ask_impossible: true },
};
const say = (key, values) => `${key} ${JSON.stringify(values)}`;
const sentence = (answer, rules = {}) =>
  leftoverSentence(answer, { ...setting, rules: { ...setting.rules, ...rules } }, say);

const frog = (text) => setPercentage(chooseTop(emptyAnswer(), 6), 6, text);
const without = (answer, ...categories) => categories.reduce((said, index) => setImpossible(said, index, true), answer);

test("a few categories are listed by name", () => {
  assert.equal(sentence(without(frog("90"), 0, 1, 2, 5, 7, 8, 9)), 'left_open {"percent":10,"names":"Cat, Deer"}');
});

test("all the others are counted, not listed", () => {
  assert.equal(sentence(frog("90")), 'left_open_all {"percent":10,"count":9}');
});

test("many are listed in part", () => {
  const expected = 'left_open_more {"percent":10,"names":"Bird, Cat, Deer","more":4}';
  assert.equal(sentence(without(frog("90"), 0, 1)), expected);
});

test("what is left so far is said while a percentage is missing", () => {
  assert.equal(sentence(frog("")), 'left_missing {"percent":100,"names":"Frog"}');
  assert.equal(sentence(setPlausible(frog("60"), 3)), 'left_missing_some {"percent":40,"names":"Cat"}');
});

test("a sum over 100 is only called shares where it is allowed", () => {
  const answer = setPercentage(setPlausible(frog("90"), 3), 3, "30");
  assert.equal(sentence(answer), 'left_over {"percent":120,"names":""}');
  assert.equal(sentence(answer, { sum_limit: 100 }), 'left_over_limit {"percent":120}');
  assert.equal(sentence(answer, { sum_limit: 150 }), 'left_over {"percent":120,"names":""}');
});
