/** Starting a copy into a volume; of a sync it can be seen first what it would change. */

import { openDialog, run } from "./dialogs.js";
import { byId, fill, make, say, show } from "./dom.js";
import { showChanges } from "./snapshots.js";
import { formatCount, parseBytes } from "./units.js";
import { pathOf } from "./volumes.js";

const CHANGES = 200;

/** Ask what is to be copied; names: of volumes; started: called with the task. */
export function askForCopy(api, volumeId, names, started) {
  const dialog = byId("copy-dialog");
  const form = dialog.querySelector("form");
  form.reset();
  fill(
    byId("names"),
    names,
    (name) => name,
    (name) => ({ element: make("option", { value: name }) }),
  );
  byId("copy-volume").value = volumeId;
  form.oninput = () => look(dialog);
  look(dialog);
  const isShown = openDialog(dialog, async (fields) => {
    started(await api.change("POST", `${pathOf(volumeId)}/copies`, readRequest(fields)));
  });
  dialog.querySelector(".try").onclick = () =>
    run(form, isShown, async () => {
      look(dialog);
      const path = `${pathOf(volumeId)}/copies/plan?limit=${CHANGES}`;
      const plan = await api.change("POST", path, readRequest(form.elements));
      if (isShown()) tellPlan(dialog, plan);
    });
}

/** Show what fits the kind of copy, and no plan any more. */
function look(dialog) {
  const isSync = byId("copy-kind").value === "sync";
  dialog.querySelectorAll(".of-sync").forEach((part) => show(part, isSync));
  say(dialog.querySelector(".plan"), "");
  showChanges(dialog, []);
}

function tellPlan(dialog, plan) {
  const more = plan.next_cursor === null ? "" : "The first ";
  say(
    dialog.querySelector(".plan"),
    plan.items.length ? `${more}${formatCount(plan.items.length, "change")}:` : "Nothing would change.",
  );
  showChanges(dialog, plan.items);
}

function readRequest({ kind, volume, snapshot, path, target, speed, delete: isDeleting, losses }) {
  const source = { volume_id: volume.value.trim(), path: path.value };
  if (snapshot.value.trim()) source.snapshot_id = snapshot.value.trim();
  return {
    kind: kind.value,
    source,
    target_path: target.value,
    delete: kind.value === "sync" && isDeleting.checked,
    accept_losses: losses.checked,
    bytes_per_s: parseBytes(speed.value),
  };
}
