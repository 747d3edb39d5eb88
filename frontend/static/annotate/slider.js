/**
 * A slider that may stay untouched. Until it is answered it stands at 0 without showing its thumb, so a press that
 * leaves it at 0 (Home, a click at the left end) makes no "input" event, yet it is an answer.
 */

/** Keys that leave a slider that stands at 0 where it is. */
const DOWNWARDS = new Set(["Home", "ArrowLeft", "ArrowDown", "PageDown"]);

/**
 * @param {HTMLInputElement} slider
 * @param {object} wires
 * @param {() => boolean} wires.touched whether it holds an answer
 * @param {(value: string, settled: boolean) => void} wires.take
 * @param {() => (() => void)} wires.hold called when a press begins; what it returns puts back what was there
 */
export function wireSlider(slider, { touched, take, hold }) {
  let putBack = () => {};
  let answered = false;

  slider.addEventListener("pointerdown", () => {
    answered = touched();
    putBack = hold();
  });
  // The browser made a scroll of what began as a press on the slider.
  slider.addEventListener("pointercancel", () => putBack());
  slider.addEventListener("input", () => take(slider.value, false));
  slider.addEventListener("change", () => {
    if (touched()) {
      take(slider.value, true);
    }
  });
  slider.addEventListener("click", (event) => {
    if (answered || event.detail === 0) {
      return;
    }
    // Some browsers ignore a click on the track, and all of them one on the thumb, which nobody sees here yet.
    if (slider.value === "0") {
      slider.value = String(valueAt(slider, event.clientX));
    }
    take(slider.value, true);
  });
  slider.addEventListener("keyup", ({ key }) => {
    if (DOWNWARDS.has(key) && !touched()) {
      take(slider.value, true);
    }
  });
}

/**
 * @param {HTMLInputElement} slider
 * @param {number} x
 */
function valueAt(slider, x) {
  const style = getComputedStyle(slider);
  const box = slider.getBoundingClientRect();
  const thumb = 24;
  const along = (x - box.left - thumb / 2) / (box.width - thumb);
  const forwards = style.direction === "rtl" ? 1 - along : along;
  return Math.round(100 * Math.min(1, Math.max(0, forwards)));
}
