// Sends a folder in requests of bounded size, then asks for its import. Each request has a number, so that sending one
// again changes nothing; a request that fails is tried again, later each time.
const TRIES = 6;
const AT_ONCE = 2;
// What an import passes over anyway.
const SYSTEM = /(^|\/)(\.|__MACOSX\/|Thumbs\.db$|desktop\.ini$)/i;

const panel = document.querySelector("#folder");
const input = panel.querySelector("#folder-files");
const progress = panel.querySelector("#folder-progress");
const status = panel.querySelector("#folder-status");
const again = panel.querySelector("#folder-again");
const form = document.querySelector("#folder-begin");
const most = { files: Number(panel.dataset.files), bytes: Number(panel.dataset.bytes) };

let parts = [];
let left = [];
let busy = false;

/** The files in their order, as many in each part as one request may hold. */
function divided(files) {
  const made = [];
  let bytes = Infinity;
  for (const file of files) {
    if (bytes + file.size > most.bytes || made.at(-1).length === most.files) {
      made.push([]);
      bytes = 0;
    }
    made.at(-1).push(file);
    bytes += file.size;
  }
  return made;
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Sends part `number`; throws an Error with words for the curator. */
async function send(number) {
  const body = new FormData();
  for (const file of parts[number]) {
    body.append("name", file.webkitRelativePath || file.name);
    body.append("file", file);
  }
  const address = panel.dataset.part.replace(/0\/$/, `${number}/`);
  const headers = { "X-CSRFToken": form.elements.csrfmiddlewaretoken.value };
  for (let attempt = 1; ; attempt += 1) {
    let words = "The site could not be reached.";
    try {
      const answer = await fetch(address, { method: "POST", body, headers, redirect: "error" });
      if (answer.ok) return;
      words = answer.status === 409 ? (await answer.json()).message : `The site answered ${answer.status}.`;
      // What is refused now would be refused again.
      if (answer.status < 500 && answer.status !== 429) attempt = TRIES;
    } catch {
      // No network, or a file that changed while it was read.
    }
    if (attempt >= TRIES) throw new Error(words);
    status.textContent = `${words} Trying again…`;
    await wait(500 * 2 ** (attempt - 1));
  }
}

const number = new Intl.NumberFormat("en");

function tell() {
  const done = parts.length - left.length;
  const files = parts.filter((_, place) => !left.includes(place)).reduce((sum, part) => sum + part.length, 0);
  progress.value = done / parts.length;
  status.textContent = `${number.format(files)} of ${number.format(total())} files sent`;
}

const total = () => parts.reduce((sum, part) => sum + part.length, 0);

async function sendAll() {
  busy = true;
  again.hidden = true;
  input.disabled = true;
  progress.hidden = false;
  tell();
  const waiting = [...left];
  let failure = null;
  const sender = async () => {
    while (waiting.length && !failure) {
      const place = waiting.shift();
      try {
        await send(place);
        left = left.filter((each) => each !== place);
        tell();
      } catch (error) {
        failure = error;
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, sender));
  busy = false;
  input.disabled = false;
  if (failure) {
    status.textContent = `${failure.message} ${number.format(left.length)} of ${number.format(parts.length)} requests are left.`;
    again.hidden = false;
    again.focus();
    return;
  }
  status.textContent = "All files are there. The import begins.";
  form.elements.parts.value = String(parts.length);
  form.elements.files.value = String(total());
  form.submit();
}

input.addEventListener("change", () => {
  const files = [...input.files].filter((file) => !SYSTEM.test(file.webkitRelativePath));
  if (!files.length) {
    status.textContent = "This folder holds no files.";
    return;
  }
  parts = divided(files);
  left = parts.map((_, place) => place);
  sendAll();
});
again.addEventListener("click", sendAll);
window.addEventListener("beforeunload", (event) => {
  if (busy) event.preventDefault();
});
panel.hidden = false;
