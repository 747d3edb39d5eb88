/** The trial screen: wires controls to the answer, the answer to the screen, and the screen to the outbox. */

import {
  chooseTop,
  emptyAnswer,
  findProblems,
  fromSaid,
  isNamed,
  placeOfField,
  setImpossible,
  setPercentage,
  setPlausible,
  sweep,
  toSaid,
} from "./answer.js";
import { Clock } from "./clock.js";
import { byId, maybeById, setText } from "./dom.js";
import { clearDraft, dropOtherDrafts, loadDraft, saveDraft } from "./draft.js";
import { drawFeedback } from "./feedback.js";
import { Finder } from "./find.js";
import { Keyboard } from "./keys.js";
import { drawMarks } from "./marks.js";
import { recall, remember } from "./memory.js";
import { openOutbox } from "./outbox.js";
import { isBreakDue, minutesLeft } from "./pace.js";
import { AHEAD, Picture } from "./picture.js";
import { deviceOf, differences, Recorder } from "./process.js";
import { Queue } from "./queue.js";
import { controlOf, drawRemarks } from "./remarks.js";
import { amountOf, drawRow, findRow } from "./rows.js";
import { newId } from "./sender.js";
import { wireSlider } from "./slider.js";
import { drawSummary } from "./summary.js";
import { findWarnings } from "./warnings.js";
import { readWording } from "./wording.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Category} Category */
/** @typedef {import("./answer.js").Problem} Problem */
/** @typedef {import("./answer.js").Rules} Rules */
/** @typedef {import("./answer.js").Said} Said */
/** @typedef {import("./keys.js").Column} Column */
/** @typedef {import("./keys.js").Command} Command */
/** @typedef {import("./outbox.js").Events} Events */
/** @typedef {import("./process.js").Device} Device */
/** @typedef {import("./process.js").FieldName} FieldName */
/** @typedef {import("./queue.js").Answered} Answered */
/** @typedef {import("./queue.js").Correction} Correction */
/** @typedef {import("./queue.js").Trial} Trial */
/** @typedef {import("./remarks.js").Remark} Remark */
/** @typedef {import("./rows.js").Row} Row */
/** @typedef {import("./sender.js").Refusal} Refusal */

/**
 * @typedef {object} TrialData
 * @property {string} api with {trial} and {response} to be filled in
 * @property {string} skip_api with {trial} to be filled in
 * @property {string} authorization
 * @property {string} next_url
 * @property {string} session
 * @property {"practice" | "trials"} stage
 * @property {Trial[]} trials those that remain, the current one first
 * @property {Answered[]} answered the last few of those answered, oldest first
 * @property {number} done
 * @property {number} total
 * @property {number} back how many trials one may go back
 * @property {Category[]} categories in the order of the screen
 * @property {Rules} rules
 * @property {number | null} break_every
 * @property {number} seconds_floor
 */

/** @typedef {{ said: Said & { revises: string | null }, error: Refusal }} Refused */

/** A contradiction that arises while typing or sliding is pointed at after a pause of so many milliseconds. */
const PAUSE = 600;
/** The second half of a double press on "next" lands on the next trial: for so long it is no attempt to answer it. */
const DOUBLE_PRESS = 600;
/** Live regions speak when they change: the same sentence again is emptied first, for so long. */
const BREATH = 50;
const SHORTCUTS = "elicit.shortcuts";
/** Where a pointer is fine enough every row has its track; a thumb would hit it when it scrolls. */
const withTracks = matchMedia("(hover: hover) and (pointer: fine) and (min-width: 60rem)");

/** @type {TrialData} */
const data = JSON.parse(byId("trial-data", HTMLScriptElement).textContent ?? "");
const setting = { categories: data.categories, rules: data.rules };
const say = readWording(byId("wording", HTMLDListElement));
const rows = data.categories.map(findRow);
const practice = data.stage === "practice";
const framings = new Set([...data.trials, ...data.answered].map(({ framing }) => framing));
const breakEvery = data.break_every === null ? null : data.break_every * framings.size;

