/**
 * The page's sentences, which the template holds so that they are translated with the rest:
 * <dl id="wording"><dt>key</dt><dd>Sentence about {name}</dd>...</dl>.
 */

/**
 * @param {Element} list
 * @returns {(key: string, values?: Readonly<Record<string, string | number>>) => string} the key itself if unknown
 */
export function readWording(list) {
  /** @type {Map<string, string>} */
  const sentences = new Map();
  for (const term of list.querySelectorAll("dt")) {
    const sentence = term.nextElementSibling?.textContent ?? "";
    sentences.set((term.textContent ?? "").trim(), sentence.trim().replace(/\s+/g, " "));
  }
  const numbers = new Intl.NumberFormat(document.documentElement.lang || "en", { maximumFractionDigits: 2 });
  return (key, values = {}) =>
    (sentences.get(key) ?? key).replace(/\{(\w+)\}/g, (whole, name) => {
      const value = values[name];
      if (value === undefined) {
        return whole;
      }
      return typeof value === "number" ? numbers.format(value) : value;
    });
}
