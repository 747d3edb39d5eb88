import assert from "node:assert/strict";
import { test } from "node:test";

import {
  chooseTop,
  emptyAnswer,
  findProblems,
  fromSaid,
  impliedShares,
  isEmpty,
  leftover,
  namedInOrder,
  placeOfField,
  readPercentage,
  setImpossible,
  setPercentage,
  setPlausible,
  sweep,
  toSaid,
} from "../static/annotate/answer.js";

/** Shown in an order of their own, as a participant sees them. */
const CATEGORIES = [
  { index: 3, name: "Cat" },
  { index: 0, name: "Airplane" },
  { index: 5, name: "Dog" },
  { index: 4, name: "Deer" },
];
const CAT = 3;
const AIRPLANE = 0;
const DOG = 5;
const DEER = 4;

const setting = (rules = {}) => ({
  categories: CATEGORIES,
  rules: { most_named: null, sum_limit: null, ask_impossible: true, ...rules },
});

/** The first category is the most likely; percentages are as typed, undefined where not answered. */
const saying = (pairs, impossible = []) => {
  let answer = emptyAnswer();
  pairs.forEach(([category, text], rank) => {
    answer = rank ? setPlausible(answer, category, true) : chooseTop(answer, category);
    answer = setPercentage(answer, category, text ?? "");
  });
  return impossible.reduce((said, category) => setImpossible(said, category, true), answer);
};

const codes = (answer, rules) => findProblems(answer, setting(rules)).map(({ code, field }) => `${field}: ${code}`);

test("an answer without contradictions has no problems", () => {
  assert.deepEqual(codes(saying([[CAT, "80"], [DOG, "15"]], [AIRPLANE])), []);
});

test("nothing answered is a problem of the whole, but no contradiction yet", () => {
  const [problem] = findProblems(emptyAnswer(), setting());
  assert.deepEqual([problem.code, problem.field, problem.place.kind], ["nothing_answered", "named", "answer"]);
  assert.equal(problem.contradiction, false);
});

test("a plausible category without a most likely one is not an answer", () => {
  const answer = setPercentage(setPlausible(emptyAnswer(), DOG), DOG, "20");
  assert.deepEqual(codes(answer), ["named: nothing_answered"]);
});

test("a category named twice is pointed at where it is plausible", () => {
  const answer = setPlausible(saying([[CAT, "80"]]), CAT);
  const [problem] = findProblems(answer, setting());
  assert.deepEqual([problem.code, problem.field], ["category_named_twice", "named.1.category"]);
  assert.deepEqual(problem.place, { kind: "plausible", category: CAT });
  assert.equal(problem.contradiction, true);
});

test("a category both named and impossible is pointed at where it is impossible", () => {
  const [problem] = findProblems(saying([[CAT, "80"]], [CAT]), setting());
  assert.deepEqual([problem.code, problem.field], ["named_and_impossible", "impossible.3"]);
  assert.deepEqual(problem.place, { kind: "impossible", category: CAT });
});

test("an alternative likelier than the most likely is refused, an equal one is not", () => {
  assert.deepEqual(codes(saying([[CAT, "40"], [DOG, "41"]])), ["named.1.percentage: alternative_likelier"]);
  assert.deepEqual(codes(saying([[CAT, "40"], [DOG, "40"]])), []);
});

test("the order in which alternatives are ticked is no contradiction", () => {
  assert.deepEqual(codes(saying([[CAT, "50"], [DEER, "10"], [DOG, "30"]])), []);
});

for (const [text, code] of [
  [undefined, "percentage_missing"],
  ["  ", "percentage_missing"],
  ["abc", "percentage_not_a_number"],
  ["8p", "percentage_not_a_number"],
  ["NaN", "percentage_not_a_number"],
  ["Infinity", "percentage_not_a_number"],
  ["1e2", "percentage_not_a_number"],
  ["0x10", "percentage_not_a_number"],
  ["1 000", "percentage_not_a_number"],
  ["-1", "percentage_out_of_range"],
  ["100.1", "percentage_out_of_range"],
]) {
  test(`the percentage ${JSON.stringify(text)} is refused as ${code}`, () => {
    assert.deepEqual(codes(saying([[CAT, text]])), [`named.0.percentage: ${code}`]);
  });
}

