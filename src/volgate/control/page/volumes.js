/** The list of volumes: found by name, a page at a time; only rows that are seen ask how their volumes are. */

import { NOT_MOUNTED, describeUse, formatInodes, levelOf, stateOf } from "./describing.js";
import { byId, fill, make, makeBar, put, say, show } from "./dom.js";
import { Poller } from "./poller.js";
import { formatBytes, formatCount } from "./units.js";

const ROWS = 20;
const ROWS_S = 5;
const CATALOG_S = 60;
const STORED_S = 60;

export const pathOf = (volumeId) => `/v1/volumes/${encodeURIComponent(volumeId)}`;

export class VolumeList {
  #volumes = new Map(); // by name: as the catalog's list says
  #details = new Map(); // by name: what was asked of it since: {state, quota, problems, storedAt}
  #page = 0;
  #isWhole = false;
  #isListing = false;

  constructor(api) {
    this.api = api;
    this.element = byId("list");
    this.rows = new Poller(() => this.#askRows());
    this.catalog = new Poller(() => this.#askCatalog());
    byId("search").addEventListener("input", () => this.#turn(-this.#page));
    byId("previous").addEventListener("click", () => this.#turn(-1));
    byId("next").addEventListener("click", () => this.#turn(1));
  }

  get names() {
    return [...this.#volumes.keys()];
  }

  start() {
    this.catalog.start();
    this.rows.start();
  }

  stop() {
    this.catalog.stop();
    this.rows.stop();
    this.#volumes.clear();
    this.#details.clear();
    this.#isWhole = false;
    this.#draw();
  }

  /** Show at once which volume is looked at, and how volumes are. */
  poke() {
    this.#draw();
    this.rows.poke();
  }

  /** Something happened to a volume; isCatalog: there may be others now. */
  notice(volumeId, isCatalog) {
    const detail = this.#details.get(volumeId);
    if (detail) detail.storedAt = 0;
    if (isCatalog) this.catalog.pokeSoon();
    if (this.#select().shown.some((volume) => volume.volume_id === volumeId)) this.rows.pokeSoon();
  }

  async #askCatalog() {
    const found = new Map();
    let cursor = "";
    do {
      const page = await this.api.get(`/v1/volumes?limit=${this.#isWhole ? 1000 : 100}${cursor}`);
      for (const volume of page.items) found.set(volume.volume_id, volume);
      cursor = page.next_cursor === null ? "" : `&cursor=${encodeURIComponent(page.next_cursor)}`;
      if (!this.#isWhole) this.#take(new Map([...this.#volumes, ...found]), cursor !== "");
    } while (cursor);
    this.#isWhole = true;
    this.#take(found, false);
    return CATALOG_S;
  }

  #take(volumes, isListing) {
    const isFirst = this.#volumes.size === 0;
    this.#volumes = volumes;
    this.#isListing = isListing;
    for (const name of this.#details.keys()) if (!volumes.has(name)) this.#details.delete(name);
    this.#draw();
    if (isFirst) this.rows.poke();
  }

  async #askRows() {
    if (this.element.offsetParent === null) return ROWS_S; // a volume is looked at, on a phone
    const { shown } = this.#select();
    await Promise.all(shown.map((volume) => this.#askRow(volume.volume_id)));
    this.#draw();
    return ROWS_S;
  }

  async #askRow(name) {
    const known = this.#details.get(name) ?? { ...this.#volumes.get(name), problems: [], storedAt: 0 };
    try {
      this.#details.set(
        name,
        known.state === NOT_MOUNTED ? await this.#lookAt(name, known) : await this.#askOwner(name),
      );
    } catch (error) {
      if (error.code === "not_mounted")
        this.#details.set(name, { ...known, state: NOT_MOUNTED, problems: [], storedAt: 0 });
      else if (error.code === "not_found") this.catalog.poke();
      else if (error.status === undefined) throw error;
      else this.#details.set(name, { ...known, problems: [{ message: error.message, degrades: true }] });
    }
  }

  async #askOwner(name) {
    const status = await this.api.get(`${pathOf(name)}/status`);
    return { state: stateOf(status), quota: status.quota, problems: status.problems, storedAt: 0 };
  }

  /** Return how a volume is that was not mounted when it was last asked; its stored usage is seldom asked for. */
  async #lookAt(name, known) {
    const found = await this.api.get(pathOf(name));
    if (found.state !== NOT_MOUNTED) return { state: found.state, quota: found.quota, problems: [], storedAt: 0 };
    if (Date.now() - known.storedAt < STORED_S * 1000) return known;
    const quota = await this.api.get(`${pathOf(name)}/quota`);
    return { state: NOT_MOUNTED, quota, problems: [], storedAt: Date.now() };
  }

  #turn(by) {
    this.#page += by;
    this.#draw();
    this.rows.poke();
  }

  /** Return the volumes that fit the search, and those of them on this page. */
  #select() {
    const words = byId("search").value.trim().toLowerCase().split(/\s+/);
    const fits = (volume) => {
      const state = this.#details.get(volume.volume_id)?.state ?? volume.state;
      const text = `${volume.volume_id} ${volume.mount_point ?? ""} ${volume.source} ${state}`.toLowerCase();
      return words.every((word) => text.includes(word));
    };
    const found = [...this.#volumes.values()].filter(fits);
    this.#page = Math.max(0, Math.min(this.#page, Math.ceil(found.length / ROWS) - 1));
    return { found, shown: found.slice(this.#page * ROWS, (this.#page + 1) * ROWS) };
  }

  #draw() {
    const { found, shown } = this.#select();
    const described = shown.map((volume) => ({ ...volume, ...this.#details.get(volume.volume_id) }));
    fill(byId("volumes"), described, (volume) => volume.volume_id, makeRow);
    const isAll = found.length === this.#volumes.size;
    const count = formatCount(found.length, "volume");
    say(byId("list-count"), `${isAll ? count : `${count} of ${this.#volumes.size}`}${this.#isListing ? "…" : ""}`);
    show(byId("list-empty"), found.length === 0);
    say(byId("list-empty"), this.#explainEmpty());
    show(byId("pages"), found.length > ROWS);
    say(byId("page-number"), `${this.#page + 1} of ${Math.ceil(found.length / ROWS)}`);
    byId("previous").disabled = this.#page === 0;
    byId("next").disabled = (this.#page + 1) * ROWS >= found.length;
  }

  #explainEmpty() {
    if (!this.#isWhole) return "Asking the daemon…";
    return this.#volumes.size ? "No volume fits the search." : "There is no volume here that you may see.";
  }
}

function makeRow({ volume_id: name }) {
  const state = make("span", { class: "badge" });
  const link = make("a", { href: `#/volume/${encodeURIComponent(name)}`, class: "name" }, name);
  const bytes = makeBar("meter", "Bytes");
  const inodes = makeBar("meter", "Inodes");
  const remark = make("p", { class: "remark" });
  const element = make(
    "li",
    { class: "volume" },
    make("div", { class: "title" }, link, state),
    bytes.element,
    inodes.element,
    remark,
  );
  return {
    element,
    update(volume) {
      say(state, volume.state);
      put(state, "data-level", levelOf(volume.state));
      bytes.update(...describeUse(volume.quota?.used_bytes ?? null, volume.quota?.quota_bytes ?? null, formatBytes));
      inodes.update(...describeUse(volume.quota?.file_count ?? null, volume.quota?.quota_inodes ?? null, formatInodes));
      const problems = (volume.problems ?? []).map((problem) => problem.message).join("; ");
      say(remark, problems || (volume.mount_point ?? volume.source));
      put(remark, "data-level", problems ? "bad" : null);
      put(remark, "title", remark.textContent);
      put(link, "aria-current", location.hash === link.getAttribute("href") ? "true" : null);
    },
  };
}