const form = byId("trial", HTMLFormElement);
const fieldset = byId("categories", HTMLFieldSetElement);
const ask = byId("ask", HTMLElement);
const question = byId("question", HTMLElement);
const note = byId("note", HTMLElement);
const noteText = byId("note-text", HTMLElement);
const legend = byId("legend", HTMLElement);
const correcting = byId("correcting", HTMLElement);
const turn = byId("turn", HTMLElement);
const summary = { line: byId("leftover", HTMLElement), bar: byId("implied", HTMLElement) };
const marks = maybeById("marks", HTMLElement);
const imageProblem = byId("image-problem", HTMLElement);
const imageProblemText = byId("image-problem-text", HTMLElement);
const skipButton = byId("image-skip", HTMLButtonElement);
const answerProblem = byId("problem-answer", HTMLElement);
const askAgain = byId("ask-again", HTMLElement);
const sendingBox = byId("sending-box", HTMLElement);
const sendingLine = byId("sending", HTMLElement);
const tryNow = byId("try-now", HTMLButtonElement);
const submitButton = byId("submit", HTMLButtonElement);
const submitText = byId("submit-text", HTMLElement);
const sweepButton = maybeById("sweep", HTMLButtonElement);
const undoButton = byId("undo", HTMLButtonElement);
const backButton = byId("back", HTMLButtonElement);
const leaveButton = byId("leave-correction", HTMLButtonElement);
const announcements = byId("announce", HTMLElement);
const feedbackBox = byId("feedback", HTMLElement);
const restBox = byId("rest", HTMLElement);
const help = byId("help", HTMLDialogElement);
const shortcuts = byId("shortcuts", HTMLInputElement);
const progressBar = maybeById("progress", HTMLProgressElement);
const progressText = maybeById("progress-text", HTMLElement);
const timeLeft = maybeById("time-left", HTMLElement);
const findBox = maybeById("find", HTMLInputElement);
const finder = findBox && new Finder(findBox, byId("find-help", HTMLElement), rows, say);

const memory = recall(data.session);
const keyboard = new Keyboard(rows.length);
const queue = new Queue(data);
/** What the server did not take, by trial, until it is answered anew. @type {Map<string, Refused>} */
const refusals = new Map();

const outbox = await openOutbox({
  session: data.session,
  api: data.api,
  skipApi: data.skip_api,
  authorization: data.authorization,
});
for (const record of (await outbox.records()).sort((a, b) => a.at - b.at)) {
  const said = /** @type {Said & { revises: string | null }} */ (record.body);
  if (record.state === "refused" && record.error && record.kind === "response") {
    refusals.set(record.trial, { said, error: record.error });
  } else if (record.kind === "skip" || record.state === "elsewhere") {
    queue.settle(record.trial);
  } else if (record.state !== "refused") {
    const response = { id: record.response, named: said.named, impossible: said.impossible };
    queue.settle(record.trial, response);
    queue.correct(record.trial, response);
  }
}
dropOtherDrafts(queue.trials.map(({ id }) => id));

/** "busy": an answer is being accepted, nothing may change it. @type {"trial" | "busy" | "feedback" | "rest" | "over"} */
let scene = "busy";
/** @type {Trial} */
let trial;
/** @type {Correction | null} */
let correction = null;
let answer = emptyAnswer();
let response = newId();
let clock = new Clock();
let recorder = new Recorder();
/** @type {{ answer: Answer, touched: [FieldName, number | null][] }[]} */
let undoable = [];
let attempted = false;
/** Whether nothing was touched since the trial came up. */
let fresh = true;
let shownAt = 0;
/** @type {Device} */
let device = "mouse";
/** @type {Column | null} the column of ticks that the keyboard was in last */
let column = null;
/** @type {Remark[]} those on the screen */
let shown = [];
/** @type {Remark[]} those that no rule of ours made (the server's, the image's), until the answer changes */
let others = [];
/** @type {ReturnType<typeof setTimeout> | undefined} */
let reviewTimer;

