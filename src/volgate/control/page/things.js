/** A list of things of one volume, the newest first: a few of them, and all on demand. */

import { Cut } from "./dialogs.js";
import { byId, fill, say, show } from "./dom.js";
import { pathOf } from "./volumes.js";

const SHOWN = 8;

export class ThingList {
  #kind;
  things = [];
  volumeId = null;
  mayChange = false;

  /** kind: "tasks" or "snapshots", as the API and the page call them; poke: called when something was changed. */
  constructor(api, kind, poke) {
    this.api = api;
    this.#kind = kind;
    this.poke = poke;
    this.cut = new Cut(byId(`more-${kind}`), SHOWN, () => this.#draw());
  }

  open(volumeId, mayChange) {
    this.volumeId = volumeId;
    this.mayChange = mayChange;
    this.cut.reset();
    this.take([], "Asking the daemon…");
  }

  async refresh(volumeId) {
    const things = await this.api.getAll(`${pathOf(volumeId)}/${this.#kind}`);
    if (volumeId === this.volumeId) this.take(things, "There are none.");
  }

  /** Show things; why: what is said where there are none. */
  take(things, why) {
    this.things = things.reverse();
    show(byId(`no-${this.#kind}`), things.length === 0);
    say(byId(`no-${this.#kind}`), why);
    this.#draw();
  }

  #draw() {
    const keyOf = (thing) => `${this.volumeId} ${this.idOf(thing)}`;
    const makeRow = (thing) => this.makeRow(this.volumeId, this.idOf(thing));
    fill(byId(this.#kind), this.cut.cut(this.things), keyOf, makeRow);
  }
}
