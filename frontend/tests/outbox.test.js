import assert from "node:assert/strict";
import { test } from "node:test";

import { Outbox } from "../static/annotate/outbox.js";
import { MemoryStore } from "../static/annotate/store.js";

const ADDRESS = {
  session: "s",
  api: "/api/trials/{trial}/responses/{response}",
  skipApi: "/api/trials/{trial}/skip",
  authorization: "Session secret",
};
const NEXT = { id: "next", image_url: "/n.png", position: 9, framing: "others", note: "" };

const json = (status, data) => () => Promise.resolve(new Response(JSON.stringify(data), { status }));
const stored = (done) => json(201, { done, total: 9, next: NEXT });
const lost = () => Promise.reject(new TypeError("Failed to fetch"));
const refusal = (code) => ({ code, message: `${code}.`, fields: {} });

/** What a browser keeps on its disk, as far as the tabs of these tests can tell. */
class Disk extends MemoryStore {
  lasting = true;
}

/** One browser: tabs opened in it share its disk, its locks and its news. */
class Browser {
  constructor() {
    this.disk = new Disk();
    this.tabs = [];
    this.turn = Promise.resolve();
    this.requests = [];
    this.replies = [];
    this.pauses = [];
    this.hold = false;
    this.time = 1000;
  }

  locks = {
    request: (_, work) => {
      const mine = this.turn.then(work);
      this.turn = mine.catch(() => undefined);
      return mine;
    },
  };

  open({ stores = [this.disk, new MemoryStore()], locks = this.locks, address = ADDRESS } = {}) {
    const channel = {
      onmessage: null,
      postMessage: (data) => {
        const others = this.tabs.filter((other) => other !== channel);
        setImmediate(() => others.forEach((other) => other.onmessage?.({ data: structuredClone(data) })));
      },
      close: () => {
        this.tabs = this.tabs.filter((other) => other !== channel);
      },
    };
    this.tabs.push(channel);
    const outbox = new Outbox(address, {
      stores,
      locks: locks ?? undefined,
      channel,
      fetch: (url, init) => {
        this.requests.push({ url, ...init, body: JSON.parse(init.body) });
        return (this.replies.shift() ?? stored(this.requests.length))();
      },
      setTimer: (wake, milliseconds) => {
        this.pauses.push(wake);
        if (!this.hold) {
          this.time += milliseconds;
          setImmediate(wake);
        }
      },
      now: () => this.time,
    });
    const news = [];
    for (const type of ["stored", "refused", "elsewhere", "over", "waiting", "trying"]) {
      outbox.addEventListener(type, ({ detail }) => news.push({ type, ...detail }));
    }
    return { outbox, news, told: (type) => news.filter((each) => each.type === type) };
  }
}

const say = (response, more = {}) => ({ response, body: { named: [{ category: 3, percentage: 80 }], ...more } });
const states = async (outbox) => (await outbox.records()).map(({ trial, state }) => [trial, state]);
const breathe = async (times = 20) => {
  for (let i = 0; i < times; i += 1) {
    await new Promise(setImmediate);
  }
};

test("an answer is accepted before it is sent, and stored when the server says so", async () => {
  const browser = new Browser();
  browser.hold = true;
  browser.replies = [lost];
  const { outbox, told } = browser.open();
  assert.equal(await outbox.accept("t1", say("r1")), "accepted");
  await breathe();
  assert.deepEqual(await states(outbox), [["t1", "waiting"]]);
  assert.deepEqual(told("waiting").map(({ cause, count }) => [cause, count]), [["network", 1]]);
  outbox.tryNow();
  await outbox.idle();
  assert.deepEqual(await states(outbox), [["t1", "stored"]]);
  assert.deepEqual(told("stored"), [
    { type: "stored", trial: "t1", response: "r1", kind: "response", done: 2, total: 9, next: NEXT },
  ]);
  assert.equal(browser.requests[0].url, "/api/trials/t1/responses/r1");
  assert.equal(browser.requests[0].headers.Authorization, "Session secret");
});

test("answers are sent in the order of their acceptance, whatever is lost on the way", async () => {
  const browser = new Browser();
  browser.replies = [lost, json(503, {}), stored(1), lost, stored(2), stored(3)];
  const { outbox } = browser.open();
  for (const name of ["t3", "t1", "t2"]) {
    await outbox.accept(name, say(`r-${name}`));
  }
  await outbox.idle();
  const settled = browser.requests.map(({ url }) => url.split("/")[3]);
  assert.deepEqual(settled, ["t3", "t3", "t3", "t1", "t1", "t2"]);
});

test("what a closed tab has left is sent by the next one", async () => {
  const browser = new Browser();
  browser.hold = true;
  browser.replies = [lost];
  const closed = browser.open({ locks: { request: (_, work) => work() } });
  await closed.outbox.accept("t1", say("r1"));
  await breathe();
  closed.outbox.close();
  const { outbox } = browser.open();
  assert.equal(await outbox.waiting(), 1);
  await outbox.idle();
  assert.deepEqual(await states(outbox), [["t1", "stored"]]);
  assert.equal(browser.requests.at(-1).url, "/api/trials/t1/responses/r1");
});