for (const [text, value] of [
  ["0", 0],
  ["-0", 0],
  ["100", 100],
  [" 80 ", 80],
  ["80%", 80],
  ["80 %", 80],
  ["12,5", 12.5],
  ["12.5", 12.5],
  [".5", 0.5],
  ["05", 5],
]) {
  test(`the percentage ${JSON.stringify(text)} is read as ${value}`, () => {
    assert.deepEqual(readPercentage(text), { value });
    assert.ok(!Object.is(/** @type {any} */ (readPercentage(text)).value, -0));
  });
}

test("a missing percentage is unfinished, a wrong one is a contradiction", () => {
  assert.equal(findProblems(saying([[CAT, undefined]]), setting())[0].contradiction, false);
  assert.equal(findProblems(saying([[CAT, "abc"]]), setting())[0].contradiction, true);
});

test("percentages that are all 0 say nothing", () => {
  assert.deepEqual(codes(saying([[CAT, "0"]])), ["named.0.percentage: nothing_likely"]);
  assert.deepEqual(codes(saying([[CAT, "0"], [DOG, "0"]])), ["named.0.percentage: nothing_likely"]);
  assert.deepEqual(codes(saying([[CAT, "5"], [DOG, "0"]])), []);
});

test("a sum over 100 is refused only where the rules limit it", () => {
  const answer = saying([[CAT, "80"], [DOG, "30"]]);
  assert.deepEqual(codes(answer), []);
  assert.deepEqual(codes(answer, { sum_limit: 100 }), ["sum: sum_over_limit"]);
});

test("decimals that add up to the limit are not over it", () => {
  assert.deepEqual(codes(saying([[CAT, "66.7"], [DOG, "33.2"], [DEER, "0.1"]]), { sum_limit: 100 }), []);
});

test("more categories than the rules allow are pointed at from the least likely", () => {
  const answer = saying([[CAT, "50"], [DEER, "10"], [DOG, "30"]]);
  const [problem, ...more] = findProblems(answer, setting({ most_named: 2 }));
  assert.deepEqual([problem.code, problem.field, problem.place.category], ["too_many_named", "named", DEER]);
  assert.deepEqual(more, []);
});

test("impossible categories are neither checked nor sent where they are not asked", () => {
  const answer = saying([[CAT, "80"]], [CAT, DOG]);
  assert.deepEqual(codes(answer, { ask_impossible: false }), []);
  const body = toSaid(answer, setting({ ask_impossible: false }));
  assert.deepEqual(body.impossible, []);
});

test("all problems are found, in the order of the screen", () => {
  const answer = saying([[DOG, "120"], [CAT, undefined]], [AIRPLANE, CAT]);
  assert.deepEqual(codes(answer), [
    "named.1.percentage: percentage_missing",
    "impossible.3: named_and_impossible",
    "named.0.percentage: percentage_out_of_range",
  ]);
});

test("the body names the most likely first, then the alternatives, likelier first", () => {
  const answer = saying([[CAT, "50"], [DEER, "10"], [DOG, "30"]], [AIRPLANE]);
  assert.deepEqual(toSaid(answer, setting()), {
    named: [
      { category: CAT, percentage: 50 },
      { category: DOG, percentage: 30 },
      { category: DEER, percentage: 10 },
    ],
    impossible: [AIRPLANE],
  });
});

test("equal alternatives keep the order in which they are shown", () => {
  assert.deepEqual(namedInOrder(saying([[CAT, "50"], [DEER, "10"], [DOG, "10"]]), setting()), [CAT, DOG, DEER]);
});

test("a change leaves the answer that it started from as it was", () => {
  const before = Object.freeze(saying([[CAT, "80"]], [DOG]));
  const copy = structuredClone(before);
  sweep(setPercentage(setImpossible(setPlausible(chooseTop(before, DOG), DEER), CAT), CAT, "1"), CATEGORIES);
  assert.deepEqual(before, copy);
});

