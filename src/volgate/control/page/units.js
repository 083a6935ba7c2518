/** Numbers as people write and read them, as the command line does: KiB, MiB; `10G` = `10GiB`, `10GB` = 10^10. */

const POWERS = { "": 0, k: 1, m: 2, g: 3, t: 4, p: 5, e: 6 };
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export function formatBytes(size) {
  let value = size;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

export function formatCount(count, noun) {
  return `${count.toLocaleString("en").replaceAll(",", " ")} ${noun}${count === 1 ? "" : "s"}`;
}

export function formatDuration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** Return a moment as YYYY-MM-DD hh:mm:ss in local time; at: UNIX seconds. */
export function formatMoment(at) {
  const moment = new Date(at * 1000);
  const local = new Date(moment.getTime() - moment.getTimezoneOffset() * 60000);
  return local.toISOString().slice(0, 19).replace("T", " ");
}

/** Return bytes, null for "none". Throws Error with words for people. */
export function parseBytes(text) {
  const given = text.trim().toLowerCase();
  if (given === "none") return null;
  const found = /^(\d+(?:\.\d+)?)\s*([kmgtpe]?)(ib|b|)$/.exec(given);
  if (found === null || (!found[2] && (found[3] === "ib" || found[1].includes("."))))
    throw new Error(`'${text}' is no size; write for example 500M, 10GiB, 10GB (= 10 000 000 000) or none`);
  const base = found[3] === "b" && found[2] ? 1000 : 1024;
  return bounded(Math.floor(Number(found[1]) * base ** POWERS[found[2]]), text);
}

/** Return a number of inodes, null for "none"; 1M = 1 000 000. Throws Error with words for people. */
export function parseCount(text) {
  const given = text.trim().toLowerCase();
  if (given === "none") return null;
  const found = /^(\d+)([kmg]?)$/.exec(given);
  if (found === null)
    throw new Error(`'${text}' is no number of inodes; write for example 100000, 1M (= 1 000 000) or none`);
  return bounded(Number(found[1]) * 1000 ** POWERS[found[2]], text);
}

/** Return how a limit is written so that it is read back as the same number. */
export function writeBytes(size) {
  if (size === null) return "none";
  for (let unit = UNITS.length - 1; unit > 0; unit -= 1)
    if (size > 0 && size % 1024 ** unit === 0) return `${size / 1024 ** unit}${UNITS[unit]}`;
  return String(size);
}

function bounded(number, text) {
  if (!Number.isSafeInteger(number)) throw new Error(`'${text}' is more than 8 PiB; the command line sets such limits`);
  return number;
}
