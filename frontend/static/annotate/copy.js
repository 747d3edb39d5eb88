/**
 * Buttons that copy the text of a field: <button data-copy="id of the field" data-copied="Copied"> and, inside or
 * after it, an element with role="status" named by data-status. Shown only where this module runs.
 */

/** @param {HTMLButtonElement} button */
function prepare(button) {
  const field = document.getElementById(button.dataset.copy ?? "");
  const status = document.getElementById(button.dataset.status ?? "");
  if (!(field instanceof HTMLInputElement) || !status) {
    return;
  }
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      // No permission, or a page without TLS: the selected text can still be copied by hand.
      field.focus();
      field.select();
      status.textContent = button.dataset.selected ?? "";
      return;
    }
    status.textContent = button.dataset.copied ?? "";
  });
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  prepare(/** @type {HTMLButtonElement} */ (button));
}
