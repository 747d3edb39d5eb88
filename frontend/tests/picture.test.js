import assert from "node:assert/strict";
import { test } from "node:test";

import { Picture } from "../static/annotate/picture.js";

const trial = (name) => ({ image_url: `/${name}.png` });
const breathe = async () => {
  for (let i = 0; i < 5; i += 1) {
    await new Promise(setImmediate);
  }
};

/** As much of an image element as a picture needs. */
class Element {
  constructor(world, attributes = {}) {
    this.world = world;
    this.values = new Map(Object.entries(attributes));
    const classes = new Set();
    this.classList = { add: (name) => classes.add(name), remove: (name) => classes.delete(name), has: (name) => classes.has(name) };
  }

  get attributes() {
    return [...this.values].map(([name, value]) => ({ name, value }));
  }

  getAttribute(name) {
    return this.values.get(name) ?? null;
  }

  setAttribute(name, value) {
    this.values.set(name, value);
  }

  set src(url) {
    this.values.set("src", url);
  }

  decode() {
    const url = this.values.get("src");
    this.world.asked.push(url);
    return new Promise((resolve, reject) => {
      this.world.pending.push({ url, resolve, reject });
    });
  }

  replaceWith(other) {
    this.world.onPage = other;
  }
}

const setUp = () => {
  const world = { asked: [], pending: [], painted: [], failed: [], timers: [], wake: null, onPage: null };
  const image = new Element(world, { id: "stimulus", alt: "The image", src: "/a.png" });
  world.onPage = image;
  world.answer = async (url, good = true) => {
    const at = world.pending.findIndex((each) => each.url === url);
    const [{ resolve, reject }] = world.pending.splice(at, 1);
    good ? resolve() : reject(new Error("no such image"));
    await breathe();
  };
  const picture = new Picture(
    image,
    {
      onPainted: () => world.painted.push(picture.url),
      onFailed: (failures) => world.failed.push([picture.url, failures]),
    },
    {
      make: () => new Element(world),
      frame: (draw) => setImmediate(draw),
      setTimer: (wake, milliseconds) => world.timers.push({ wake, milliseconds }),
      network: { addEventListener: (_, wake) => (world.wake = wake) },
    },
  );
  return { world, picture };
};

test("the image of the page is taken as it is, and counts once it is decoded", async () => {
  const { world, picture } = setUp();
  const { onPage } = world;
  picture.show(trial("a"));
  assert.ok(onPage.classList.has("loading"));
  assert.deepEqual(world.painted, []);
  await world.answer("/a.png");
  assert.deepEqual([onPage.classList.has("loading"), onPage.classList.has("painted")], [false, true]);
  assert.equal(world.onPage, onPage);
  assert.deepEqual(world.painted, ["/a.png"]);
});

test("an image decoded ahead is on the page at once, in the place and with the attributes of the last", async () => {
  const { world, picture } = setUp();
  picture.show(trial("a"));
  picture.prepare(trial("b"), trial("c"), trial("d"), undefined);
  assert.deepEqual(world.asked, ["/a.png", "/b.png", "/c.png", "/d.png"]);
  for (const name of "abcd") {
    await world.answer(`/${name}.png`);
  }
  picture.show(trial("b"));
  assert.deepEqual(world.onPage.attributes.toSorted((x, y) => (x.name < y.name ? -1 : 1)), [
    { name: "alt", value: "The image" },
    { name: "id", value: "stimulus" },
    { name: "src", value: "/b.png" },
  ]);
  assert.equal(picture.image, world.onPage);
  await breathe();
  assert.deepEqual(world.painted, ["/a.png", "/b.png"]);
  assert.equal(world.asked.length, 4);
});

test("an image shown twice in a row needs no work", async () => {
  const { world, picture } = setUp();
  picture.show(trial("a"));
  await world.answer("/a.png");
  picture.show(trial("a"));
  await breathe();
  assert.deepEqual([world.painted, world.asked], [["/a.png", "/a.png"], ["/a.png"]]);
});

test("an image that is still on its way shows nothing of the last one as if it were new", async () => {
  const { world, picture } = setUp();
  picture.show(trial("a"));
  await world.answer("/a.png");
  picture.show(trial("b"));
  assert.ok(world.onPage.classList.has("loading"));
  assert.deepEqual(world.painted, ["/a.png"]);
  await world.answer("/b.png");
  assert.deepEqual(world.painted, ["/a.png", "/b.png"]);
});

test("an image that comes too late for its trial is not put on the page", async () => {
  const { world, picture } = setUp();
  picture.show(trial("a"));
  picture.show(trial("b"));
  await world.answer("/b.png");
  await world.answer("/a.png");
  assert.equal(world.onPage.getAttribute("src"), "/b.png");
  assert.deepEqual(world.painted, ["/b.png"]);
});

test("an image that fails is reported, and asked for again after growing pauses", async () => {
  const { world, picture } = setUp();
  picture.show(trial("a"));
  for (let i = 0; i < 6; i += 1) {
    await world.answer("/a.png", false);
    world.timers.at(-1).wake();
  }
  assert.deepEqual(world.failed, [1, 2, 3, 4, 5, 6].map((times) => ["/a.png", times]));
  assert.deepEqual(world.timers.map(({ milliseconds }) => milliseconds), [1000, 2000, 4000, 8000, 15000, 15000]);
  await world.answer("/a.png");
  assert.deepEqual(world.painted, ["/a.png"]);
});

test("the network's return asks again for what failed, ahead or current, and for nothing else", async () => {
  const { world, picture } = setUp();
  picture.show(trial("a"));
  picture.prepare(trial("b"), trial("c"));
  await world.answer("/a.png", false);
  await world.answer("/b.png", false);
  await world.answer("/c.png");
  assert.deepEqual(world.failed, [["/a.png", 1]]);
  world.asked.length = 0;
  world.wake();
  assert.deepEqual(world.asked, ["/a.png", "/b.png"]);
  await world.answer("/a.png");
  await world.answer("/b.png");
  world.timers.forEach(({ wake }) => wake());
  assert.deepEqual(world.asked, ["/a.png", "/b.png"]);
});

test("an image that failed ahead is asked for at once when its turn comes", async () => {
  const { world, picture } = setUp();
  picture.show(trial("a"));
  await world.answer("/a.png");
  picture.prepare(trial("b"));
  await world.answer("/b.png", false);
  assert.deepEqual(world.failed, []);
  picture.show(trial("b"));
  await world.answer("/b.png");
  assert.deepEqual(world.painted, ["/a.png", "/b.png"]);
});

test("what is no longer ahead is let go and does not come back", async () => {
  const { world, picture } = setUp();
  picture.show(trial("a"));
  picture.prepare(trial("b"));
  picture.prepare(trial("c"));
  await world.answer("/b.png", false);
  assert.deepEqual([...picture.loads.keys()], ["/a.png", "/c.png"]);
  assert.equal(world.timers.length, 0);
});
