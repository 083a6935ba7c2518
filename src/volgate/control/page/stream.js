/**
 * What happens, as it happens: server-sent events (WHATWG HTML, 9.2), read by fetch, since EventSource sends no token.
 * Who comes back goes on behind the last event that was seen; while nobody looks the daemon's place is given to others.
 */

const SILENT_MS = 45000; // the daemon says something every 15 s
const LONGEST_S = 30;

export class EventStream {
  #cursor = null;
  #stop = null;
  #isWanted = false;

  /** told: called with each event; changed: with whether events are being followed. */
  constructor(api, { told, changed }) {
    this.api = api;
    this.told = told;
    this.changed = changed;
    document.addEventListener("visibilitychange", () => this.#look());
  }

  start() {
    this.#isWanted = true;
    this.#look();
  }

  stop() {
    this.#isWanted = false;
    this.#cursor = null;
    this.#look();
  }

  #look() {
    const isNeeded = this.#isWanted && !document.hidden;
    if (isNeeded && this.#stop === null) {
      this.#stop = new AbortController();
      this.#follow(this.#stop.signal);
    } else if (!isNeeded && this.#stop !== null) {
      this.#stop.abort();
      this.#stop = null;
    }
  }

  async #follow(stopped) {
    let failures = 0;
    while (!stopped.aborted) {
      try {
        await this.#read(stopped, () => (failures = 0));
      } catch {
        failures += 1;
      }
      if (!stopped.aborted) this.changed(false);
      await sleep(1000 * Math.min(LONGEST_S, 2 ** failures), stopped);
    }
  }

  /** Follow until the connection ends, or nothing has come for long. */
  async #read(stopped, begun) {
    const silent = new AbortController();
    const headers = this.#cursor === null ? {} : { "Last-Event-ID": this.#cursor };
    const signal = AbortSignal.any([stopped, silent.signal]);
    let timer = setTimeout(() => silent.abort(), SILENT_MS);
    try {
      const response = await this.api.open("/v1/events/stream", headers, signal);
      begun();
      this.changed(true);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
        clearTimeout(timer);
        timer = setTimeout(() => silent.abort(), SILENT_MS);
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        blocks.forEach((block) => this.#take(block));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #take(block) {
    let data = "";
    for (const line of block.split("\n")) {
      if (line.startsWith("id: ")) this.#cursor = line.slice(4);
      if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (data) this.told(JSON.parse(data));
  }
}

function sleep(wait_ms, stopped) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, wait_ms);
    stopped.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
