/** The image of a trial: shown once it is decoded, asked for again when it does not come. */

/** @typedef {import("./sender.js").Trial} Trial */

export class Picture {
  /**
   * @param {HTMLImageElement} image
   * @param {object} wires
   * @param {() => void} wires.onPainted the image of the current trial stands on the screen
   * @param {() => void} wires.onFailed
   */
  constructor(image, { onPainted, onFailed }) {
    this.image = image;
    this.onPainted = onPainted;
    this.onFailed = onFailed;
    this.url = "";
    /** @type {HTMLImageElement | null} held so that the browser keeps what it fetched */
    this.ahead = null;
  }

  /** @param {Trial} trial */
  show(trial) {
    this.url = trial.image_url;
    if (this.image.getAttribute("src") !== this.url) {
      this.image.src = this.url;
    }
    return this.settle();
  }

  again() {
    this.image.removeAttribute("src");
    this.image.src = this.url;
    return this.settle();
  }

  /** @param {Trial | undefined} trial */
  prepare(trial) {
    if (trial) {
      this.ahead = new Image();
      this.ahead.src = trial.image_url;
    }
  }

  async settle() {
    const { url } = this;
    // Until the new one is there the old one must not be judged.
    this.image.classList.add("loading");
    try {
      await this.image.decode();
    } catch {
      if (url === this.url) {
        this.onFailed();
      }
      return;
    }
    if (url !== this.url) {
      return;
    }
    this.image.classList.remove("loading");
    requestAnimationFrame(() => {
      if (url === this.url) {
        this.onPainted();
      }
    });
  }
}
