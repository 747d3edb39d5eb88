/**
 * What an annotator has said of one image so far: changes to it, what is wrong with it, what it leaves over, and the
 * body that is sent. Pure: no document, no clock, no network.
 *
 * The server's rule decides (it answers with the same codes and field names); this one is a courtesy that saves a
 * round trip. Percentages are kept as the text that was typed, so that nothing said is ever rewritten.
 */

/**
 * @typedef {object} Rules
 * @property {number | null} most_named how many categories may be named, null for no limit
 * @property {number | null} sum_limit the most that the percentages may add up to, null for no limit
 * @property {boolean} ask_impossible
 */

/** @typedef {{ index: number, name: string }} Category */

/** @typedef {{ categories: readonly Category[], rules: Rules }} Setting */

/**
 * @typedef {object} Answer
 * @property {number | null} top the most likely category
 * @property {readonly number[]} plausible the alternatives
 * @property {readonly number[]} impossible
 * @property {readonly number[]} swept those of `impossible` that "all others impossible" ticked
 * @property {Readonly<Record<number, string>>} percentages as typed, by category; absent: not answered
 * @property {number | null} last the category that was named last, of those that are named
 */

/** @typedef {"top" | "plausible" | "impossible" | "percentage"} ControlKind */

/**
 * Where a problem is shown: at a control of a category, or (category null) at the answer as a whole.
 * @typedef {{ kind: ControlKind | "answer", category: number | null }} Place
 */

/**
 * @typedef {object} Problem
 * @property {string} code one of the server's codes
 * @property {string} field the server's name of the field
 * @property {Place} place
 * @property {string} words the key of its sentence: mostly the code
 * @property {boolean} contradiction true: wrong already; false: merely not finished yet
 * @property {Readonly<Record<string, string | number>>} values what its sentence mentions
 */

/** @typedef {{ code: string } | { value: number }} Reading */

/** @typedef {{ category: number, percentage: number }} Named */

/** What was said, as the server keeps it: `named` most likely first. @typedef {{ named: Named[], impossible: number[] }} Said */

/**
 * @typedef {object} Leftover
 * @property {"nothing_named" | "missing" | "invalid" | "open" | "closed" | "none" | "over"} state
 *   open: categories are left to take it; closed: every other category is impossible
 * @property {number} percent 100 less what is given; for "over" what is given in all
 * @property {number[]} categories those it is left for; for "missing" and "invalid" those to complete
 * @property {boolean} all whether `categories` are all those that are not named
 */

/** Sums of decimals such as 33.3 + 66.7 may exceed their true value by a hair. */
const TOLERANCE = 1e-9;

const NUMBER = /^[+-]?(\d+([.,]\d*)?|[.,]\d+)$/;

/** @returns {Answer} */
export function emptyAnswer() {
  return { top: null, plausible: [], impossible: [], swept: [], percentages: {}, last: null };
}

/** @param {Answer} answer */
export function isEmpty(answer) {
  return (
    answer.top === null &&
    !answer.plausible.length &&
    !answer.impossible.length &&
    !Object.keys(answer.percentages).length
  );
}

/**
 * @param {Answer} answer
 * @param {number | null} category null takes the choice back
 * @returns {Answer}
 */
export function chooseTop(answer, category) {
  return withLast({ ...answer, top: category }, category);
}

/**
 * @param {Answer} answer
 * @param {number} category
 * @param {boolean} [on] toggles when left out
 * @returns {Answer}
 */
export function setPlausible(answer, category, on = !answer.plausible.includes(category)) {
  return withLast({ ...answer, plausible: withMember(answer.plausible, category, on) }, on ? category : null);
}

/**
 * @param {Answer} answer
 * @param {number} category
 * @param {boolean} [on] toggles when left out
 * @returns {Answer}
 */
