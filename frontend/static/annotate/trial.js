/** The trial screen: wires controls to the answer, the answer to the screen, and the screen to the server. */

import {
  chooseTop,
  emptyAnswer,
  findProblems,
  isEmpty,
  isNamed,
  placeOfField,
  setImpossible,
  setPercentage,
  setPlausible,
  sweep,
  toBody,
} from "./answer.js";
import { Clock } from "./clock.js";
import { byId, maybeById, setText } from "./dom.js";
import { clearDraft, loadDraft, saveDraft } from "./draft.js";
import { wireKeys } from "./keys.js";
import { Picture } from "./picture.js";
import { controlOf, drawRemarks } from "./remarks.js";
import { drawRow, findRow } from "./rows.js";
import { newId, Sender } from "./sender.js";
import { wireSlider } from "./slider.js";
import { drawSummary } from "./summary.js";
import { readWording } from "./wording.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Body} Body */
/** @typedef {import("./answer.js").Category} Category */
/** @typedef {import("./answer.js").Problem} Problem */
/** @typedef {import("./answer.js").Rules} Rules */
/** @typedef {import("./remarks.js").Remark} Remark */
/** @typedef {import("./rows.js").Row} Row */
/** @typedef {import("./sender.js").Outcome} Outcome */
/** @typedef {import("./sender.js").Trial} Trial */

/**
 * @typedef {object} TrialData
 * @property {string} api with {trial} and {response} to be filled in
 * @property {string} authorization
 * @property {string} next_url
 * @property {Trial[]} trials those that remain, the current one first
 * @property {number} done
 * @property {number} total
 * @property {Category[]} categories in the order of the screen
 * @property {Rules} rules
 */

/** A contradiction that arises while typing or sliding is pointed at after a pause of so many milliseconds. */
const PAUSE = 600;
/** The second half of a double press on "submit" lands on the next trial: for so long it is no attempt to answer it. */
const DOUBLE_PRESS = 600;
/** Live regions speak when they change: the same sentence again is emptied first, for so long. */
const BREATH = 50;
const SHORTCUTS = "elicit.shortcuts";

/** @type {TrialData} */
const data = JSON.parse(byId("trial-data", HTMLScriptElement).textContent ?? "");
const setting = { categories: data.categories, rules: data.rules };
const say = readWording(byId("wording", HTMLDListElement));
const rows = data.categories.map(findRow);

const form = byId("trial", HTMLFormElement);
const fieldset = byId("categories", HTMLFieldSetElement);
const question = byId("question", HTMLElement);
const summary = { line: byId("leftover", HTMLElement), bar: byId("implied", HTMLElement) };
const imageProblem = byId("image-problem", HTMLElement);
const imageProblemText = byId("image-problem-text", HTMLElement);
const answerProblem = byId("problem-answer", HTMLElement);
const sendingLine = byId("sending", HTMLElement);
const tryNow = byId("try-now", HTMLButtonElement);
const submitButton = byId("submit", HTMLButtonElement);
const sweepButton = maybeById("sweep", HTMLButtonElement);
const announcements = byId("announce", HTMLElement);
const help = byId("help", HTMLDialogElement);
const shortcuts = byId("shortcuts", HTMLInputElement);
const progressBar = maybeById("progress", HTMLProgressElement);
const progressText = maybeById("progress-text", HTMLElement);

const [first] = data.trials;
if (!first) {
  location.assign(data.next_url);
  throw new Error("No trial is left in this session.");
}

/** @type {Trial} */
let trial = first;
let answer = emptyAnswer();
let response = newId();
let clock = new Clock();
let attempted = false;
let sending = false;
let shownAt = 0;
/** @type {Remark[]} those on the screen */
let shown = [];
/** @type {Remark[]} those that no rule of ours made (the server's, the image's), until the answer changes */
let others = [];
/** @type {ReturnType<typeof setTimeout> | undefined} */
let reviewTimer;

const picture = new Picture(byId("stimulus", HTMLImageElement), {
  onPainted: () => {
    clock.start(performance.now(), document.hidden);
    others = others.filter(({ key }) => key !== "image_not_shown");
    review(true);
    picture.prepare(data.trials[data.trials.findIndex(({ id }) => id === trial.id) + 1]);
  },
  onFailed: () => {
    imageProblem.hidden = false;
    imageProblemText.textContent = say("image_failed");
  },
});