test("two tabs can't both answer a trial, and the other one hears of it", async () => {
  const browser = new Browser();
  const [one, two] = [browser.open(), browser.open()];
  const got = await Promise.all([one.outbox.accept("t1", say("r1")), two.outbox.accept("t1", say("r2"))]);
  assert.deepEqual(got.toSorted(), ["accepted", "elsewhere"]);
  await one.outbox.idle();
  await breathe();
  assert.equal(browser.requests.length, 1);
  const loser = got[0] === "elsewhere" ? one : two;
  assert.deepEqual(loser.told("elsewhere"), [{ type: "elsewhere", trial: "t1", by: "tab" }]);
  assert.equal(loser.told("stored").length, 1);
  assert.equal(await one.outbox.accept("t1", say("r3")), "elsewhere");
});

for (const [how, locks] of [["locks", undefined], ["a lease", null]]) {
  test(`one tab at a time sends, by ${how}`, async () => {
    const browser = new Browser();
    let now = 0;
    let most = 0;
    const slow = async () => {
      now += 1;
      most = Math.max(most, now);
      await breathe(5);
      now -= 1;
      return new Response(JSON.stringify({ done: 1, total: 9, next: null }), { status: 201 });
    };
    browser.replies = Array(6).fill(slow);
    const lease = { holder: "", until: 0 };
    browser.disk.lease = async (_, holder, time, until) => {
      if (lease.holder !== holder && lease.until > time) {
        return false;
      }
      Object.assign(lease, { holder, until });
      return true;
    };
    const tabs = [1, 2, 3].map(() => browser.open(locks === null ? { locks } : {}));
    await Promise.all(tabs.flatMap(({ outbox }, i) => [0, 1].map((j) => outbox.accept(`t${i}${j}`, say(`r${i}${j}`)))));
    await Promise.all(tabs.map(({ outbox }) => outbox.idle()));
    assert.equal(most, 1);
    assert.equal(browser.requests.length, 6);
  });
}

test("a tab that holds the turn and falls silent loses its lease", async () => {
  const browser = new Browser();
  const lease = { holder: "a tab that was closed", until: browser.time + 6000 };
  browser.disk.lease = async (_, holder, time, until) => {
    if (lease.holder !== holder && lease.until > time) {
      return false;
    }
    Object.assign(lease, { holder, until });
    return true;
  };
  const { outbox } = browser.open({ locks: null });
  await outbox.accept("t1", say("r1"));
  await outbox.idle();
  assert.ok(browser.time >= 7000);
  assert.deepEqual(await states(outbox), [["t1", "stored"]]);
});

test("try now in one tab ends the pause that another one makes", async () => {
  const browser = new Browser();
  browser.hold = true;
  browser.replies = [lost];
  const [one, two] = [browser.open(), browser.open()];
  await one.outbox.accept("t1", say("r1"));
  await breathe();
  two.outbox.tryNow();
  await two.outbox.idle();
  assert.equal(browser.requests.length, 2);
});

test("a correction replaces the answer, and both are sent in order", async () => {
  const browser = new Browser();
  browser.hold = true;
  browser.replies = [lost];
  const { outbox } = browser.open();
  await outbox.accept("t1", say("r1"));
  await breathe();
  assert.equal(await outbox.accept("t1", say("r2", { revises: "r1" })), "accepted");
  assert.equal(await outbox.accept("t1", say("r3", { revises: "r1" })), "elsewhere");
  const [record] = await outbox.records();
  assert.deepEqual([record.response, record.earlier, record.state], ["r2", ["r1"], "waiting"]);
  outbox.tryNow();
  await outbox.idle();
  const sent = browser.requests.map(({ url, body }) => [url.split("/").at(-1), body.revises]);
  assert.deepEqual(sent, [["r1", undefined], ["r1", undefined], ["r2", "r1"]]);
  assert.deepEqual(await states(outbox), [["t1", "stored"]]);
});

test("a stale tab can't correct what another tab has corrected, a newer answer of another device it can", async () => {
  const browser = new Browser();
  const { outbox } = browser.open();
  await outbox.accept("t1", say("r1"));
  await outbox.accept("t1", say("r2", { revises: "r1" }));
  await outbox.idle();
  assert.equal(await outbox.accept("t1", say("r3", { revises: "r1" })), "elsewhere");
  assert.equal(await outbox.accept("t1", say("r4", { revises: "of-the-phone" })), "accepted");
});

test("a trial answered on another device can be corrected here", async () => {
  const { outbox } = new Browser().open();
  assert.equal(await outbox.accept("t1", say("r2", { revises: "of-the-phone" })), "accepted");
});

test("where the corrected answer is refused, the correction corrects what that one did", async () => {
  const browser = new Browser();
  browser.hold = true;
  browser.replies = [lost, json(422, refusal("sum_over_limit"))];
  const { outbox, told } = browser.open();
  await outbox.accept("t1", say("r1"));
  await breathe();
  await outbox.accept("t1", say("r2", { revises: "r1" }));
  outbox.tryNow();
  await outbox.idle();
  assert.equal(browser.requests.at(-1).body.revises, null);
  assert.deepEqual(told("refused"), []);
  assert.deepEqual(await states(outbox), [["t1", "stored"]]);
});

