// SPDX-License-Identifier: Apache-2.0
// What a stream, a neighbour and the gateway are doing: one word, one sign, one tone for each, so that
// nothing is told by colour alone.

export const SIGN = { good: "●", warn: "▲", bad: "✕", off: "○" };

/** A stream: {tone, word}. */
export function ofStream(s) {
  if (s.state !== "running")
    return { tone: s.open_failures > 0 || s.trouble ? "bad" : "warn", word: s.state };
  if (s.direction !== "inbound" && s.ready_chunks === 0)
    return { tone: "bad", word: "no key" };
  if (s.empty_in_s !== null && s.empty_in_s < 600 && s.ready_chunks * 4 < s.most_chunks)
    return { tone: "warn", word: "running low" };
  return { tone: "good", word: s.full ? "full" : "running" };
}

export function ofNeighbour(n) {
  if (n.reached === false)
    return { tone: "bad", word: "unreachable" };
  if (n.link === "down")
    return { tone: "bad", word: "link down" };
  if (n.link === "starving")
    return { tone: "warn", word: "starving" };
  if (n.reached === true)
    return { tone: "good", word: "reached" };
  return { tone: "off", word: "not called yet" };
}

/** A key manager of another network. */
export function ofPeer(p) {
  if (p.suspended)
    return { tone: "warn", word: "suspended" };
  if (p.reached === false)
    return { tone: "bad", word: "unreachable" };
  return p.reached === true ? { tone: "good", word: "reached" } : { tone: "off", word: "not called yet" };
}

/** A key with an ID of its own. */
export function ofTransfer(t) {
  const tone = { held: "good", released: "good", failed: "bad", voiding: "warn", offered: "warn" }[t.state] || "off";
  return { tone, word: t.state };
}

export function ofNode(n) {
  if (!n.alive)
    return { tone: "bad", word: "standstill" };
  if (n.draining)
    return { tone: "warn", word: "draining" };
  return n.ready ? { tone: "good", word: "ready" } : { tone: "bad", word: "not ready" };
}

/** The worst of several. */
export function worst(states) {
  for (const tone of ["bad", "warn", "off", "good"]) {
    const found = states.find((s) => s.tone === tone);
    if (found)
      return found;
  }
  return { tone: "off", word: "idle" };
}
