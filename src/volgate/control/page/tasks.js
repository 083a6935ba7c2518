/** The copies and syncs of a volume: how far each is, and steering them. */

import { describeTask } from "./describing.js";
import { Cut, run } from "./dialogs.js";
import { byId, fill, make, makeBar, put, say, show } from "./dom.js";
import { formatMoment } from "./units.js";
import { pathOf } from "./volumes.js";

const SHOWN = 8;
const VERBS = { pause: "Pause", resume: "Resume", cancel: "Cancel" };
const OFFERED = { waiting: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"] };
const LEVELS = { done: "good", failed: "bad", cancelled: "off", paused: "warn" };

export class TaskList {
  #tasks = [];
  #volumeId = null;
  #mayChange = false;

  constructor(api, poke) {
    this.api = api;
    this.poke = poke;
    this.cut = new Cut(byId("more-tasks"), SHOWN, () => this.#draw());
  }

  /** Whether something is under way, so that it is worth asking often. */
  get isBusy() {
    return this.#tasks.some((task) => task.ended_at === null);
  }

  open(volumeId, mayChange) {
    this.#volumeId = volumeId;
    this.#mayChange = mayChange;
    this.cut.reset();
    this.take([], "Asking the daemon…");
  }

  async refresh(volumeId) {
    const tasks = await this.api.getAll(`${pathOf(volumeId)}/tasks`);
    if (volumeId === this.#volumeId) this.take(tasks, "There are none.");
  }

  /** Show tasks; why: what is said where there are none. */
  take(tasks, why) {
    this.#tasks = tasks.reverse();
    show(byId("no-tasks"), tasks.length === 0);
    say(byId("no-tasks"), why);
    this.#draw();
  }

  #draw() {
    const makeRow = (task) => this.#makeRow(this.#volumeId, task.operation_id);
    fill(byId("tasks"), this.cut.cut(this.#tasks), (task) => `${this.#volumeId} ${task.operation_id}`, makeRow);
  }

  #makeRow(volumeId, taskId) {
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
      const offered = this.#mayChange ? (OFFERED[task.state] ?? []) : [];
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
