/**
 * Rows that can be added, removed and put in another order, by mouse and by keyboard. What is sent is a Django formset:
 * a row that was there before is removed by its tick, and each row's `place` says where it stands.
 */

const form = /** @type {HTMLFormElement} */ (document.getElementById("rows"));
const list = /** @type {HTMLElement} */ (document.getElementById("list"));
const empty = /** @type {HTMLTemplateElement} */ (document.getElementById("empty"));
const add = /** @type {HTMLButtonElement} */ (document.getElementById("add"));
const said = /** @type {HTMLElement} */ (document.getElementById("said"));
const total = /** @type {HTMLInputElement} */ (form.querySelector("[name$=-TOTAL_FORMS]"));
const one = form.dataset.one ?? "row";
const title = one[0].toUpperCase() + one.slice(1);

const rows = () => /** @type {HTMLElement[]} */ ([...list.querySelectorAll("[data-row]")]);

/** @param {HTMLElement} row @param {string} name */
const field = (row, name) => /** @type {HTMLInputElement | null} */ (row.querySelector(`[name$="-${name}"]`));

/** Give every row its number, its place, and buttons that have somewhere to go. */
function number() {
  const all = rows();
  all.forEach((row, at) => {
    const words = row.querySelector(".number");
    if (words) {
      words.textContent = `${title} ${at + 1}`;
    }
    const place = field(row, "place");
    // A new row that nobody fills in counts as unchanged, and so does its place.
    if (place && place.defaultValue !== String(at)) {
      place.value = isBlank(row) ? "" : String(at);
    }
    for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (row.querySelectorAll("[data-move]"))) {
      const to = at + Number(button.dataset.move);
      button.hidden = false;
      button.disabled = to < 0 || to >= all.length;
      button.setAttribute("aria-label", `${button.textContent?.trim()}: ${one} ${at + 1}`);
    }
    const remove = field(row, "DELETE");
    remove?.setAttribute("aria-label", `Remove ${one} ${at + 1}`);
    row.classList.toggle("removed", remove?.checked ?? false);
  });
  add.hidden = false;
  add.disabled = all.length >= Number(form.dataset.most);
}

/** @param {HTMLElement} row a row that is new and says nothing */
function isBlank(row) {
  const texts = /** @type {NodeListOf<HTMLInputElement>} */ (row.querySelectorAll("input:not([type]), input[type=text], input[type=number], textarea"));
  return [...texts].every((each) => each.value === each.defaultValue) && !field(row, "place")?.defaultValue;
}

/** Show the fields that a question of this kind has. @param {HTMLElement} row */
function fit(row) {
  const kind = /** @type {HTMLSelectElement | null} */ (row.querySelector("select[name$=-kind]"))?.value;
  if (kind) {
    for (const each of /** @type {NodeListOf<HTMLElement>} */ (row.querySelectorAll("[data-kind]"))) {
      each.hidden = each.dataset.kind !== kind;
    }
  }
}

/** @param {HTMLElement} row */
function look(row) {
  const picture = /** @type {HTMLImageElement | null} */ (row.querySelector("[data-thumbnail]"));
  const none = /** @type {HTMLElement | null} */ (row.querySelector("[data-none]"));
  const index = field(row, "image")?.value ?? "";
  if (!picture || !none) {
    return;
  }
  if (!/^\d{1,9}$/.test(index)) {
    picture.hidden = none.hidden = true;
    return;
  }
  picture.onload = () => {
    picture.hidden = false;
    none.hidden = true;
  };
  picture.onerror = () => {
    picture.hidden = true;
    none.hidden = false;
  };
  picture.alt = `image ${index}`;
  picture.src = `${form.dataset.thumbnails}${index}/`;
}

/** @param {HTMLElement} row @param {number} by */
function move(row, by) {
  const all = rows();
  const to = all[all.indexOf(row) + by];
  if (!to) {
    return;
  }
  if (by < 0) {
    to.before(row);
  } else {
    to.after(row);
  }
  number();
  const button = /** @type {HTMLButtonElement} */ (row.querySelector(`[data-move="${by}"]`));
  // At the end of the way the button is switched off: the other one keeps the keyboard.
  (button.disabled ? /** @type {HTMLElement} */ (row.querySelector(`[data-move="${-by}"]`)) : button).focus();
  said.textContent = `${title} ${rows().indexOf(row) + 1} of ${all.length}`;
}

add.addEventListener("click", () => {
  const holder = document.createElement("div");
  holder.innerHTML = empty.innerHTML.replaceAll("__prefix__", total.value);
  const row = /** @type {HTMLElement} */ (holder.firstElementChild);
  total.value = String(Number(total.value) + 1);
  list.append(row);
  fit(row);
  number();
  /** @type {HTMLElement | null} */ (row.querySelector("input:not([type=hidden]), textarea"))?.focus();
  said.textContent = `${title} ${rows().length}`;
});

list.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-move]") : null;
  const row = button?.closest("[data-row]");
  if (button instanceof HTMLElement && row instanceof HTMLElement) {
    move(row, Number(button.dataset.move));
  }
});

list.addEventListener("change", (event) => {
  const row = event.target instanceof Element ? event.target.closest("[data-row]") : null;
  if (row instanceof HTMLElement) {
    fit(row);
    look(row);
    number();
  }
});

form.addEventListener("submit", number);

for (const row of rows()) {
  fit(row);
  look(row);
}
number();