export function setImpossible(answer, category, on = !answer.impossible.includes(category)) {
  return {
    ...answer,
    impossible: withMember(answer.impossible, category, on),
    swept: withMember(answer.swept, category, false),
  };
}

/**
 * @param {Answer} answer
 * @param {number} category
 * @param {string} text as typed; empty: not answered
 * @returns {Answer}
 */
export function setPercentage(answer, category, text) {
  const percentages = { ...answer.percentages };
  if (text === "") {
    delete percentages[category];
  } else {
    percentages[category] = text;
  }
  return { ...answer, percentages };
}

/**
 * "All others impossible": ticks every category that is not named; the second time unticks what it ticked.
 * @param {Answer} answer
 * @param {readonly Category[]} categories
 * @returns {Answer}
 */
export function sweep(answer, categories) {
  if (answer.swept.length) {
    const impossible = answer.impossible.filter((category) => !answer.swept.includes(category));
    return { ...answer, impossible, swept: [] };
  }
  const swept = categories
    .map((category) => category.index)
    .filter((index) => !isNamed(answer, index) && !answer.impossible.includes(index));
  return { ...answer, impossible: [...answer.impossible, ...swept], swept };
}

/**
 * @param {Answer} answer
 * @param {number} category
 */
export function isNamed(answer, category) {
  return answer.top === category || answer.plausible.includes(category);
}

/**
 * A percentage out of what was typed: a decimal comma and a percent sign are understood.
 * @param {string | undefined} text
 * @returns {Reading}
 */
export function readPercentage(text) {
  const bare = (text ?? "").trim().replace(/\s*%$/, "");
  if (bare === "") {
    return { code: "percentage_missing" };
  }
  if (!NUMBER.test(bare)) {
    return { code: "percentage_not_a_number" };
  }
  const value = Number(bare.replace(",", "."));
  return value >= 0 && value <= 100 ? { value: value + 0 } : { code: "percentage_out_of_range" };
}

/**
 * Categories in the order in which they are sent: the most likely, then the alternatives, likelier first
 * (as shown where they are equal or have no percentage yet). Named twice, a category stands here twice.
 * @param {Answer} answer
 * @param {Setting} setting
 * @returns {number[]}
 */
export function namedInOrder(answer, setting) {
  const alternatives = setting.categories
    .map((category) => category.index)
    .filter((index) => answer.plausible.includes(index));
  alternatives.sort((a, b) => valueOr(answer, b, -1) - valueOr(answer, a, -1));
  return answer.top === null ? alternatives : [answer.top, ...alternatives];
}

/**
 * All that keeps the answer from being sent, in the order of the screen.
 * @param {Answer} answer
 * @param {Setting} setting
 * @returns {Problem[]}
 */
