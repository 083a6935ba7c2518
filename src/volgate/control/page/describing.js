/** How a volume is, in words and levels; without the page. */

import { formatBytes, formatCount, formatDuration } from "./units.js";

export const NOT_MOUNTED = "not mounted";
const GOOD = new Set(["ready"]);
const BAD = new Set(["degraded", "dead"]);

/** Return the level of a state: "good", "bad", "off", or "" for what passes. */
export function levelOf(state) {
  if (state.endsWith(NOT_MOUNTED)) return "off";
  if (BAD.has(state)) return "bad";
  return GOOD.has(state) ? "good" : "";
}

/** Return the state of an owner as lists say it; status: of `/status`. */
export function stateOf(status) {
  return status.mount_point === null ? `${status.state}, ${NOT_MOUNTED}` : status.state;
}

/** Return what a bar shows: [fraction, words, level]; used, limit: null = nobody knows, none. */
export function describeUse(used, limit, format) {
  if (used === null) return [null, limit === null ? "not counted" : `not counted; limit ${format(limit)}`, ""];
  if (limit === null) return [null, `${format(used)}, no limit`, ""];
  const fraction = limit === 0 ? 1 : used / limit;
  const percent = fraction >= 10 ? "over 999" : Math.floor(fraction * 100);
  return [fraction, `${format(used)} of ${format(limit)} (${percent} %)`, levelOfUse(fraction)];
}

function levelOfUse(fraction) {
  if (fraction >= 0.98) return "bad";
  return fraction >= 0.9 ? "warn" : "";
}

export const formatInodes = (count) => count.toLocaleString("en").replaceAll(",", " ");

/** Return what storage does not have yet; storage: of `/status`, null where nothing is kept back. */
export function describeBacklog(storage) {
  if (storage === null) return "Nothing is kept back: what is written is in the storage at once.";
  const parts = [storage.backlog_files === 0 ? "Storage has everything." : describeWaiting(storage)];
  if (storage.refused) parts.push(`Storage refuses ${formatCount(storage.refused, "file")}.`);
  if (storage.last_error) parts.push(`Last error: ${storage.last_error}.`);
  parts.push(`Waiting room: ${formatBytes(storage.staged_bytes)} of ${formatBytes(storage.max_staged_bytes)}.`);
  parts.push(`Cache: ${formatBytes(storage.cached_bytes)} of ${formatBytes(storage.max_cached_bytes)}.`);
  if (storage.lease) parts.push(`Lease: ${storage.lease}.`);
  return parts.join(" ");
}

function describeWaiting({ backlog_files, backlog_bytes, oldest_s }) {
  const oldest = `the oldest for ${formatDuration(oldest_s)}`;
  return `${formatCount(backlog_files, "file")}, ${formatBytes(backlog_bytes)}, ${oldest}.`;
}

/** Return what is under way in a volume. */
export function describeFlight(status) {
  const waiting = status.in_flight
    ? `${formatCount(status.in_flight, "request")} in flight, the oldest for ${formatDuration(status.oldest_request_s)}`
    : "No request in flight";
  const moved = `${formatBytes(status.read_bytes)} read and ${formatBytes(status.written_bytes)} written`;
  return `${waiting}; ${formatCount(status.open_files, "open file")}; ${moved} since it is mounted.`;
}

/** Return [fraction, words] of a task. */
export function describeTask(task) {
  const isOver = task.ended_at !== null;
  const parts = [
    `${formatBytes(task.done_bytes)} of ${formatBytes(task.total_bytes)}`,
    `${formatCount(task.done_files, "file")} of ${formatInodes(task.total_files)}`,
  ];
  if (!isOver && task.bytes_per_s !== null) parts.push(`${formatBytes(Math.round(task.bytes_per_s))}/s`);
  if (!isOver && task.remaining_s !== null) parts.push(`${formatDuration(task.remaining_s)} left`);
  if (isOver) parts.push(`took ${formatDuration(task.ended_at - task.created_at)}`);
  return [progressOf(task), parts.join(" · ")];
}

function progressOf(task) {
  if (task.state === "done") return 1;
  if (task.total_bytes) return task.done_bytes / task.total_bytes;
  return task.total_files ? task.done_files / task.total_files : null;
}