const sender = new Sender({
  fetch: (url, init) => fetch(url, init),
  setTimer: (wake, milliseconds) => setTimeout(wake, milliseconds),
  onAttempt: () => {
    if (!tryNow.hidden) {
      setText(sendingLine, say("trying"));
    }
  },
  onWaiting: ({ cause, delay }) => {
    form.classList.add("waiting");
    tryNow.hidden = false;
    setText(sendingLine, say(`waiting_${cause}`, { seconds: Math.ceil(delay / 1000) }));
  },
});

// --- the answer and what is wrong with it --------------------------------------------------------

/**
 * @param {Answer} changed
 * @param {boolean} [settled] false while a value is being typed or dragged
 */
function change(changed, settled = true) {
  if (!sending) {
    answer = changed;
    others = [];
  }
  draw();
  if (!sending) {
    review(settled);
    keep();
  }
}

function draw() {
  for (const row of rows) {
    drawRow(row, answer, say);
  }
  sweepButton?.setAttribute("aria-pressed", String(answer.swept.length > 0));
  drawSummary(summary, answer, setting, say);
}

/**
 * Points at what is wrong now: contradictions at once, what is merely missing from the first attempt to submit.
 * @param {boolean} settled false: nothing new is pointed at until the value has come to rest
 */
function review(settled) {
  clearTimeout(reviewTimer);
  const known = new Set(shown.map(({ key }) => key));
  let remarks = findProblems(answer, setting)
    .filter(({ contradiction }) => attempted || contradiction)
    .map(toRemark);
  if (!settled) {
    remarks = remarks.filter(({ key }) => known.has(key));
    reviewTimer = setTimeout(() => review(true), PAUSE);
  }
  shown = [...remarks, ...others];
  drawRemarks(shown, rows, answerProblem);
  const fresh = shown.filter(({ key }) => !known.has(key));
  if (fresh.length) {
    announce(fresh.map(spoken).join(" "));
  }
}

/**
 * @param {Problem} problem
 * @returns {Remark}
 */
function toRemark({ code, place, values }) {
  return { key: `${code} ${place.kind} ${place.category}`, place, sentence: say(code, values) };
}

/** @param {Remark} remark */
function spoken({ place, sentence }) {
  const row = rows.find(({ index }) => index === place.category);
  return row ? `${row.name}: ${sentence}` : sentence;
}

/**
 * Says something of the answer as a whole that no rule says.
 * @param {string} key
 * @param {string} [sentence]
 */
function object(key, sentence = say(key)) {
  others = [{ key, place: { kind: "answer", category: null }, sentence }];
  review(true);
}

/** @param {string} text */
function announce(text) {
  announcements.textContent = "";
  setTimeout(() => setText(announcements, text), BREATH);
}

function keep() {
  saveDraft(trial.id, { response, answer, times: clock.read(performance.now()) });
}

function sweepOthers() {
  if (!sweepButton) {
    return;
  }
  if (answer.top === null && !answer.plausible.length) {
    object("name_first");
  } else {
    change(sweep(answer, data.categories));
  }
}

/** @param {Row} row */
function nameByKey(row) {
  if (answer.top === null || !row.plausible) {
    change(chooseTop(answer, row.index));
  } else if (answer.top !== row.index) {
    change(setPlausible(answer, row.index));
  }
  if (isNamed(answer, row.index)) {
    row.number.focus();
    row.number.select();
  } else {
    row.group.focus();
  }
}

// --- sending -------------------------------------------------------------------------------------

async function submit() {
  if (sending || (isEmpty(answer) && performance.now() - shownAt < DOUBLE_PRESS)) {
    return;
  }
  attempted = true;
  others = [];
  review(true);
  if (!shown.length && !clock.running) {
    object("image_not_shown");
  }
  if (shown[0]) {
    controlOf(shown[0], rows)?.focus();
    return;
  }
  hold(true);
  const body = toBody(answer, setting, clock.read(performance.now()));
  const url = data.api.replace("{trial}", trial.id).replace("{response}", response);
  settle(await sender.send(url, data.authorization, JSON.stringify(body)), body);
}

/**
 * While an answer is on its way nothing may change it.
 * @param {boolean} on
 */
function hold(on) {
  sending = on;
  fieldset.disabled = on;
  form.setAttribute("aria-busy", String(on));
  submitButton.setAttribute("aria-disabled", String(on));
  if (!on) {
    form.classList.remove("waiting");
    tryNow.hidden = true;
    setText(sendingLine, "");
  }
}

/**
 * @param {Outcome} outcome
 * @param {Body} body
 */
