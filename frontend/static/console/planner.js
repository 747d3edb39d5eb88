// The server works everything out; this asks it again when a field has come to rest.
const form = document.getElementById("plan-form");
const result = document.getElementById("plan-result");
const REST_MS = 350;
let timer = 0;
let asked = 0;

function typed() {
  const from = form.elements.seconds_from;
  form.querySelector('[data-field="seconds"]').hidden = from.value !== "typed";
}

async function work() {
  clearTimeout(timer);
  const mine = ++asked;
  const address = new URL(form.action || location.href, location.href);
  address.hash = "";
  address.search = new URLSearchParams(new FormData(form)).toString();
  const shown = address.toString();
  address.searchParams.set("part", "1");
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" }, redirect: "error" });
    if (!response.ok || mine !== asked) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    const open = result.querySelector("details")?.open ?? false;
    result.replaceChildren(...document.importNode(fresh.body, true).childNodes);
    const details = result.querySelector("details");
    if (details) details.open = open;
    const wrong = new Set([...result.querySelectorAll("[data-of]")].map((each) => each.dataset.of));
    for (const field of form.querySelectorAll("[data-field]")) {
      const is = wrong.has(field.dataset.field);
      field.classList.toggle("wrong", is);
      for (const input of field.querySelectorAll("input, select")) {
        if (is) input.setAttribute("aria-invalid", "true");
        else input.removeAttribute("aria-invalid");
      }
    }
    history.replaceState(null, "", shown);
  } catch {
    form.submit();
  }
}

form.addEventListener("input", () => {
  typed();
  clearTimeout(timer);
  timer = setTimeout(work, REST_MS);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  work();
});
typed();
