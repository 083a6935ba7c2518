/** Asking again and again: moderately, seldom while nobody looks, and ever more seldom while nothing answers. */

import { NoAnswer } from "./api.js";

const HIDDEN_S = 60;
const LONGEST_S = 30;
const SOON_MS = 700;

export class Poller {
  #timer = null;
  #soon = null;
  #isRunning = false;
  #isWanted = false;
  #again = false;
  #failures = 0;

  /** work: asks, and returns after how many seconds it wants to ask again. */
  constructor(work) {
    this.work = work;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#wait(HIDDEN_S) : this.poke()));
  }

  start() {
    this.#isWanted = true;
    this.poke();
  }

  stop() {
    this.#isWanted = false;
    clearTimeout(this.#timer);
  }

  /** Ask now, or once more where it is being asked. */
  poke() {
    if (!this.#isWanted) return;
    clearTimeout(this.#timer);
    if (this.#isRunning) this.#again = true;
    else this.#run();
  }

  /** Ask soon, once for all that call this meanwhile. */
  pokeSoon() {
    this.#soon ??= setTimeout(() => {
      this.#soon = null;
      this.poke();
    }, SOON_MS);
  }

  async #run() {
    this.#isRunning = true;
    this.#again = false;
    const wait_s = await this.#ask();
    this.#isRunning = false;
    if (!this.#isWanted) return;
    if (this.#again) this.#run();
    else this.#wait(document.hidden ? HIDDEN_S : wait_s);
  }

  #wait(wait_s) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.poke(), 1000 * wait_s);
  }

  async #ask() {
    try {
      const wait_s = await this.work();
      this.#failures = 0;
      return wait_s;
    } catch (error) {
      if (!(error instanceof NoAnswer) && error.status === undefined) console.error(error);
      this.#failures += 1;
      return Math.min(LONGEST_S, 2 ** this.#failures);
    }
  }
}