export function findProblems(answer, setting) {
  const { rules } = setting;
  /** @type {Problem[]} */
  const problems = [];
  /** @type {(code: string, field: string, place: Place, contradiction: boolean, values?: Problem["values"], words?: string) => void} */
  const add = (code, field, place, contradiction, values = {}, words = code) => {
    problems.push({ code, field, place, words, contradiction, values });
  };
  const name = (/** @type {number} */ index) => nameOf(setting, index);
  const named = namedInOrder(answer, setting);
  const { top } = answer;
  const topValue = top === null ? null : valueOr(answer, top, null);

  if (top === null) {
    const all = rules.ask_impossible && setting.categories.every(({ index }) => answer.impossible.includes(index));
    const words = all ? "everything_impossible" : "nothing_answered";
    add("nothing_answered", "named", { kind: "answer", category: null }, all, {}, words);
  }
  named.forEach((category, rank) => {
    const field = `named.${rank}`;
    if (top !== null && rank > 0 && category === top) {
      const values = { name: name(category) };
      add("category_named_twice", `${field}.category`, { kind: "plausible", category }, true, values);
      return;
    }
    if (rules.most_named !== null && rank >= rules.most_named && top !== null) {
      const values = { name: name(category), limit: rules.most_named };
      add("too_many_named", "named", { kind: "plausible", category }, true, values);
    }
    const reading = readPercentage(answer.percentages[category]);
    const place = /** @type {Place} */ ({ kind: "percentage", category });
    if ("code" in reading) {
      const values = { name: name(category), text: answer.percentages[category] ?? "" };
      add(reading.code, `${field}.percentage`, place, reading.code !== "percentage_missing", values);
    } else if (rank > 0 && top !== null && topValue !== null && reading.value > topValue) {
      const values = { name: name(category), top: name(top) };
      add("alternative_likelier", `${field}.percentage`, place, true, values);
    }
  });
  if (rules.ask_impossible) {
    for (const category of answer.impossible.filter((index) => isNamed(answer, index))) {
      const values = { name: name(category) };
      add("named_and_impossible", `impossible.${category}`, { kind: "impossible", category }, true, values);
    }
  }
  const values = distinct(named).map((category) => valueOr(answer, category, null));
  if (top !== null && values.every((value) => value === 0)) {
    const place = /** @type {Place} */ ({ kind: "percentage", category: top });
    add("nothing_likely", "named.0.percentage", place, true, { name: name(top) });
  }
  const sum = values.reduce((/** @type {number} */ total, value) => total + (value ?? 0), 0);
  if (rules.sum_limit !== null && sum > rules.sum_limit + TOLERANCE) {
    const numbers = { sum: tidy(sum), limit: rules.sum_limit };
    add("sum_over_limit", "sum", { kind: "answer", category: null }, true, numbers);
  }
  return inOrderOfTheScreen(problems, setting);
}

/**
 * What the named percentages leave of 100, and for whom.
 * @param {Answer} answer
 * @param {Setting} setting
 * @returns {Leftover}
 */
export function leftover(answer, setting) {
  const named = distinct(namedInOrder(answer, setting));
  const readings = named.map((category) => ({ category, reading: readPercentage(answer.percentages[category]) }));
  const given = tidy(readings.reduce((sum, { reading }) => sum + ("value" in reading ? reading.value : 0), 0));
  const percent = tidy(100 - given);
  /** @type {(wanted: boolean) => number[]} */
  const unread = (wanted) =>
    readings
      .filter(({ reading }) => "code" in reading && (reading.code === "percentage_missing") === wanted)
      .map(({ category }) => category);
  if (answer.top === null && !named.length) {
    return { state: "nothing_named", percent: 100, categories: [], all: false };
  }
  if (unread(false).length) {
    return { state: "invalid", percent, categories: unread(false), all: false };
  }
  if (given > 100 + TOLERANCE) {
    return { state: "over", percent: given, categories: [], all: false };
  }
  if (unread(true).length) {
    return { state: "missing", percent, categories: unread(true), all: false };
  }
  if (percent <= TOLERANCE) {
    return { state: "none", percent: 0, categories: [], all: false };
  }
  const unnamed = setting.categories.map((category) => category.index).filter((index) => !named.includes(index));
  const categories = unnamed.filter((index) => !ruledOut(answer, setting, index));
  return {
    state: categories.length ? "open" : "closed",
    percent,
    categories,
    all: categories.length === unnamed.length,
  };
}

/**
 * The label that the answer implies: the named shares, scaled down to 1 if they exceed it, and (category null) what is
 * left for the categories that are open; where none is open the named ones share it.
 * @param {Answer} answer
 * @param {Setting} setting
 * @returns {{ category: number | null, share: number }[]} shares in 0..1, adding up to 1, or nothing
 */
