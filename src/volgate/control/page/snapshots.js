/** The snapshots of a volume: taken, deleted, and restored once it was seen what that would do. */

import { openDialog, run } from "./dialogs.js";
import { byId, fill, make, say, show } from "./dom.js";
import { ThingList } from "./things.js";
import { formatBytes, formatCount, formatMoment } from "./units.js";
import { pathOf } from "./volumes.js";

const CHANGES = 200;

export class SnapshotList extends ThingList {
  /** told: called with what was done, in words. */
  constructor(api, poke, told) {
    super(api, "snapshots", poke);
    this.told = told;
    byId("take-snapshot").addEventListener("click", () => this.#askToTake());
  }

  idOf(snapshot) {
    return snapshot.snapshot_id;
  }

  makeRow(volumeId, snapshotId) {
    const facts = make("span", { class: "quiet" });
    const damaged = make("p", { class: "problem" });
    const button = (label, work) =>
      make(
        "button",
        { type: "button", "aria-label": `${label} ${snapshotId}`, onclick: () => work(volumeId, snapshotId) },
        `${label}…`,
      );
    const actions = make(
      "span",
      { class: "actions" },
      button("Restore", (...of) => this.#askToRestore(...of)),
      button("Delete", (...of) => this.#askToDelete(...of)),
    );
    show(actions, this.mayChange);
    const element = make(
      "li",
      { class: "snapshot" },
      make("span", { class: "name" }, snapshotId),
      actions,
      facts,
      damaged,
    );
    const update = (snapshot) => {
      say(facts, describe(snapshot));
      say(damaged, snapshot.damaged);
    };
    return { element, update };
  }

  #askToTake() {
    const volumeId = this.volumeId;
    openDialog(byId("snapshot-dialog"), async ({ id }) => {
      const body = id.value.trim() ? { snapshot_id: id.value.trim() } : {};
      const taken = await this.api.change("POST", `${pathOf(volumeId)}/snapshots`, body);
      id.value = "";
      this.#done(`Snapshot ${taken.snapshot_id} of ${volumeId} was taken.`);
    });
  }

  #askToDelete(volumeId, snapshotId) {
    const dialog = byId("delete-dialog");
    say(dialog.querySelector(".what"), `Snapshot ${snapshotId} of ${volumeId}; what it alone keeps is lost for good.`);
    openDialog(dialog, async () => {
      await this.api.change("DELETE", pathOfSnapshot(volumeId, snapshotId));
      this.#done(`Snapshot ${snapshotId} of ${volumeId} was deleted.`);
    });
  }

  #askToRestore(volumeId, snapshotId) {
    const dialog = byId("restore-dialog");
    const form = dialog.querySelector("form");
    const path = byId("restore-path");
    const go = dialog.querySelector(".go");
    const forget = () => {
      go.disabled = true;
      showPlan(dialog, null);
    };
    say(dialog.querySelector(".what"), `Volume ${volumeId} becomes what it was in snapshot ${snapshotId}.`);
    path.value = "";
    path.oninput = forget;
    forget();
    const isShown = openDialog(dialog, async () => {
      const asked = path.value;
      forget();
      const plan = await this.api.getPatiently(
        `${pathOfSnapshot(volumeId, snapshotId)}/plan?path=${encodeURIComponent(asked)}&limit=${CHANGES}`,
      );
      if (isShown() && asked === path.value) go.disabled = !showPlan(dialog, plan);
      return false; // it stays open: the plan is to be read
    });
    go.onclick = () =>
      run(form, isShown, async () => {
        go.disabled = true;
        const done = await this.api.change("POST", `${pathOfSnapshot(volumeId, snapshotId)}/restore`, {
          path: path.value,
        });
        if (isShown()) dialog.close();
        this.#done(`${volumeId} was restored from ${snapshotId}: ${describeCounts(done)}.`);
      });
  }

  #done(words) {
    this.told(words);
    this.poke();
  }
}

const pathOfSnapshot = (volumeId, snapshotId) => `${pathOf(volumeId)}/snapshots/${encodeURIComponent(snapshotId)}`;

/** Show what a restore would do; returns whether it can be done. */
function showPlan(dialog, plan) {
  const items = plan?.items ?? [];
  const words = plan === null ? "" : plan.refused || `Would be: ${describeCounts(plan)}.`;
  const more = items.length ? ` ${plan.next_cursor ? "The first of it" : "All of it"}:` : "";
  say(dialog.querySelector(".plan"), words + more);
  showChanges(dialog, items);
  return plan !== null && !plan.refused;
}

/** Show differences in a dialog. */
export function showChanges(dialog, items) {
  const makeRow = (change) => ({ element: make("li", {}, describeChange(change)) });
  fill(dialog.querySelector(".changes"), items, describeChange, makeRow);
  show(dialog.querySelector(".changes"), items.length > 0);
}

function describeChange(change) {
  const what = change.what.length ? ` (${change.what.join(", ")})` : "";
  return `${change.change}: ${change.path}${what}`;
}

function describeCounts({ created, replaced, removed, adjusted }) {
  return `${created} made, ${replaced} replaced, ${removed} removed, ${adjusted} adjusted`;
}

function describe(snapshot) {
  const parts = [formatMoment(snapshot.created_at)];
  if (snapshot.path) parts.push(`only ${snapshot.path}`);
  if (snapshot.file_count !== null) parts.push(formatCount(snapshot.file_count, "inode"));
  if (snapshot.used_bytes !== null) parts.push(formatBytes(snapshot.used_bytes));
  if (snapshot.preserved_bytes !== null) parts.push(`keeps ${formatBytes(snapshot.preserved_bytes)}`);
  for (const [name, value] of Object.entries(snapshot.metadata)) parts.push(`${name}: ${value}`);
  return parts.join(" · ");
}