const picture = new Picture(byId("stimulus", HTMLImageElement), {
  onPainted: () => {
    imageProblem.hidden = true;
    if (scene !== "rest") {
      clock.start(performance.now(), document.hidden);
    }
    others = others.filter(({ key }) => key !== "image_not_shown");
    review(true);
  },
  onFailed: (failures) => {
    imageProblem.hidden = false;
    skipButton.hidden = failures < 2;
    setText(imageProblemText, say("image_failed"));
  },
});

// --- the answer and what is wrong with it --------------------------------------------------------

/**
 * @param {Answer} changed
 * @param {object} [how]
 * @param {boolean} [how.settled] false while a value is being typed or dragged
 * @param {[FieldName, number | null][]} [how.touched] the fields that the change goes by, where not those that differ
 */
function change(changed, { settled = true, touched = differences(answer, changed) } = {}) {
  if (scene === "trial" && touched.length) {
    const now = clock.read(performance.now()).duration_ms;
    const goesOn = touched.map(([field, category]) => recorder.note(field, category, now, device)).every(Boolean);
    if (!goesOn || !undoable.length) {
      undoable.push({ answer, touched });
    }
    answer = changed;
    fresh = false;
    others = [];
    askAgain.hidden = true;
  }
  draw();
  if (scene === "trial") {
    review(settled);
    keep();
  }
}

function draw() {
  for (const row of rows) {
    drawRow(row, answer, say, withTracks.matches && mayName());
  }
  sweepButton?.setAttribute("aria-pressed", String(answer.swept.length > 0));
  undoButton.disabled = !undoable.length;
  drawSummary(summary, answer, setting, say);
  if (marks) {
    drawMarks(marks, answer, data.categories, say);
  }
}

/** Whether the study lets one more category be named. */
function mayName() {
  const named = answer.plausible.length + (answer.top === null ? 0 : 1);
  return named < (data.rules.most_named ?? Infinity);
}

/**
 * The answer with a category named, as the most likely if none is yet.
 * @param {number} category
 */
function withNamed(category) {
  if (isNamed(answer, category)) {
    return answer;
  }
  return answer.top === null ? chooseTop(answer, category) : setPlausible(answer, category, true);
}

/**
 * Points at what is wrong now: contradictions at once, what is merely missing from the first attempt to send it.
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
  const added = shown.filter(({ key }) => !known.has(key));
  if (added.length) {
    announce(added.map(spoken).join(" "));
  }
}

/**
 * @param {Problem} problem
 * @returns {Remark}
 */
function toRemark({ code, words, place, values }) {
  return { key: `${code} ${place.kind} ${place.category}`, place, sentence: say(words, values) };
}

/** @param {Remark} remark */
function spoken({ place, sentence }) {
  const row = rows.find(({ index }) => index === place.category);
  return row ? `${row.name}: ${sentence}` : sentence;
}

/**
 * Says something of the answer as a whole that no rule says.
 * @param {string} key
 */
function object(key) {
  others = [{ key, place: { kind: "answer", category: null }, sentence: say(key) }];
  review(true);
}

/** @param {string} text */
function announce(text) {
  announcements.textContent = "";
  setTimeout(() => setText(announcements, text), BREATH);
}

function keep() {
  if (!correction) {
    const times = clock.read(performance.now());
    saveDraft(trial.id, { response, answer, times, process: recorder.keep() });
  }
}

function sweepOthers() {
  if (!sweepButton) {
    return;
  }
  if (answer.top === null && !answer.plausible.length) {
    object("name_first");
  } else {
    change(sweep(answer, data.categories), { touched: [["sweep", null]] });
  }
}

function undo() {
  const last = undoable.pop();
  if (last && scene === "trial") {
    const before = [...undoable];
    change(last.answer, { touched: last.touched });
    // Taking back is a change in the records, but nothing to be taken back in turn.
    undoable = before;
    undoButton.disabled = !undoable.length;
    announce(say("undone"));
  }
}

/**
 * A percentage by other means than its own slider or number.
 * @param {number} category
 * @param {string} text
 */
