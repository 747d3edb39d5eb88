// The server counts the runs; this asks it again when a field has come to rest.
const form = document.getElementById("training-form");
const estimate = document.getElementById("training-estimate");
const REST_MS = 250;
let timer = 0;
let asked = 0;

async function count() {
  const mine = ++asked;
  const address = new URL(form.dataset.estimate, location.href);
  const fields = new FormData(form);
  fields.delete("csrfmiddlewaretoken");
  address.search = new URLSearchParams(fields).toString();
  address.searchParams.set("release", form.dataset.release);
  try {
    const response = await fetch(address, { headers: { Accept: "application/json" }, redirect: "error" });
    if (response.ok && mine === asked) estimate.textContent = (await response.json()).says;
  } catch {
    // The form works without it: the server counts again when it is sent.
    estimate.textContent = "";
  }
}

form.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(count, REST_MS);
});
