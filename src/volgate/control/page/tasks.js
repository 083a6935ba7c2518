/** The copies and syncs of a volume: how far each is, and steering them. */

import { describeTask } from "./describing.js";
import { run } from "./dialogs.js";
import { make, makeBar, put, say, show } from "./dom.js";
import { ThingList } from "./things.js";
import { formatMoment } from "./units.js";
import { pathOf } from "./volumes.js";

const VERBS = { pause: "Pause", resume: "Resume", cancel: "Cancel" };
const OFFERED = { waiting: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"] };
const LEVELS = { done: "good", failed: "bad", cancelled: "off", paused: "warn" };

export class TaskList extends ThingList {
  constructor(api, poke) {
    super(api, "tasks", poke);
  }

  idOf(task) {
    return task.operation_id;
  }

  /** Whether something is under way, so that it is worth asking often. */
  get isBusy() {
    return this.things.some((task) => task.ended_at === null);
  }

  makeRow(volumeId, taskId) {
    const title = make("span", { class: "name" });
    const state = make("span", { class: "badge" });
    const bar = makeBar("progressbar", "Progress");
    const begun = make("p", { class: "quiet" });
    const error = make("p", { class: "error", role: "alert" });
    const element = make("li", { class: "task" }, make("div", { class: "title" }, title, state), bar.element, begun);
    const steer = (verb) =>
      run(
        element,
        () => element.isConnected,
        () => this.#steer(volumeId, taskId, verb),
      );
    const buttons = Object.entries(VERBS).map(([verb, label]) => [
      verb,
      make("button", { type: "button", onclick: () => steer(verb) }, label),
    ]);
    const actions = make("p", { class: "actions" }, ...buttons.map(([, button]) => button));
    element.append(actions, error);
    const update = (task) => {
      const name = `${task.kind} ${task.source} → /${task.target_path}`;
      say(title, name);
      say(state, task.state);
      put(state, "data-level", LEVELS[task.state] ?? "");
      bar.update(...describeTask(task));
      say(begun, describeOrigin(task));
      const offered = this.mayChange ? (OFFERED[task.state] ?? []) : [];
      for (const [verb, button] of buttons) {
        show(button, offered.includes(verb));
        put(button, "aria-label", `${VERBS[verb]}: ${name}`);
      }
      show(actions, offered.length > 0);
    };
    return { element, update };
  }

  async #steer(volumeId, taskId, verb) {
    await this.api.change("POST", `${pathOf(volumeId)}/tasks/${taskId}/${verb}`);
    this.poke();
  }
}

function describeOrigin(task) {
  const losses = task.report.losses.length ? `; not kept: ${task.report.losses.join("; ")}` : "";
  const error = task.error ? `; ${task.error}${task.error_code ? ` (${task.error_code})` : ""}` : "";
  return `since ${formatMoment(task.created_at)}${error}${losses}`;
}