function setAmount(category, text) {
  change(setPercentage(answer, category, text));
}

/** @param {Row | undefined} row */
function goToAmount(row) {
  const control = row && amountOf(row);
  if (control && row && isNamed(answer, row.index)) {
    control.focus({ preventScroll: rows.length <= 10 });
    if (control.type === "text") {
      control.select();
    }
  }
}

/**
 * @param {Column} where
 * @param {Row} row
 */
function nameIn(where, row) {
  if (where === "impossible") {
    change(setImpossible(answer, row.index));
    return;
  }
  if (where === "top" || !row.plausible) {
    change(chooseTop(answer, row.index));
  } else if (!isNamed(answer, row.index)) {
    change(setPlausible(answer, row.index, true));
  }
  goToAmount(row);
}

// --- trials, one after the other -----------------------------------------------------------------

/**
 * Shows a trial: as its draft left it, as it was answered, or with nothing said.
 * @param {Trial} next
 * @param {Correction | null} [earlier] to correct
 */
function begin(next, earlier = null) {
  trial = next;
  correction = earlier;
  const refused = earlier ? undefined : refusals.get(trial.id);
  const draft = earlier ? null : loadDraft(trial.id);
  answer = draft?.answer ?? emptyAnswer();
  if (earlier ?? (refused && !draft)) {
    answer = fromSaid(earlier?.answered.response ?? refused?.said ?? { named: [], impossible: [] });
  }
  response = draft?.response ?? newId();
  clock = new Clock(draft?.times);
  recorder = new Recorder(draft?.process);
  undoable = [];
  attempted = false;
  fresh = true;
  others = refused ? serverRemarks(refused) : [];
  shown = [];
  column = null;
  shownAt = performance.now();
  imageProblem.hidden = true;
  askAgain.hidden = true;
  finder?.clear();
  keyboard.forget();
  setScene("trial");
  drawFrame();
  draw();
  review(true);
  picture.show(trial);
  picture.prepare(...queue.trials.filter(({ id }) => id !== trial.id).slice(0, AHEAD));
}

/** @param {Refused} refused */
function serverRemarks({ said, error }) {
  const places = Object.entries(error.fields).map(([field, sentence]) => {
    return { key: `refused ${field}`, place: placeOfField(field, said), sentence };
  });
  const whole = { kind: /** @type {const} */ ("answer"), category: null };
  return places.length ? places : [{ key: "refused", place: whole, sentence: error.message || say("refused") }];
}

/** What stands around the answer: the question, where one is, how much is left. */
function drawFrame() {
  const both = framings.size > 1;
  const second = both && trial.framing === "self";
  const words = say(second ? "question_self_second" : `question_${trial.framing}`);
  setText(question, words);
  setText(legend, words);
  // Heard before the question: the keyboard goes to the question at each new trial.
  note.hidden = !trial.note;
  setText(noteText, trial.note);
  if (trial.note) {
    question.setAttribute("aria-describedby", "note");
  } else {
    question.removeAttribute("aria-describedby");
  }
  ask.classList.toggle("second", second);
  turn.hidden = !both;
  setText(turn, both ? say(second ? "turn_second" : "turn_first") : "");
  const { total } = queue;
  const returned = correction ? "correcting" : refusals.has(trial.id) ? "again" : null;
  correcting.hidden = !returned;
  setText(correcting, returned ? say(returned, { position: trial.position, total }) : "");
  document.body.classList.toggle("correction", correction !== null);
  leaveButton.hidden = !correction;
  setText(submitText, say(correction ? "submit_correction" : `submit_${data.stage}`));
  backButton.hidden = practice;
  backButton.disabled = !queue.before(correction);
  drawProgress();
}

function drawProgress() {
  const { done, total } = queue;
  if (progressBar && progressText) {
    progressBar.max = total;
    progressBar.value = done;
    setText(progressText, say("progress", { done, total }));
  }
  const minutes = practice ? null : minutesLeft(memory.durations, queue.remaining);
  if (timeLeft) {
    timeLeft.hidden = minutes === null;
    setText(timeLeft, minutes === null ? "" : say(minutes ? "minutes_left" : "minute_left", { minutes }));
  }
}

