/** Starting a copy into a volume. */

import { openDialog } from "./dialogs.js";
import { byId, fill, make, show } from "./dom.js";
import { parseBytes } from "./units.js";
import { pathOf } from "./volumes.js";

/** Ask what is to be copied; names: of volumes; started: called with the task. */
export function askForCopy(api, volumeId, names, started) {
  const dialog = byId("copy-dialog");
  const kind = byId("copy-kind");
  const look = () => show(dialog.querySelector(".of-sync"), kind.value === "sync");
  fill(byId("names"), names, (name) => name, (name) => ({ element: make("option", { value: name }) }));
  byId("copy-volume").value ||= volumeId;
  kind.onchange = look;
  look();
  openDialog(dialog, async (fields) => {
    started(await api.change("POST", `${pathOf(volumeId)}/copies`, readRequest(fields)));
    dialog.querySelector("form").reset();
  });
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
