/** What happened while this page was open, the newest first; beside a volume, what happened to it. */

import { byId, fill, make, say, show } from "./dom.js";
import { formatMoment } from "./units.js";

const KEPT = 500;
const SHOWN = 50;

export class EventList {
  #events = [];
  #volumeId = null;

  /** Show those of a volume, null = all. */
  open(volumeId) {
    this.#volumeId = volumeId;
    this.#draw();
  }

  add(event) {
    this.#events = [event, ...this.#events].slice(0, KEPT);
    this.#draw();
  }

  clear() {
    this.#events = [];
    this.#draw();
  }

  setFollowing(isFollowing) {
    say(byId("events-state"), isFollowing ? "live" : "not connected");
  }

  #draw() {
    const seen = this.#events.filter(({ facts }) => this.#volumeId === null || facts.volume_id === this.#volumeId);
    const shown = seen.slice(0, SHOWN);
    fill(byId("events"), shown, (event) => event.cursor, makeRow);
    show(byId("no-events"), shown.length === 0);
    const whose = this.#volumeId === null ? "" : ` to ${this.#volumeId}`;
    say(byId("no-events"), `Nothing has happened${whose} since this page was opened.`);
  }
}

function makeRow(event) {
  const { volume_id: volumeId, ...facts } = event.facts;
  const words = Object.entries(facts)
    .map(([name, value]) => `${name}=${value}`)
    .join(" ");
  const element = make(
    "li",
    {},
    make("span", { class: "quiet moment" }, formatMoment(event.at)),
    " ",
    volumeId === undefined ? "" : make("a", { href: `#/volume/${encodeURIComponent(volumeId)}` }, String(volumeId)),
    " ",
    make("strong", {}, event.kind),
    " ",
    event.message,
    " ",
    make("span", { class: "quiet facts" }, words),
  );
  return { element };
}