/** @param {typeof scene} next */
function setScene(next) {
  scene = next;
  const busy = next === "busy" || next === "over";
  fieldset.disabled = busy;
  form.setAttribute("aria-busy", String(busy));
  submitButton.disabled = false;
  submitButton.setAttribute("aria-disabled", String(busy));
  form.hidden = next === "rest";
  form.classList.toggle("with-feedback", next === "feedback");
  feedbackBox.hidden = next !== "feedback";
  restBox.hidden = next !== "rest";
}

/**
 * On to the next trial, a break or the end.
 * @param {string} [words] what happened, where it is not the usual
 */
function proceed(words) {
  const next = queue.current;
  if (!next) {
    void finish();
  } else if (!practice && isBreakDue(queue.done, queue.total, breakEvery) && !words) {
    rest(next);
  } else {
    begin(next);
    arrive(words);
  }
}

/** @param {string} [words] */
function arrive(words) {
  const { done, total } = queue;
  const position = Math.min(done + 1, total);
  const where = words ? say(words, { position, total }) : `${turn.textContent} ${say("shown", { position, total })}`.trim();
  announce(trial.note ? `${where} ${say("note")} ${trial.note}` : where);
  question.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

/** @param {Trial} next */
function rest(next) {
  const { done, total, remaining } = queue;
  const minutes = minutesLeft(memory.durations, remaining);
  const words = minutes === null ? "rest_text" : minutes ? "rest_minutes" : "rest_minute";
  setText(byId("rest-text", HTMLElement), say(words, { done, total, minutes: minutes ?? 0 }));
  trial = next;
  shownAt = performance.now();
  setScene("rest");
  correction = null;
  drawFrame();
  picture.prepare(...queue.trials.slice(0, AHEAD));
  byId("rest-title", HTMLElement).focus();
}

function endRest() {
  if (queue.current && performance.now() - shownAt >= DOUBLE_PRESS) {
    begin(queue.current);
    arrive();
  }
}

async function finish() {
  setScene("over");
  drawProgress();
  if (await outbox.waiting()) {
    tell(say("last_ones"));
    await outbox.idle();
  }
  if (queue.current) {
    // The server did not take one of the last.
    begin(queue.current);
    arrive();
  } else {
    location.assign(data.next_url);
  }
}

function goBack() {
  if (scene !== "trial" || practice) {
    return;
  }
  const earlier = queue.before(correction);
  if (!earlier) {
    announce(say("no_way_back"));
    return;
  }
  if (!fresh) {
    keep();
  }
  begin(earlier.answered, earlier);
  announce(correcting.textContent ?? "");
  question.focus({ preventScroll: true });
}

/** @param {string} words */
function leaveCorrection(words) {
  correction = null;
  proceed(words);
}

// --- sending -------------------------------------------------------------------------------------

async function submit() {
  if (scene === "rest") {
    endRest();
    return;
  }
  if (scene === "feedback") {
    leaveFeedback();
    return;
  }
  if (scene !== "trial" || (fresh && performance.now() - shownAt < DOUBLE_PRESS)) {
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
  const said = toSaid(answer, setting);
  const times = clock.read(performance.now());
  if (hasToAsk(said, times.duration_ms)) {
    return;
  }
  await send(said, times);
}

/**
 * Asks what is to be asked about an answer that is allowed but may be meant otherwise.
 * @param {Said} said
 * @param {number} duration
 */
function hasToAsk(said, duration) {
  const top = said.named[0]?.percentage ?? 0;
  // A correction says nothing of how fast or how certain somebody is.
  const history = correction || practice ? { tops: [], durations: [] } : memory;
  const rules = { secondsFloor: data.seconds_floor, asked: memory.asked };
  const codes = findWarnings({ top, duration }, history, rules);
  if (!codes.length) {
    return false;
  }
  for (const code of codes) {
    recorder.ask(code, duration, JSON.stringify(said));
    memory.asked.push(code);
  }
  remember(data.session, memory);
  keep();
  const button = submitText.textContent ?? "";
  const sentences = [...codes.map((code) => say(`ask_${code}`, { percent: top })), say("ask_again", { button })];
  askAgain.hidden = false;
  askAgain.replaceChildren(
    ...sentences.map((sentence) => {
      const line = document.createElement("p");
      line.textContent = sentence;
      return line;
    }),
  );
  shownAt = performance.now();
  fresh = true;
  return true;
}

/**
 * @param {Said} said
 * @param {import("./clock.js").Times} times
 */
async function send(said, times) {
  setScene("busy");
  const { id } = trial;
  const revises = correction?.answered.response.id ?? refusals.get(id)?.said.revises ?? null;
  refusals.delete(id);
  const body = { ...said, ...times, revises, process: recorder.read(device, JSON.stringify(said)) };
  const settled = practice ? settlementOf(id) : null;
  if (settled) {
    tell(say("checking"));
  }
  const taken = await outbox.accept(id, { response, body, kind: "response" });
  const feedback = settled && taken === "accepted" ? await settled : null;
  tell("");
  const refused = refusals.get(id);
  if (refused && !correction) {
    begin(trial);
    const [first] = shown;
    (first ? controlOf(first, rows) : question)?.focus();
    return;
  }
  if (correction) {
    if (taken === "accepted") {
      queue.correct(id, { id: response, ...said });
    }
    leaveCorrection(taken === "accepted" ? "correction_kept" : "elsewhere");
    return;
  }
  clearDraft(id);
  if (taken !== "accepted") {
    queue.settle(id);
    proceed("elsewhere");
    return;
  }
  if (!practice) {
    memory.tops.push(said.named[0]?.percentage ?? 0);
    memory.durations.push(times.duration_ms);
    remember(data.session, memory);
  }
  queue.settle(id, { id: response, ...said });
  if (feedback) {
    showFeedback(feedback);
  } else {
    proceed();
  }
}

/**
 * What the server makes of a practice answer: its feedback, or null where it has none.
 * @param {string} id
 * @returns {Promise<import("./feedback.js").Feedback | null>}
 */
function settlementOf(id) {
  return new Promise((resolve) => {
    on("stored", (detail) => detail.trial === id && resolve(detail.feedback ?? null));
    on("refused", (detail) => detail.trial === id && resolve(null));
    on("elsewhere", (detail) => detail.trial === id && resolve(null));
  });
}

/** @param {import("./feedback.js").Feedback} feedback */
function showFeedback(feedback) {
  setScene("feedback");
  const elements = { text: byId("feedback-text", HTMLElement), table: byId("feedback-table", HTMLTableElement) };
  drawFeedback(elements, feedback, answer, setting, say);
  shownAt = performance.now();
  byId("feedback-title", HTMLElement).focus();
}

function leaveFeedback() {
  if (performance.now() - shownAt >= DOUBLE_PRESS) {
    proceed();
  }
}

async function skipImage() {
  if (scene !== "trial") {
    return;
  }
  if (correction) {
    leaveCorrection("correction_left");
    return;
  }
  setScene("busy");
  const { id } = trial;
  await outbox.accept(id, { response: newId(), body: { reason: "image_failed" }, kind: "skip" });
  clearDraft(id);
  queue.settle(id);
  proceed();
}

/** @param {string} text what becomes of the answers on their way; empty: nothing to say */
function tell(text) {
  setText(sendingLine, text);
  sendingBox.hidden = !text;
  tryNow.hidden = true;
}

/**
 * @template {keyof Events} T
 * @param {T} type
 * @param {(detail: Events[T]) => void} listen
 */
function on(type, listen) {
  outbox.addEventListener(type, (event) => listen(/** @type {CustomEvent} */ (event).detail));
}

on("waiting", ({ cause, delay }) => {
  tell(say(`waiting_${cause}`, { seconds: Math.ceil(delay / 1000) }));
  tryNow.hidden = false;
});
on("trying", () => {
  if (!tryNow.hidden) {
    setText(sendingLine, say("trying"));
  }
});
on("stored", async () => {
  if (!tryNow.hidden && !(await outbox.waiting())) {
    tell("");
  }
});
on("refused", ({ trial: id, body, error }) => {
  refusals.set(id, { said: /** @type {Refused["said"]} */ (body), error });
  const atOnce = scene === "trial" && fresh && !correction;
  if (queue.reopen(id, atOnce) && atOnce && queue.current) {
    begin(queue.current);
    question.focus({ preventScroll: true });
  }
});
on("elsewhere", ({ trial: id }) => {
  const open = queue.trials.some((one) => one.id === id);
  if (open && scene !== "busy") {
    clearDraft(id);
    queue.settle(id);
    if (scene === "trial" && trial.id === id) {
      proceed("elsewhere");
    } else {
      drawProgress();
    }
  }
});
on("over", () => {
  setScene("over");
  location.assign(data.next_url);
});

// --- wires ---------------------------------------------------------------------------------------

/** @param {Event} event */
function noteDevice(event) {
  device = deviceOf(/** @type {PointerEvent} */ (event)) ?? device;
}
document.addEventListener("pointerdown", noteDevice, { capture: true });
document.addEventListener("keydown", noteDevice, { capture: true });

/**
 * After a press the keyboard goes where it is of use next; arrow keys within a group stay where they are.
 * @param {() => void} go
 */
function afterPress(go) {
  if (device !== "keyboard") {
    go();
  }
}

for (const row of rows) {
  const { index, top, plausible, impossible, slider, number } = row;
  top.addEventListener("change", () => {
    change(chooseTop(answer, index));
    afterPress(() => goToAmount(row));
  });
  plausible?.addEventListener("change", () => {
    change(setPlausible(answer, index, plausible.checked));
    afterPress(() => goToAmount(row));
  });
  impossible?.addEventListener("change", () => change(setImpossible(answer, index, impossible.checked)));
  number?.addEventListener("input", () => change(setPercentage(answer, index, number.value), { settled: false }));
  number?.addEventListener("change", () => review(true));
  if (slider) {
    wireSlider(slider, {
      touched: () => !slider.classList.contains("untouched"),
      // A press on the bare track names the category as well.
      take: (value, settled) => change(setPercentage(withNamed(index), index, value), { settled }),
      hold: () => {
        const before = answer;
        return () => change(before);
      },
    });
  }
}

marks?.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button") : null;
  if (button && answer.last !== null) {
    const category = answer.last;
    setAmount(category, button.value);
    afterPress(() => goToAmount(rows.find(({ index }) => index === category)));
  }
});

