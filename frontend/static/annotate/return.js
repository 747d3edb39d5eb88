/**
 * The last page: goes back to where the annotator came from, once every answer is stored, unless they would rather
 * stay. <a id="return" data-seconds="15" …>; without data-seconds it waits for a press.
 */

const link = document.getElementById("return");
const stay = document.getElementById("stay");
const status = document.getElementById("return-status");

if (link instanceof HTMLAnchorElement && stay instanceof HTMLButtonElement && status) {
  status.textContent = link.dataset.sending ?? "";
  // Resolves when this browser has nothing left to send.
  await import("./flush.js");
  status.textContent = "";
  const seconds = Number(link.dataset.seconds);
  if (seconds > 0) {
    countDown(link, stay, status, seconds);
  }
}

/**
 * @param {HTMLAnchorElement} link
 * @param {HTMLButtonElement} stay
 * @param {HTMLElement} status
 * @param {number} seconds
 */
function countDown(link, stay, status, seconds) {
  let left = seconds;
  /** Said aloud at the start alone: a screen reader would read out every second. */
  const shown = document.createElement("span");
  shown.textContent = wording(link, left);
  status.replaceChildren(shown);
  stay.hidden = false;
  const timer = setInterval(() => {
    left -= 1;
    status.setAttribute("aria-live", "off");
    shown.textContent = wording(link, left);
    if (left <= 0) {
      clearInterval(timer);
      location.assign(link.href);
    }
  }, 1000);
  stay.addEventListener("click", () => {
    clearInterval(timer);
    stay.hidden = true;
    status.removeAttribute("aria-live");
    status.textContent = link.dataset.stayed ?? "";
    link.focus();
  });
}

/**
 * @param {HTMLAnchorElement} link
 * @param {number} seconds
 */
function wording(link, seconds) {
  return (link.dataset.countdown ?? "").replace("{seconds}", String(seconds));
}
