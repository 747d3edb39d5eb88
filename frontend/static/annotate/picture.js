/**
 * The image of a trial. Those of the next trials are fetched and decoded ahead, each in an element of its own: showing
 * one puts that element in the place of the last, and needs no further work before the next frame. What does not
 * come is asked for again, with growing pauses and whenever the network returns.
 */

/** @typedef {Pick<import("./sender.js").Trial, "image_url">} Shown */

export const AHEAD = 3;
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 15_000;
/** Classes of the element: what it shows is not yet this trial's image; the image has been painted. */
const LOADING = "loading";
const PAINTED = "painted";

/**
 * What a browser has and a test can replace.
 * @typedef {object} Tools
 * @property {() => HTMLImageElement} make
 * @property {(draw: () => void) => unknown} frame
 * @property {(wake: () => void, milliseconds: number) => unknown} setTimer
 * @property {Pick<EventTarget, "addEventListener">} network
 */

/**
 * @typedef {object} Load
 * @property {HTMLImageElement | null} image
 * @property {boolean} decoded
 * @property {number} failures
 */

export class Picture {
  /**
   * @param {HTMLImageElement} image the element on the page; shown images take its place and its attributes
   * @param {object} wires
   * @param {() => void} wires.onPainted the image of the current trial stands on the screen
   * @param {(failures: number) => void} wires.onFailed it did not come, for so many times; it is tried again by itself
   * @param {Partial<Tools>} [tools]
   */
  constructor(image, { onPainted, onFailed }, tools = {}) {
    this.image = image;
    this.onPainted = onPainted;
    this.onFailed = onFailed;
    /** @type {Tools} */
    this.tools = {
      make: () => new Image(),
      frame: (draw) => requestAnimationFrame(draw),
      setTimer: (wake, milliseconds) => setTimeout(wake, milliseconds),
      network: globalThis,
      ...tools,
    };
    this.url = "";
    /** @type {Map<string, Load>} by address: the current one and those ahead */
    this.loads = new Map();
    this.tools.network.addEventListener("online", () => this.retry());
  }

  /** @param {Shown} trial */
  show({ image_url: url }) {
    this.url = url;
    this.image.classList.remove(PAINTED);
    const load = this.load(url);
    if (load.decoded && load.image) {
      this.place(load.image);
    } else {
      // Until the new one is there the old one must not be judged.
      this.image.classList.add(LOADING);
      if (load.failures) {
        this.again();
      }
    }
  }

  /** Asks at once for the image that did not come. */
  again() {
    const load = this.loads.get(this.url);
    if (load && !load.decoded) {
      void this.request(this.url, load);
    }
  }

  /**
   * Fetches and decodes what comes next, and lets go of all else.
   * @param {...(Shown | undefined)} trials
   */
  prepare(...trials) {
    const wanted = new Set([this.url]);
    for (const trial of trials) {
      if (trial) {
        wanted.add(trial.image_url);
        this.load(trial.image_url);
      }
    }
    for (const url of this.loads.keys()) {
      if (!wanted.has(url)) {
        this.loads.delete(url);
      }
    }
  }

  /** Asks again for all that failed. */
  retry() {
    for (const [url, load] of this.loads) {
      if (load.failures && !load.decoded) {
        void this.request(url, load);
      }
    }
  }

  /**
   * @param {string} url
   * @returns {Load}
   */
  load(url) {
    const known = this.loads.get(url);
    if (known) {
      return known;
    }
    /** @type {Load} */
    const load = { image: null, decoded: false, failures: 0 };
    this.loads.set(url, load);
    void this.request(url, load);
    return load;
  }

  /**
   * @param {string} url
   * @param {Load} load
   */
  async request(url, load) {
    // The page may hold it already. Else a new element each time: one that has failed keeps its failure.
    const here = !load.image && this.image.getAttribute("src") === url;
    const image = here ? this.image : this.tools.make();
    load.image = image;
    if (!here) {
      image.src = url;
    }
    try {
      await image.decode();
    } catch {
      this.failed(url, load, image);
      return;
    }
    if (load.image === image) {
      load.decoded = true;
      load.failures = 0;
      if (this.loads.get(url) === load && url === this.url) {
        this.place(image);
      }
    }
  }

  /**
   * @param {string} url
   * @param {Load} load
   * @param {HTMLImageElement} image
   */
  failed(url, load, image) {
    if (load.image !== image || this.loads.get(url) !== load) {
      return;
    }
    load.failures += 1;
    const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (load.failures - 1));
    this.tools.setTimer(() => {
      if (load.image === image && this.loads.get(url) === load) {
        void this.request(url, load);
      }
    }, pause);
    if (url === this.url) {
      this.onFailed(load.failures);
    }
  }

  /** @param {HTMLImageElement} image */
  place(image) {
    const { url } = this;
    if (image !== this.image) {
      for (const { name, value } of this.image.attributes) {
        if (name !== "src") {
          image.setAttribute(name, value);
        }
      }
      this.image.replaceWith(image);
      this.image = image;
    }
    this.image.classList.remove(LOADING);
    this.tools.frame(() => {
      if (url === this.url) {
        this.image.classList.add(PAINTED);
        this.onPainted();
      }
    });
  }
}