// --- the keyboard

/**
 * @param {Element} target
 * @returns {import("./keys.js").Place}
 */
function placeOf(target) {
  const control = target.closest("[data-control]")?.getAttribute("data-control");
  const named = answer.top !== null;
  if (control === "slider" || control === "top" || control === "plausible" || control === "impossible") {
    return { focus: control, named };
  }
  if (control === "percentage") {
    return { focus: "number", named };
  }
  const text = target instanceof HTMLInputElement && target.type === "text";
  return { focus: text ? "text" : "elsewhere", named };
}

document.addEventListener("focusin", ({ target }) => {
  if (target instanceof Element && target !== findBox) {
    keyboard.forget();
    const { focus } = placeOf(target);
    column = focus === "top" || focus === "plausible" || focus === "impossible" ? focus : null;
    form.dataset.column = column ?? "";
  }
  drawPending();
});

document.addEventListener("keydown", (event) => {
  const target = event.target instanceof Element ? event.target : document.body;
  if (event.defaultPrevented || event.isComposing || help.open) {
    return;
  }
  const place = placeOf(target);
  const command = keyboard.read(event, place);
  const mine = command && (command.kind === "submit" || command.kind === "leave" || shortcuts.checked);
  if (!mine || (command.kind === "submit" && target.closest("button, a"))) {
    return;
  }
  if (scene !== "trial" && command.kind !== "submit") {
    return;
  }
  event.preventDefault();
  if (!event.repeat || command.kind === "undo") {
    obey(command, target);
  }
  drawPending();
});

