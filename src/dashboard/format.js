// SPDX-License-Identifier: Apache-2.0
// Numbers as people read them.

function scaled(value, base, units) {
  let i = 0;
  let v = value;
  while (v >= base && i < units.length - 1) {
    v /= base;
    i++;
  }
  const digits = i === 0 || v >= 100 ? 0 : v >= 10 ? 1 : 2;
  return `${v.toFixed(digits)} ${units[i]}`;
}

export const rate = (bps) => scaled(bps, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]);
export const bytes = (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
export const number = (n) => (n === null || n === undefined ? "–" : Number(n).toLocaleString("en"));

/** Seconds, with the two largest units. */
export function duration(s) {
  if (s === null || s === undefined)
    return "–";
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.floor(s);
  const parts = [];
  for (const [name, size] of units) {
    const n = Math.floor(left / size);
    left -= n * size;
    if (n > 0 || (name === "s" && parts.length === 0))
      parts.push(`${n} ${name}`);
    if (parts.length === 2)
      break;
  }
  return parts.join(" ");
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
export const minute = (ms) => new Date(ms).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
export const moment = (ms) =>
  ms === null ? "never" : new Date(ms).toLocaleString("en-GB", { dateStyle: "short", timeStyle: "medium" });
