// The dashboard looks again by itself: it fetches its own middle and puts in what has changed, part by part. Whatever
// has not changed is left alone, and so are scroll, focus and the tables that are open.
const root = document.getElementById("watch");
const pause = document.getElementById("watch-pause");
const again = document.getElementById("watch-again");
let stopped = false;
let timer = 0;

const parts = (within) => [...within.querySelectorAll("[data-part]")];

function put(old, fresh) {
  if (old.dataset.every !== fresh.dataset.every && fresh.dataset.every) old.dataset.every = fresh.dataset.every;
  if (old.innerHTML === fresh.innerHTML) return;
  const open = [...old.querySelectorAll("details")].map((each) => each.open);
  const scrolled = [...old.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
  const focusable = "a[href], button, summary, [tabindex]";
  const focused = [...old.querySelectorAll(focusable)].indexOf(document.activeElement);
  // An image of the same address stays the same element, so that it does not blink.
  const images = new Map([...old.querySelectorAll("img")].map((each) => [each.getAttribute("src"), each]));
  const next = document.importNode(fresh, true);
  for (const each of [...next.querySelectorAll("img")]) {
    const same = images.get(each.getAttribute("src"));
    if (same) {
      same.alt = each.alt;
      each.replaceWith(same);
    }
  }
  next.querySelectorAll("details").forEach((each, place) => {
    each.open = open[place] ?? each.open;
  });
  old.replaceChildren(...next.childNodes);
  old.querySelectorAll(".scroll").forEach((each, place) => {
    if (scrolled[place]) [each.scrollLeft, each.scrollTop] = scrolled[place];
  });
  if (focused >= 0) old.querySelectorAll(focusable)[focused]?.focus({ preventScroll: true });
}

async function look() {
  clearTimeout(timer);
  const address = new URL(location.href);
  address.searchParams.set("part", "1");
  address.hash = "";
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" }, redirect: "error" });
    if (response.ok) {
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      const found = new Map(parts(fresh).map((each) => [each.dataset.part, each]));
      const here = parts(root);
      // A part that came or went, the first summary say: then the page as a whole, unless somebody reads a table.
      const same = here.length === found.size && here.every((each) => found.has(each.dataset.part));
      if (same) here.forEach((each) => put(each, found.get(each.dataset.part)));
      else if (!root.querySelector("details[open]")) location.reload();
      root.classList.remove("stale");
    }
  } catch {
    root.classList.add("stale");
  }
  plan();
}

function plan() {
  clearTimeout(timer);
  const every = Number(root.querySelector("[data-every]")?.dataset.every);
  if (!stopped && !document.hidden && every > 0) timer = setTimeout(look, every * 1000);
}

pause.hidden = false;
pause.addEventListener("click", () => {
  stopped = !stopped;
  pause.setAttribute("aria-pressed", String(stopped));
  plan();
});
again.addEventListener("click", (event) => {
  event.preventDefault();
  look();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (!stopped) look();
});
// On paper every table is open, and closed again after.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...root.querySelectorAll("details:not([open])")];
  closed.forEach((each) => (each.open = true));
});
addEventListener("afterprint", () => closed.forEach((each) => (each.open = false)));
plan();