/**
 * @param {Command} command
 * @param {Element} target
 */
function obey(command, target) {
  const row = "number" in command ? rows[command.number - 1] : undefined;
  switch (command.kind) {
    case "percentage": {
      const slider = rows.find((one) => one.slider === target);
      if (slider) {
        setAmount(slider.index, command.text);
      }
      break;
    }
    case "category":
      // A study may have no such column.
      if (row?.[command.column]) {
        nameIn(command.column, row);
      }
      break;
    case "go":
      if (row && isNamed(answer, row.index)) {
        goToAmount(row);
      } else if (row) {
        object("pressed_name_first");
      }
      break;
    case "column":
      goToColumn(command.column);
      break;
    case "sweep":
      sweepOthers();
      break;
    case "undo":
      undo();
      break;
    case "submit":
      enter(target);
      break;
    case "back":
      goBack();
      break;
    case "help":
      help.showModal();
      break;
    case "find":
      findBox?.focus();
      break;
    case "leave":
      leave(target);
      break;
    case "pending":
      break;
  }
}

/** @param {Column} wanted */
function goToColumn(wanted) {
  const free = (/** @type {Row} */ { index }) => !isNamed(answer, index) && !answer.impossible.includes(index);
  const chosen = wanted === "top" ? rows.find(({ index }) => index === answer.top) : undefined;
  const row = chosen ?? rows.find(free) ?? rows[0];
  row?.[wanted]?.focus({ preventScroll: rows.length <= 10 });
}

