/** Dialogs: each is a form that is sent once; what is refused is said in it, in the API's words. */

import { say, show } from "./dom.js";

const turns = new WeakMap(); // by dialog: what it was opened for last

/** Open a dialog. send: called with its form's values; it closes when that is done, unless `false` is returned. */
export function openDialog(dialog, send) {
  const form = dialog.querySelector("form");
  const turn = Symbol("turn");
  const isShown = () => dialog.open && turns.get(dialog) === turn;
  turns.set(dialog, turn);
  form.onsubmit = (event) => {
    event.preventDefault();
    run(form, isShown, async () => {
      if ((await send(form.elements)) !== false && isShown()) dialog.close();
    });
  };
  dialog.querySelector(".close").onclick = () => dialog.close();
  rest(form);
  dialog.showModal();
  return isShown;
}

/** Make a part of the page ready for the next thing that it asks for. */
export function rest(part) {
  say(part.querySelector(".error"), "");
  part.removeAttribute("aria-busy");
  part.querySelectorAll("button:not(.go)").forEach((button) => (button.disabled = false));
}

/**
 * Run what a part of the page asks for: its buttons rest meanwhile, and an error is said in it, or, where it is not
 * shown any more, at the foot of the page. Buttons of the class `go` see to themselves.
 */
export async function run(part, isShown, work) {
  say(part.querySelector(".error"), "");
  part.setAttribute("aria-busy", "true");
  part.querySelectorAll("button:not(.close, .go)").forEach((button) => (button.disabled = true));
  let words = "";
  try {
    await work();
  } catch (error) {
    words = error.message;
  }
  if (isShown()) {
    rest(part);
    say(part.querySelector(".error"), words);
  } else if (words) {
    document.dispatchEvent(new CustomEvent("said", { detail: words }));
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