test("a category that is no longer named keeps its percentage, and it is not sent", () => {
  const answer = chooseTop(saying([[CAT, "80"]]), DOG);
  assert.equal(answer.percentages[CAT], "80");
  assert.deepEqual(codes(answer), ["named.0.percentage: percentage_missing"]);
});

test("all others impossible ticks what is not named, and undoes only what it ticked", () => {
  const by_hand = saying([[CAT, "80"]], [DEER]);
  const swept = sweep(by_hand, CATEGORIES);
  assert.deepEqual([...swept.impossible].sort(), [AIRPLANE, DEER, DOG]);
  assert.deepEqual([...sweep(swept, CATEGORIES).impossible], [DEER]);
});

test("what is unticked by hand after all others impossible is not ticked by the undoing", () => {
  const swept = setImpossible(sweep(saying([[CAT, "80"]]), CATEGORIES), DOG, false);
  assert.deepEqual(sweep(swept, CATEGORIES).impossible, []);
});

test("an answer is empty until something is said", () => {
  assert.equal(isEmpty(emptyAnswer()), true);
  assert.equal(isEmpty(setImpossible(emptyAnswer(), CAT)), false);
  assert.equal(isEmpty(chooseTop(emptyAnswer(), AIRPLANE)), false);
});

test("what is left goes to the categories that are neither named nor impossible", () => {
  const left = leftover(saying([[CAT, "80"], [DOG, "10.5"]], [AIRPLANE]), setting());
  assert.deepEqual(left, { state: "open", percent: 9.5, categories: [DEER], all: false });
});

test("impossible categories count for the leftover only where they are asked", () => {
  const left = leftover(saying([[CAT, "80"]], [AIRPLANE]), setting({ ask_impossible: false }));
  assert.deepEqual(left.categories, [AIRPLANE, DOG, DEER]);
  assert.equal(left.all, true);
});

for (const [state, answer] of [
  ["nothing_named", emptyAnswer()],
  ["missing", saying([[CAT, "80"], [DOG, undefined]])],
  ["invalid", saying([[CAT, "80"], [DOG, "abc"]])],
  ["closed", saying([[CAT, "80"]], [AIRPLANE, DOG, DEER])],
  ["none", saying([[CAT, "60"], [DOG, "40"]])],
  ["over", saying([[CAT, "80"], [DOG, "30"]])],
]) {
  test(`the leftover knows the state ${state}`, () => {
    assert.equal(leftover(answer, setting()).state, state);
  });
}

test("a category named twice is counted once", () => {
  assert.equal(leftover(setPlausible(saying([[CAT, "60"]]), CAT), setting()).percent, 40);
});

test("the implied shares add up to 1 and leave the rest open", () => {
  assert.deepEqual(impliedShares(saying([[CAT, "75"]]), setting()), [
    { category: CAT, share: 0.75 },
    { category: null, share: 0.25 },
  ]);
});

test("the implied shares are scaled down where they exceed 100, and up where no category is open", () => {
  assert.deepEqual(impliedShares(saying([[CAT, "100"], [DOG, "100"]]), setting()), [
    { category: CAT, share: 0.5 },
    { category: DOG, share: 0.5 },
  ]);
  assert.deepEqual(impliedShares(saying([[CAT, "40"]], [AIRPLANE, DOG, DEER]), setting()), [
    { category: CAT, share: 1 },
  ]);
});

test("nothing is implied by nothing", () => {
  assert.deepEqual(impliedShares(saying([[CAT, undefined]]), setting()), []);
});

test("the server's fields are found on the screen", () => {
  const body = toSaid(saying([[CAT, "50"], [DOG, "30"]], [DEER]), setting());
  assert.deepEqual(placeOfField("named.0.percentage", body), { kind: "percentage", category: CAT });
  assert.deepEqual(placeOfField("named.0.category", body), { kind: "top", category: CAT });
  assert.deepEqual(placeOfField("named.1.category", body), { kind: "plausible", category: DOG });
  assert.deepEqual(placeOfField(`impossible.${DEER}`, body), { kind: "impossible", category: DEER });
  for (const field of ["sum", "named", "impossible", "named.7.percentage", "impossible.9", "duration_ms"]) {
    assert.deepEqual(placeOfField(field, body), { kind: "answer", category: null });
  }
});

