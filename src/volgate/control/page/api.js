/**
 * Asking the API. The token is kept in this tab and sent by script alone, never as a cookie: no other site can have the
 * browser ask in somebody's name.
 */

const TOKEN = "volgate.token";
const AT_ONCE = 4; // of the six connections that a browser has, one follows events
const WAIT_MS = 20000;
const HEALTH_MS = 5000;

const NO_ANSWER = "the control daemon does not answer";

/** What the API refused, in its own words. */
export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** The daemon does not answer. */
export class NoAnswer extends Error {}

export class Api {
  #token = sessionStorage.getItem(TOKEN);
  #free = AT_ONCE;
  #waiting = [];

  /** heard: called with each answer, silent: without one, stranger: where the daemon asks who it is. */
  constructor({ heard, silent, stranger }) {
    this.heard = heard;
    this.silent = silent;
    this.stranger = stranger;
  }

  get hasToken() {
    return this.#token !== null;
  }

  /** Set the token; null forgets it. */
  setToken(token) {
    this.#token = token;
    if (token === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
  }

  /** Return what a route says; few are asked at once. Throws Problem, NoAnswer. */
  async get(path) {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise((resolve) => this.#waiting.push(resolve));
    try {
      return await this.#ask("GET", path, {}, AbortSignal.timeout(WAIT_MS));
    } catch (error) {
      if (error.name === "TimeoutError") await this.#blame();
      throw error;
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free += 1;
    }
  }

  /** Likewise, as long as it takes. */
  async getPatiently(path) {
    return this.#ask("GET", path, {});
  }

  /** Return all items of a list. */
  async getAll(path) {
    const items = [];
    let cursor = "";
    do {
      const page = await this.get(`${path}?limit=1000${cursor}`);
      items.push(...page.items);
      cursor = page.next_cursor === null ? "" : `&cursor=${encodeURIComponent(page.next_cursor)}`;
    } while (cursor);
    return items;
  }

  /** Change something; returns what the API says. Where its answer is lost it is asked once more, and done once. */
  async change(method, path, body) {
    const headers = { "Idempotency-Key": makeKey() };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const content = body === undefined ? undefined : JSON.stringify(body);
    try {
      return await this.#ask(method, path, headers, undefined, content);
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      return await this.#ask(method, path, headers, undefined, content);
    }
  }

  /** Return a response whose content comes bit by bit. Throws Problem, NoAnswer. */
  async open(path, headers, signal) {
    return this.#fetch("GET", path, headers, signal);
  }

  /** Say who gave no answer in time: the daemon, or an owner that it asked. Throws NoAnswer, Problem. */
  async #blame() {
    try {
      await this.#ask("GET", "/v1/health", {}, AbortSignal.timeout(HEALTH_MS));
    } catch (error) {
      if (error.name !== "TimeoutError") throw error;
      this.silent();
      throw new NoAnswer(NO_ANSWER);
    }
    throw new Problem(504, "timed_out", `the owner of the volume has not answered for ${WAIT_MS / 1000} s`);
  }

  async #ask(method, path, headers, signal, content) {
    const response = await this.#fetch(method, path, headers, signal, content);
    try {
      return response.status === 204 ? null : await response.json();
    } catch (error) {
      throw this.#noAnswer(error);
    }
  }

  async #fetch(method, path, headers, signal, content) {
    const all = { ...headers };
    if (this.#token !== null) all.Authorization = `Bearer ${this.#token}`;
    let response;
    try {
      response = await fetch(path, {
        method,
        headers: all,
        body: content,
        signal,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
    } catch (error) {
      throw this.#noAnswer(error);
    }
    this.heard();
    if (response.ok) return response;
    const problem = await readProblem(response);
    if (problem.code === "unauthenticated") this.stranger(problem);
    throw problem;
  }

  #noAnswer(error) {
    if (error.name === "AbortError" || error.name === "TimeoutError") return error; // who asks has stopped waiting
    this.silent();
    return new NoAnswer(NO_ANSWER);
  }
}

async function readProblem(response) {
  try {
    const body = await response.json();
    return new Problem(response.status, String(body.code), String(body.detail));
  } catch {
    return new Problem(response.status, "internal", `the daemon answered ${response.status}`);
  }
}

function makeKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