export function impliedShares(answer, setting) {
  const named = distinct(namedInOrder(answer, setting))
    .map((category) => ({ category, value: valueOr(answer, category, 0) ?? 0 }))
    .filter(({ value }) => value > 0);
  const given = named.reduce((sum, { value }) => sum + value, 0);
  if (!given) {
    return [];
  }
  const closed = leftover(answer, setting).state === "closed";
  const whole = closed ? given : Math.max(given, 100);
  /** @type {{ category: number | null, share: number }[]} */
  const shares = named.map(({ category, value }) => ({ category, share: value / whole }));
  if (whole > given + TOLERANCE) {
    shares.push({ category: null, share: 1 - given / whole });
  }
  return shares;
}

/**
 * What was said. Only for an answer without problems.
 * @param {Answer} answer
 * @param {Setting} setting
 * @returns {Said}
 */
export function toSaid(answer, setting) {
  const named = namedInOrder(answer, setting).map((category) => ({
    category,
    percentage: /** @type {number} */ (valueOr(answer, category, null)),
  }));
  const impossible = setting.rules.ask_impossible ? [...answer.impossible].sort((a, b) => a - b) : [];
  return { named, impossible };
}

/**
 * The answer that says this, to be corrected.
 * @param {Said} said
 * @returns {Answer}
 */
export function fromSaid({ named, impossible }) {
  const [top, ...others] = named.map(({ category }) => category);
  return {
    top: top ?? null,
    plausible: others,
    impossible: [...impossible],
    swept: [],
    percentages: Object.fromEntries(named.map(({ category, percentage }) => [category, String(percentage)])),
    last: others.at(-1) ?? top ?? null,
  };
}

/**
 * Where the server's complaint about a field of the body is to be shown.
 * @param {string} field
 * @param {Said} said
 * @returns {Place}
 */
export function placeOfField(field, said) {
  const [part, at, detail] = field.split(".");
  const number = Number(at);
  if (part === "named" && said.named[number]) {
    const { category } = said.named[number];
    if (detail === "percentage") {
      return { kind: "percentage", category };
    }
    return { kind: number === 0 ? "top" : "plausible", category };
  }
  if (part === "impossible" && said.impossible.includes(number)) {
    return { kind: "impossible", category: number };
  }
  return { kind: "answer", category: null };
}

/**
 * @param {readonly number[]} members
 * @param {number} member
 * @param {boolean} on
 */
function withMember(members, member, on) {
  const others = members.filter((other) => other !== member);
  return on ? [...others, member] : others;
}

/** @param {readonly number[]} members */
function distinct(members) {
  return [...new Set(members)];
}

/**
 * @template T
 * @param {Answer} answer
 * @param {number} category
 * @param {T} otherwise
 * @returns {number | T}
 */
function valueOr(answer, category, otherwise) {
  const reading = readPercentage(answer.percentages[category]);
  return "value" in reading ? reading.value : otherwise;
}

/**
 * @param {Answer} answer
 * @param {number | null} category named just now; null: one was taken back
 * @returns {Answer}
 */
function withLast(answer, category) {
  const last = category ?? answer.last;
  return { ...answer, last: last !== null && isNamed(answer, last) ? last : (answer.plausible.at(-1) ?? answer.top) };
}

/**
 * @param {Answer} answer
 * @param {Setting} setting
 * @param {number} category
 */
function ruledOut(answer, setting, category) {
  return setting.rules.ask_impossible && answer.impossible.includes(category);
}

/**
 * @param {Setting} setting
 * @param {number} index
 */
function nameOf(setting, index) {
  return setting.categories.find((category) => category.index === index)?.name ?? String(index);
}

/** Decimal sums without binary dust: 33.3 + 66.6 is 99.9.
 * @param {number} value
 */
function tidy(value) {
  return Math.round(value * 1e6) / 1e6;
}

/**
 * @param {Problem[]} problems
 * @param {Setting} setting
 */
function inOrderOfTheScreen(problems, setting) {
  const rows = setting.categories.map((category) => category.index);
  /** @type {(problem: Problem) => number} */
  const row = ({ place }) => (place.category === null ? rows.length : rows.indexOf(place.category));
  return [...problems].sort((a, b) => row(a) - row(b));
}