test("an answer that was sent comes back the same, to be corrected", () => {
  const said = toSaid(saying([[CAT, "50"], [DEER, "10"], [DOG, "30.5"]], [AIRPLANE]), setting());
  const answer = fromSaid(said);
  assert.deepEqual(toSaid(answer, setting()), said);
  assert.deepEqual(findProblems(answer, setting()), []);
  assert.deepEqual([answer.top, answer.plausible, answer.percentages[DOG]], [CAT, [DOG, DEER], "30.5"]);
  assert.deepEqual(fromSaid({ named: [], impossible: [] }), emptyAnswer());
});

test("the category that was named last is the last of those that are still named", () => {
  const last = [];
  let answer = chooseTop(emptyAnswer(), CAT);
  const then = (/** @type {any} */ next) => {
    answer = next;
    last.push(answer.last);
  };
  then(setPlausible(answer, DOG, true));
  then(setPlausible(answer, DEER, true));
  then(setPlausible(answer, DOG, false));
  then(setPlausible(answer, DEER, false));
  then(chooseTop(answer, AIRPLANE));
  then(chooseTop(answer, null));
  assert.deepEqual(last, [DOG, DEER, DEER, CAT, AIRPLANE, null]);
});

// What people typed into the published form, 9.5 % of its answers: each is refused here, or can't be said at all.
const CONTRADICTIONS = [
  ["first and second class the same", setPlausible(saying([[CAT, "80"]]), CAT), ["named.1.category: category_named_twice"]],
  ["the second likelier than the first", saying([[CAT, "40"], [DOG, "60"]]), ["named.1.percentage: alternative_likelier"]],
  ["the first also impossible", saying([[CAT, "80"]], [CAT]), ["impossible.3: named_and_impossible"]],
  ["the second also impossible", saying([[CAT, "80"], [DOG, "10"]], [DOG]), ["impossible.5: named_and_impossible"]],
  ["a second class without its percentage", saying([[CAT, "80"], [DOG, undefined]]), ["named.1.percentage: percentage_missing"]],
  ["not a number: 8p", saying([[CAT, "8p"]]), ["named.0.percentage: percentage_not_a_number"]],
  ["more than 100", saying([[CAT, "101"]]), ["named.0.percentage: percentage_out_of_range"]],
  ["0 for the first", saying([[CAT, "0"]]), ["named.0.percentage: nothing_likely"]],
  ["0 for the first, more for the second", saying([[CAT, "0"], [DOG, "10"]]), ["named.1.percentage: alternative_likelier"]],
  ["everything impossible", saying([], [CAT, AIRPLANE, DOG, DEER]), ["named: nothing_answered"]],
];
for (const [what, answer, expected] of CONTRADICTIONS) {
  test(`a contradiction of the published answers is refused: ${what}`, () => {
    assert.deepEqual(codes(answer), expected);
    // Wrong at once, but for the percentage that is still to come.
    const [problem] = findProblems(answer, setting());
    assert.equal(problem.contradiction, problem.code !== "percentage_missing");
  });
}

test("everything impossible, with something named, is pointed at where it is named", () => {
  const answer = saying([[CAT, "80"]], [CAT, AIRPLANE, DOG, DEER]);
  assert.deepEqual(codes(answer), ["impossible.3: named_and_impossible"]);
  assert.equal(findProblems(saying([], [CAT, AIRPLANE, DOG, DEER]), setting())[0].words, "everything_impossible");
});

test("no percentage is sent for a class that is not named: there is no 'no alternative' with a second probability", () => {
  const untied = setPlausible(saying([[CAT, "80"], [DOG, "20"]]), DOG, false);
  assert.deepEqual(toSaid(untied, setting()).named, [{ category: CAT, percentage: 80 }]);
});
