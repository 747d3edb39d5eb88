import assert from "node:assert/strict";
import { test } from "node:test";

import { FIRST_DELAY, LONGEST_DELAY, newId, Sender } from "../static/annotate/sender.js";

const STORED = { id: "r", trial: "t", done: 1, total: 3, next: { id: "u", image_url: "/u.png", position: 2 } };
const SKIPPED = { done: 2, total: 3, next: null };

const json = (status, data) => new Response(JSON.stringify(data), { status });
const html = (status) => new Response("<html>Welcome to the hotel</html>", { status });
const lost = () => Promise.reject(new TypeError("Failed to fetch"));

/** A sender whose replies come from a list and whose pauses end at once, unless they are held. */
const setUp = (replies, { held = false } = {}) => {
  const log = { requests: [], waits: [], attempts: 0 };
  const sender = new Sender({
    fetch: (url, init) => {
      log.requests.push({ url, ...init });
      const reply = replies.shift();
      return typeof reply === "function" ? reply() : Promise.resolve(reply);
    },
    setTimer: (wake) => {
      if (!held) {
        setImmediate(wake);
      }
    },
    onAttempt: () => {
      log.attempts += 1;
    },
    onWaiting: (waiting) => log.waits.push(waiting),
  });
  return { sender, log, send: () => sender.send("/api/trials/t/responses/r", "Session secret", '{"named":[]}') };
};

test("an answer is put once with its authorization", async () => {
  const { log, send } = setUp([json(201, STORED)]);
  assert.deepEqual(await send(), { kind: "stored", stored: STORED });
  const [request] = log.requests;
  assert.equal(log.requests.length, 1);
  assert.deepEqual([request.method, request.url, request.body], ["PUT", "/api/trials/t/responses/r", '{"named":[]}']);
  assert.equal(request.headers.Authorization, "Session secret");
});

test("a resend that the server knows already counts as stored", async () => {
  const { send } = setUp([json(200, { ...STORED, next: null })]);
  const outcome = await send();
  assert.equal(outcome.kind, "stored");
  assert.equal(outcome.stored.next, null);
});

test("a skipped trial's reply, which names no response, counts as stored", async () => {
  const { send } = setUp([json(200, SKIPPED)]);
  assert.deepEqual(await send(), { kind: "stored", stored: SKIPPED });
});

test("a request outlives its page unless it is longer than browsers allow", async () => {
  const { sender, log } = setUp([json(201, STORED), json(201, STORED)]);
  await sender.send("/u", "Session secret", "{}");
  await sender.send("/u", "Session secret", " ".repeat(60_000));
  assert.deepEqual(log.requests.map(({ keepalive }) => keepalive), [true, false]);
});

test("a lost connection is tried again with the very same request", async () => {
  const { log, send } = setUp([lost, lost, json(201, STORED)]);
  assert.equal((await send()).kind, "stored");
  assert.equal(log.requests.length, 3);
  assert.equal(new Set(log.requests.map(({ url, body }) => url + body)).size, 1);
  assert.deepEqual(log.waits.map(({ cause }) => cause), ["network", "network"]);
});

for (const status of [500, 502, 503, 504, 408, 429]) {
  test(`status ${status} is tried again`, async () => {
    const { log, send } = setUp([html(status), json(201, STORED)]);
    assert.equal((await send()).kind, "stored");
    assert.deepEqual(log.waits, [{ cause: "server", attempt: 1, delay: FIRST_DELAY }]);
  });
}

test("a page that is not ours does not pass for stored", async () => {
  const { log, send } = setUp([html(200), json(200, { hello: "world" }), json(201, STORED)]);
  assert.equal((await send()).kind, "stored");
  assert.equal(log.requests.length, 3);
});

test("pauses double from half a second to fifteen seconds", async () => {
  const { log, send } = setUp([...Array(7).fill(lost), json(201, STORED)]);
  await send();
  assert.deepEqual(log.waits.map(({ delay }) => delay), [500, 1000, 2000, 4000, 8000, LONGEST_DELAY, LONGEST_DELAY]);
  assert.equal(LONGEST_DELAY, 15_000);
});

test("try now ends the pause", async () => {
  const { sender, log, send } = setUp([lost, json(201, STORED)], { held: true });
  const outcome = send();
  await new Promise(setImmediate);
  assert.equal(log.requests.length, 1);
  sender.tryNow();
  assert.equal((await outcome).kind, "stored");
});

test("try now with nothing under way does nothing", () => {
  const { sender, log } = setUp([]);
  sender.tryNow();
  assert.equal(log.requests.length, 0);
});

test("a refusal is handed back with its sentences and not tried again", async () => {
  const body = { code: "sum_over_limit", message: "Too much.", fields: { sum: "At most 100 %.", named: ["One.", "Two."] } };
  const { log, send } = setUp([json(422, body)]);
  assert.deepEqual(await send(), {
    kind: "refused",
    refusal: {
      code: "sum_over_limit",
      message: "Too much.",
      fields: { sum: "At most 100 %.", named: "One. Two." },
    },
  });
  assert.equal(log.requests.length, 1);
});

for (const status of [403, 404, 511]) {
  test(`status ${status} from somebody on the way is not the server's word`, async () => {
    const { log, send } = setUp([html(status), json(201, STORED)]);
    assert.equal((await send()).kind, "stored");
    assert.deepEqual(log.waits.map(({ cause }) => cause), ["server"]);
  });
}

test("a trial that has another answer already is settled elsewhere", async () => {
  const { send } = setUp([json(409, { code: "trial_already_answered", message: "", fields: {} })]);
  assert.deepEqual(await send(), { kind: "elsewhere" });
});

for (const code of ["session_closed", "session_not_at_trials", "place_given_away"]) {
  test(`409 ${code} is over`, async () => {
    const refusal = { code, message: "Sorry.", fields: {} };
    const { send } = setUp([json(409, refusal)]);
    assert.deepEqual(await send(), { kind: "over", refusal });
  });
}

test("another conflict is a refusal", async () => {
  const { send } = setUp([json(409, { code: "response_id_taken", message: "Taken.", fields: {} })]);
  assert.equal((await send()).kind, "refused");
});

test("ids are random UUIDs of version 4, with crypto.randomUUID or without", () => {
  const shape = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
  assert.match(newId(), shape);
  const kept = crypto.randomUUID;
  Object.defineProperty(crypto, "randomUUID", { value: undefined, configurable: true, writable: true });
  try {
    const ids = Array.from({ length: 50 }, newId);
    ids.forEach((id) => assert.match(id, shape));
    assert.equal(new Set(ids).size, 50);
  } finally {
    Object.defineProperty(crypto, "randomUUID", { value: kept, configurable: true, writable: true });
  }
});
