/** Small helpers for reading and writing the document. */

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T | null}
 */
export function maybeById(id, type) {
  const element = document.getElementById(id);
  return element instanceof type ? element : null;
}

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function byId(id, type) {
  const element = maybeById(id, type);
  if (!element) {
    throw new Error(`The page has no ${type.name} #${id}.`);
  }
  return element;
}

/**
 * Writes only what changed, or a live region would repeat itself.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}
