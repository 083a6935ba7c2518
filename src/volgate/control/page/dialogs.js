/** Dialogs: each is a form that is sent once; what is refused is said in it, in the API's words. */

import { say, show } from "./dom.js";

/** Open a dialog. send: called with its form's values; it closes when that is done. */
export function openDialog(dialog, send) {
  const form = dialog.querySelector("form");
  form.onsubmit = (event) => {
    event.preventDefault();
    run(form, async () => {
      if ((await send(form.elements)) !== false) dialog.close();
    });
  };
  dialog.querySelector(".close").onclick = () => dialog.close();
  say(form.querySelector(".error"), "");
  dialog.showModal();
}

/** Run what a form or a part of the page asks for: its buttons rest meanwhile, and an error is said in it. */
export async function run(part, work) {
  const error = part.querySelector(".error");
  const buttons = [...part.querySelectorAll("button:not(.close):not(:disabled)")];
  say(error, "");
  part.setAttribute("aria-busy", "true");
  buttons.forEach((button) => (button.disabled = true));
  try {
    await work();
  } catch (problem) {
    say(error, problem.message);
  } finally {
    part.removeAttribute("aria-busy");
    buttons.forEach((button) => (button.disabled = false));
  }
}

/** Shows the first rows of a list, until somebody asks for all of them. */
export class Cut {
  #all = false;

  /** again: called when all are to be shown. */
  constructor(button, limit, again) {
    this.button = button;
    this.limit = limit;
    button.addEventListener("click", () => {
      this.#all = true;
      again();
    });
  }

  reset() {
    this.#all = false;
  }

  cut(rows) {
    show(this.button, rows.length > this.limit && !this.#all);
    say(this.button, `Show all ${rows.length}`);
    return this.#all ? rows : rows.slice(0, this.limit);
  }
}