test("a refused answer comes back with the server's words, and another may take its place", async () => {
  const browser = new Browser();
  browser.replies = [json(422, refusal("sum_over_limit"))];
  const { outbox, told } = browser.open();
  await outbox.accept("t1", say("r1"));
  await outbox.idle();
  assert.deepEqual(told("refused").map(({ trial, response, error }) => [trial, response, error.code]), [
    ["t1", "r1", "sum_over_limit"],
  ]);
  const [record] = await outbox.records();
  assert.deepEqual([record.state, record.error], ["refused", refusal("sum_over_limit")]);
  assert.equal(await outbox.accept("t1", say("r1")), "accepted");
  await outbox.idle();
  assert.deepEqual(await states(outbox), [["t1", "stored"]]);
});

test("an answer that came second to another device's becomes stored elsewhere", async () => {
  const browser = new Browser();
  browser.replies = [json(409, refusal("trial_already_answered"))];
  const { outbox, told } = browser.open();
  await outbox.accept("t1", say("r1"));
  await outbox.accept("t2", say("r2"));
  await outbox.idle();
  assert.deepEqual(told("elsewhere"), [{ type: "elsewhere", trial: "t1", by: "server" }]);
  assert.deepEqual(await states(outbox), [["t1", "elsewhere"], ["t2", "stored"]]);
});

test("a session that takes no answers any more is said to be over, and nothing waits for ever", async () => {
  const browser = new Browser();
  browser.replies = Array(2).fill(json(409, refusal("session_closed")));
  const { outbox, told } = browser.open();
  await outbox.accept("t1", say("r1"));
  await outbox.accept("t2", say("r2"));
  await outbox.idle();
  assert.deepEqual(told("over").map(({ code }) => code), ["session_closed", "session_closed"]);
  assert.deepEqual(await states(outbox), [["t1", "refused"], ["t2", "refused"]]);
});

test("a trial without an image is skipped at its own address", async () => {
  const browser = new Browser();
  const { outbox } = browser.open();
  await outbox.accept("t1", { body: { reason: "image_failed" }, kind: "skip" });
  await outbox.idle();
  assert.equal(browser.requests[0].url, "/api/trials/t1/skip");
  assert.deepEqual(browser.requests[0].body, { reason: "image_failed" });
});

test("without storage an answer is accepted when the server has it", async () => {
  const browser = new Browser();
  browser.hold = true;
  browser.replies = [lost];
  const { outbox } = browser.open({ stores: [new MemoryStore()] });
  let accepted = "";
  const acceptance = outbox.accept("t1", say("r1")).then((word) => {
    accepted = word;
  });
  await breathe();
  assert.equal(accepted, "");
  outbox.tryNow();
  await acceptance;
  assert.equal(accepted, "accepted");
  browser.replies = [json(409, refusal("trial_already_answered"))];
  assert.equal(await outbox.accept("t2", say("r2")), "elsewhere");
});

test("a disk that has no room leaves the answer to the server", async () => {
  const browser = new Browser();
  browser.disk.accept = () => Promise.reject(new DOMException("No room.", "QuotaExceededError"));
  const { outbox } = browser.open();
  assert.equal(await outbox.accept("t1", say("r1")), "accepted");
  assert.equal(browser.requests.length, 1);
  assert.deepEqual(await states(outbox), [["t1", "stored"]]);
});

test("a storage that fails for a moment loses nothing", async () => {
  const browser = new Browser();
  const { settle } = browser.disk;
  let failures = 2;
  browser.disk.settle = function (...entry) {
    failures -= 1;
    return failures < 0 ? settle.apply(this, entry) : Promise.reject(new DOMException("Gone.", "UnknownError"));
  };
  const { outbox } = browser.open();
  await outbox.accept("t1", say("r1"));
  await outbox.idle();
  assert.equal(new Set(browser.requests.map(({ url }) => url)).size, 1);
  assert.deepEqual(await states(outbox), [["t1", "stored"]]);
});

test("sessions of one browser don't meet, and only what is settled is forgotten", async () => {
  const browser = new Browser();
  const { outbox } = browser.open();
  const other = browser.open({ address: { ...ADDRESS, session: "other" } }).outbox;
  await outbox.accept("t1", say("r1"));
  await outbox.idle();
  browser.hold = true;
  browser.replies = [lost];
  await other.accept("u1", say("r2"));
  await breathe();
  assert.deepEqual(await browser.disk.sessions(), ["other"]);
  await browser.disk.forgetOld(browser.time);
  assert.deepEqual(await states(outbox), []);
  await other.forget();
  assert.deepEqual(await states(other), [["u1", "waiting"]]);
  other.tryNow();
  await other.idle();
  await other.forget();
  assert.deepEqual(await states(other), []);
});
