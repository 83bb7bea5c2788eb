// Work that is repeated while the page is visible: with pauses that grow while the server is away, and none that it refuses.

const LONGEST_PAUSE_MS = 30_000;

export class Loop {
  #work;
  #pause;
  #told;
  #timer = 0;
  #failures = 0;
  #running = false;
  #starts = 0;
  #refused = false;

  // Calls `work` again and again, `pause` ms after its last call has ended, and `told(error)` after each: null if it went well.
  constructor(work, pause, told) {
    this.#work = work;
    this.#pause = pause;
    this.#told = told;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) clearTimeout(this.#timer);
      else this.#next(0);
    });
  }

  // Begins, or begins anew with another token.
  start() {
    this.#starts += 1;
    this.#refused = false;
    this.#failures = 0;
    this.#next(0);
  }

  #next(pause) {
    clearTimeout(this.#timer);
    if (this.#running || this.#refused || document.hidden) return;
    this.#timer = setTimeout(() => this.#turn(), pause);
  }

  async #turn() {
    this.#running = true;
    const start = this.#starts;
    let failed = null;
    try {
      await this.#work();
    } catch (error) {
      failed = error;
    }
    this.#running = false;
    // What an earlier token was answered says nothing of this one.
    if (start !== this.#starts) return this.#next(0);
    this.#failures = failed ? this.#failures + 1 : 0;
    // Without another token the answer stays the same.
    this.#refused = failed?.status === 401 || failed?.status === 403;
    this.#told(failed);
    this.#next(this.#failures ? Math.min(1000 * 2 ** this.#failures, LONGEST_PAUSE_MS) : this.#pause);
  }
}
