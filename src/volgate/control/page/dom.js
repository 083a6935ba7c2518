/** Elements: made, and changed in place. Text goes in as text alone: nothing that the API says becomes markup. */

export const byId = (id) => document.getElementById(id);

/** Return a new element; `on…` is listened to, other properties are attributes, `false` and `null` are none. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Set a text. What is the same already is not touched, so that selections and screen readers stay where they are. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown;
}

/** Set an attribute; `null` removes it. */
export function put(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

const rowsOf = new WeakMap();

/**
 * Make a list show items. Rows are kept by their keys, so that focus stays and nothing jumps.
 * makeRow returns {element, update(item)}.
 */
export function fill(list, items, keyOf, makeRow) {
  const known = rowsOf.get(list) ?? new Map();
  const rows = new Map();
  let last = null;
  for (const item of items) {
    const row = known.get(keyOf(item)) ?? makeRow(item);
    rows.set(keyOf(item), row);
    row.update?.(item);
    const place = last === null ? list.firstChild : last.nextSibling;
    if (place !== row.element) list.insertBefore(row.element, place);
    last = row.element;
  }
  for (const [key, row] of known) if (rows.get(key) !== row) row.element.remove();
  rowsOf.set(list, rows);
}

/** Return a bar {element, update(fraction, text, level)}; fraction: null = nobody knows; level: "", "warn" or "bad". */
export function makeBar(role, label) {
  const filled = make("span", { class: "filled" });
  const text = make("span", { class: "bar-text" });
  const track = make(
    "span",
    { class: "track", role, "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 },
    filled,
  );
  const element = make("div", { class: "bar" }, make("span", { class: "bar-label" }, label), track, text);
  const update = (fraction, words, level = "") => {
    const percent = fraction === null ? null : Math.max(0, Math.min(100, Math.round(fraction * 100)));
    filled.style.width = `${percent ?? 0}%`;
    put(track, "aria-valuenow", percent ?? (role === "meter" ? 0 : null));
    put(track, "aria-valuetext", words);
    put(track, "data-level", level);
    put(track, "data-open", fraction === null ? "" : null);
    say(text, words);
  };
  return { element, update };
}
