/** One volume: how it is, what is wrong with it, and what may be done with it. */

import {
  NOT_MOUNTED,
  describeBacklog,
  describeFlight,
  describeUse,
  formatInodes,
  levelOf,
  stateOf,
} from "./describing.js";
import { askForCopy } from "./copying.js";
import { openDialog, rest, run } from "./dialogs.js";
import { byId, fill, make, makeBar, put, say, show } from "./dom.js";
import { Poller } from "./poller.js";
import { ADMIN, OWNER } from "./session.js";
import { SnapshotList } from "./snapshots.js";
import { TaskList } from "./tasks.js";
import { formatBytes, parseBytes, parseCount, writeBytes } from "./units.js";
import { pathOf } from "./volumes.js";

const BUSY_S = 1;
const QUIET_S = 5;
const SELDOM_MS = 30000;
const NOBODYS = { problems: [], recent_errors: [], storage: null };

export class VolumeView {
  #id = null;
  #session = null;
  #volume = null; // as the catalog has it
  #quota = null;
  #seldomAt = 0;

  /** told: called with what was done, in words; changed: with the name of a volume whose state was changed. */
  constructor(api, { told, changed, names }) {
    this.api = api;
    this.told = told;
    this.changed = changed;
    this.names = names;
    this.poller = new Poller(() => this.#refresh());
    this.tasks = new TaskList(api, () => this.poke());
    this.snapshots = new SnapshotList(api, () => this.poke(), told);
    this.bars = { bytes: makeBar("meter", "Bytes"), inodes: makeBar("meter", "Inodes") };
    byId("quota").append(this.bars.bytes.element, this.bars.inodes.element);
    byId("mount").addEventListener("click", () => this.#mount());
    byId("unmount").addEventListener("click", () => this.#askToUnmount());
    byId("change-limits").addEventListener("click", () => this.#askForLimits());
    byId("start-copy").addEventListener("click", () => this.#askForCopy());
  }

  get id() {
    return this.#id;
  }

  /** Show a volume; null = none. */
  open(volumeId, session) {
    this.poller.stop();
    this.#id = volumeId;
    this.#session = session;
    this.#volume = this.#quota = null;
    show(byId("volume"), volumeId !== null);
    if (volumeId === null) return;
    const mayOwn = session.may(OWNER, volumeId);
    say(byId("volume-title"), volumeId);
    say(byId("volume-error"), "");
    rest(byId("doing"));
    this.tasks.open(volumeId, mayOwn);
    this.snapshots.open(volumeId, mayOwn);
    this.#tellState("…");
    this.#tellStatus(NOBODYS, "Asking the daemon…");
    this.#tellQuota(null);
    fill(byId("facts"), [], null, null);
    this.#seldomAt = 0;
    this.poller.start();
    byId("volume-title").focus({ preventScroll: true });
  }

  /** Look again at once. */
  poke() {
    this.#seldomAt = 0;
    this.poller.poke();
  }

  /** Something happened to this volume. */
  notice() {
    this.#seldomAt = 0;
    this.poller.pokeSoon();
  }

  async #refresh() {
    const id = this.#id;
    const isSeldom = Date.now() - this.#seldomAt > SELDOM_MS;
    if (isSeldom) this.#seldomAt = Date.now();
    try {
      if (isSeldom || this.#volume === null) this.#tellVolume(id, await this.api.get(pathOf(id)));
      await this.#askOwner(id, isSeldom);
    } catch (error) {
      if (id !== this.#id || error.status === undefined) throw error;
      if (error.code === "not_mounted") await this.#askStored(id, error.message);
      else say(byId("volume-error"), error.message);
    }
    return this.tasks.isBusy ? BUSY_S : QUIET_S;
  }

  async #askOwner(id, isSeldom) {
    const status = await this.api.get(`${pathOf(id)}/status`);
    if (id !== this.#id) return;
    say(byId("volume-error"), "");
    this.#tellState(stateOf(status));
    this.#tellStatus(status, "");
    this.#tellQuota(status.quota);
    await this.tasks.refresh(id);
    if (isSeldom) await this.snapshots.refresh(id);
  }

  /** Show what is known of a volume that nobody owns here; why: in the API's words. */
  async #askStored(id, why) {
    const quota = await this.api.get(`${pathOf(id)}/quota`);
    if (id !== this.#id) return;
    this.#tellState(NOT_MOUNTED);
    this.#tellStatus(NOBODYS, why);
    this.#tellQuota(quota);
    this.tasks.take([], why);
    this.snapshots.take([], why);
  }

  #tellState(state) {
    const mayOwn = this.#session.may(OWNER, this.#id);
    const isMounted = !state.endsWith(NOT_MOUNTED);
    const isKnown = state !== "…";
    say(byId("volume-state"), state);
    put(byId("volume-state"), "data-level", levelOf(state));
    show(byId("mount"), mayOwn && isKnown && !isMounted);
    show(byId("unmount"), mayOwn && isKnown && isMounted);
    show(byId("change-limits"), this.#session.may(ADMIN, this.#id));
    show(byId("start-copy"), mayOwn);
    show(byId("take-snapshot"), mayOwn);
  }

  #tellStatus(status, instead) {
    fill(byId("problems"), status.problems, (problem) => problem.code, makeProblem);
    say(byId("no-problems"), status.problems.length ? "" : instead || "Nothing.");
    say(byId("backlog"), instead || describeBacklog(status.storage));
    say(byId("flight"), instead || describeFlight(status));
    fill(
      byId("recent-errors"),
      status.recent_errors.map((error, at) => ({ error, at })),
      ({ at }) => at,
      makeError,
    );
  }

  #tellQuota(quota) {
    this.#quota = quota;
    this.bars.bytes.update(...describeUse(quota?.used_bytes ?? null, quota?.quota_bytes ?? null, formatBytes));
    this.bars.inodes.update(...describeUse(quota?.file_count ?? null, quota?.quota_inodes ?? null, formatInodes));
  }

  #tellVolume(id, volume) {
    if (id !== this.#id) return;
    this.#volume = volume;
    const facts = [
      ["Mount point", volume.mount_point ?? volume.configured_mount_point ?? "not known"],
      ["Source", volume.source],
      ["Options", volume.options || "none"],
      ["Read-only", volume.read_only ? "yes" : "no"],
    ];
    fill(byId("facts"), facts, ([name]) => name, makeFact);
  }

  #mount() {
    const id = this.#id;
    run(
      byId("doing"),
      () => this.#id === id,
      async () => {
        await this.api.change("POST", `${pathOf(id)}/mount`);
        this.#done(id, `${id} is mounted.`);
      },
    );
  }

  #askToUnmount() {
    const id = this.#id;
    const dialog = byId("unmount-dialog");
    say(dialog.querySelector(".what"), `Volume ${id}. Programs will not see its files any more.`);
    openDialog(dialog, async ({ lazy }) => {
      await this.api.change("POST", `${pathOf(id)}/unmount`, { lazy: lazy.checked });
      lazy.checked = false;
      this.#done(id, `${id} is unmounted.`);
    });
  }

  #askForLimits() {
    const id = this.#id;
    byId("limit-bytes").value = writeBytes(this.#quota?.quota_bytes ?? null);
    byId("limit-inodes").value = String(this.#quota?.quota_inodes ?? "none");
    openDialog(byId("limits-dialog"), async ({ bytes, inodes }) => {
      const body = { quota_bytes: parseBytes(bytes.value), quota_inodes: parseCount(inodes.value) };
      await this.api.change("PATCH", `${pathOf(id)}/quota`, body);
      this.#done(id, `The limits of ${id} were changed.`);
    });
  }

  #askForCopy() {
    const id = this.#id;
    askForCopy(this.api, id, this.names(), (task) => this.#done(id, `The ${task.kind} into ${id} goes on by itself.`));
  }

  #done(id, words) {
    this.told(words);
    this.changed(id);
    this.poke();
  }
}

function makeProblem() {
  const element = make("li", { class: "problem" });
  return { element, update: (problem) => say(element, problem.message) };
}

function makeError() {
  const element = make("li", { class: "quiet" });
  const update = ({ error }) => {
    const where = error.path ? ` of ${error.path}` : "";
    say(
      element,
      `${error.operation}${where}: ${error.error_message}${error.error_code ? ` (${error.error_code})` : ""}`,
    );
  };
  return { element, update };
}

function makeFact([name]) {
  const value = make("dd");
  return { element: make("div", {}, make("dt", {}, name), value), update: ([, text]) => say(value, text) };
}