function settle(outcome, body) {
  if (outcome.kind === "refused") {
    hold(false);
    const places = Object.entries(outcome.fields).map(([field, sentence]) => {
      return { key: `refused ${field}`, place: placeOfField(field, body), sentence };
    });
    const whole = { kind: /** @type {const} */ ("answer"), category: null };
    others = places.length ? places : [{ key: "refused", place: whole, sentence: outcome.message || say("refused") }];
    review(true);
    if (shown[0]) {
      controlOf(shown[0], rows)?.focus();
    }
    return;
  }
  clearDraft(trial.id);
  if (outcome.kind === "over" || !outcome.stored.next) {
    location.assign(data.next_url);
    return;
  }
  const { done, total, next } = outcome.stored;
  hold(false);
  if (progressBar && progressText) {
    progressBar.max = total;
    progressBar.value = done;
    setText(progressText, say("progress", { done, total }));
  }
  begin(next);
  announce(say("shown", { position: done + 1, total }));
  question.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

/**
 * Shows a trial: as its draft left it, or with nothing said.
 * @param {Trial} next
 */
function begin(next) {
  trial = next;
  const draft = loadDraft(trial.id);
  answer = draft?.answer ?? emptyAnswer();
  response = draft?.response ?? newId();
  clock = new Clock(draft?.times);
  attempted = false;
  others = [];
  shown = [];
  shownAt = performance.now();
  imageProblem.hidden = true;
  draw();
  review(true);
  void picture.show(trial);
}

// --- wires ---------------------------------------------------------------------------------------

for (const row of rows) {
  const { index, top, plausible, impossible, slider, number } = row;
  top.addEventListener("change", () => change(chooseTop(answer, index)));
  plausible?.addEventListener("change", () => change(setPlausible(answer, index, plausible.checked)));
  impossible?.addEventListener("change", () => change(setImpossible(answer, index, impossible.checked)));
  number.addEventListener("input", () => change(setPercentage(answer, index, number.value), false));
  number.addEventListener("change", () => review(true));
  wireSlider(slider, {
    touched: () => !slider.classList.contains("untouched"),
    take: (value, settled) => change(setPercentage(answer, index, value), settled),
    hold: () => {
      const before = answer.percentages[index] ?? "";
      return () => change(setPercentage(answer, index, before));
    },
  });
}

wireKeys(rows, {
  ready: () => shortcuts.checked && !sending,
  away: () => help.open,
  submit: () => form.requestSubmit(),
  name: nameByKey,
  ruleOut: ({ index, impossible }) => impossible && change(setImpossible(answer, index)),
  sweep: sweepOthers,
  takeBack: () => change(chooseTop(answer, null)),
  help: () => help.showModal(),
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void submit();
});
submitButton.addEventListener("click", (event) => {
  if (event.detail > 1) {
    event.preventDefault();
  }
});
sweepButton?.addEventListener("click", sweepOthers);
tryNow.addEventListener("click", () => sender.tryNow());

function loadImageAgain() {
  imageProblem.hidden = true;
  void picture.again();
}
byId("image-again", HTMLButtonElement).addEventListener("click", loadImageAgain);

window.addEventListener("online", () => {
  sender.tryNow();
  if (!imageProblem.hidden) {
    loadImageAgain();
  }
});
document.addEventListener("visibilitychange", () => {
  clock.turn(performance.now(), document.hidden);
});
window.addEventListener("pagehide", () => {
  // An answer on its way is kept already; one that is stored has no draft any more.
  if (!sending && !isEmpty(answer)) {
    keep();
  }
});
window.addEventListener("pageshow", (event) => {
  // Brought back by the Back button: the session may stand elsewhere by now.
  if (event.persisted) {
    location.reload();
  }
});

byId("open-help", HTMLButtonElement).addEventListener("click", () => help.showModal());
help.addEventListener("click", (event) => {
  if (event.target === help) {
    help.close();
  }
});

/** @param {boolean} on */
function useShortcuts(on) {
  shortcuts.checked = on;
  document.documentElement.classList.toggle("no-shortcuts", !on);
}
shortcuts.addEventListener("change", () => {
  useShortcuts(shortcuts.checked);
  try {
    localStorage.setItem(SHORTCUTS, shortcuts.checked ? "on" : "off");
  } catch {
    // Without storage the choice holds until the page is left.
  }
});
try {
  useShortcuts(localStorage.getItem(SHORTCUTS) !== "off");
} catch {
  useShortcuts(true);
}

begin(first);

// The page comes with its controls switched off: a press before this module stood would have gone unheard.
fieldset.disabled = false;
submitButton.disabled = false;