/** @param {Element} target */
function enter(target) {
  if (!finder || target !== findBox) {
    form.requestSubmit();
    return;
  }
  const [found] = finder.matches;
  if (found) {
    const where = answer.top === null ? "top" : (column ?? "plausible");
    finder.clear();
    nameIn(where, found);
    if (where === "impossible") {
      found.impossible?.focus();
    }
  }
}

/** @param {Element} target */
function leave(target) {
  if (finder && target === findBox) {
    finder.clear();
  }
  const row = rows.find(({ group }) => group.contains(target));
  (row?.group ?? question).focus({ preventScroll: true });
}

/** The rows whose two digits begin with the one that was pressed. */
function drawPending() {
  for (const { code } of rows) {
    const begins = keyboard.number !== "" && (code?.textContent ?? "").startsWith(keyboard.number);
    code?.classList.toggle("pending", begins);
  }
}

// --- buttons and the page

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void submit();
});
submitButton.addEventListener("click", (event) => {
  if (event.detail > 1) {
    event.preventDefault();
  }
});
sweepButton?.addEventListener("click", () => {
  sweepOthers();
  afterPress(() => fieldset.focus({ preventScroll: true }));
});
undoButton.addEventListener("click", () => {
  undo();
  if (undoButton.disabled || device !== "keyboard") {
    fieldset.focus({ preventScroll: true });
  }
});
backButton.addEventListener("click", goBack);
leaveButton.addEventListener("click", () => leaveCorrection("correction_left"));
byId("rest-over", HTMLButtonElement).addEventListener("click", endRest);
byId("feedback-next", HTMLButtonElement).addEventListener("click", leaveFeedback);
byId("image-again", HTMLButtonElement).addEventListener("click", () => {
  imageProblem.hidden = true;
  picture.again();
});
skipButton.addEventListener("click", () => void skipImage());
tryNow.addEventListener("click", () => outbox.tryNow());

document.addEventListener("visibilitychange", () => {
  clock.turn(performance.now(), document.hidden);
});
window.addEventListener("pagehide", () => {
  // An answer on its way is in the outbox already; one that is settled has no draft any more.
  if (scene === "trial" && !fresh) {
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

// The page comes with its controls switched off: a press before this module stood would have gone unheard.
if (queue.current) {
  begin(queue.current);
} else {
  void finish();
}
