// SPDX-License-Identifier: Apache-2.0
// Tables. On a narrow screen each row becomes a block, whose cells bear the names of their columns.
import { el, keyed, say, set, svg } from "./dom.js";
import { bytes, duration, moment, number, rate } from "./format.js";
import { ofNeighbour, ofStream, ofTransfer, SIGN } from "./state.js";

/** A column: {title, text(row), kind: "number" | "state" | "bar" | "act"}. */
function makeTable(box, label, columns) {
  const head = el("tr", null, ...columns.map((c) =>
    el("th", { scope: "col", class: c.kind === "number" ? "number" : null }, c.title)));
  const body = el("tbody");
  box.append(el("table", { "aria-label": label }, el("thead", null, head), body),
    el("p", { class: "none muted", hidden: true }));
  return { body, none: box.lastElementChild, table: box.firstElementChild, columns };
}

function makeCell(c, i) {
  const attributes = { "data-title": c.title, class: c.kind || null, "data-column": c.key || null };
  if (i === 0)
    return el("th", { ...attributes, scope: "row" });
  const cell = el("td", attributes);
  if (c.kind === "bar")
    cell.append(svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "back", width: 100, height: 8, rx: 2 }), svg("rect", { class: "front", height: 8, rx: 2, width: 0 })),
    el("span"));
  if (c.kind === "act")
    cell.append(el("button", { type: "button", class: "quiet" }));
  return cell;
}

function updateCell(cell, c, row) {
  if (c.kind === "bar") {
    set(cell.querySelector(".front"), "width", Math.round(100 * Math.min(1, c.share(row))));
    say(cell.lastElementChild, c.text(row));
  } else if (c.kind === "act") {
    const act = c.act(row);
    const button = cell.firstElementChild;
    set(button, "hidden", act === null);
    if (act === null)
      return;
    say(button, act.text);
    set(button, "aria-label", act.label);
    button.onclick = act.run;
  } else if (c.kind === "state") {
    const state = c.state(row);
    set(cell, "class", `state ${state.tone}`);
    say(cell, `${SIGN[state.tone]} ${state.word}`);
  } else {
    say(cell, c.text(row));
  }
}

function fill(table, rows, key, none) {
  keyed(table.body, rows, key, () => {
    const cells = table.columns.map(makeCell);
    return { node: el("tr", null, ...cells), cells };
  }, (part, row) => {
    set(part.node, "data-key", key(row));
    part.cells.forEach((cell, i) => updateCell(cell, table.columns[i], row));
  });
  set(table.table, "hidden", rows.length === 0);
  set(table.none, "hidden", rows.length > 0);
  say(table.none, none);
}

const text = (title, key, f) => ({ title, key, text: (row) => (f ? f(row[key]) : (row[key] ?? "–")) });
const figure = (title, key, f = number) => ({ ...text(title, key, f), kind: "number" });

/** The tables by name, each a function of the rows. */
export function makeTables(by, acts) {
  const streams = makeTable(by("stream-table"), "Streams", [
    text("Stream", "name"), text("Neighbour", "neighbour"), text("Direction", "direction"),
    { title: "State", key: "state", kind: "state", state: ofStream },
    {
      title: "Pool", key: "ready_bytes", kind: "bar",
      share: (s) => (s.direction === "inbound" ? 0 : s.ready_chunks / (s.most_chunks || 1)),
      text: (s) => (s.direction === "inbound" ? `${bytes(s.held_chunks * s.chunk_bytes)} held` : bytes(s.ready_bytes)),
    },
    figure("In", "in_bps", rate), figure("Out", "out_bps", rate), figure("Empty in", "empty_in_s", duration),
    figure("Taken", "taken_chunks"), figure("Issued", "issued_chunks"), figure("Fetched", "fetched_chunks"),
    figure("Bad segments", "bad_segments"),
    { title: "Key stream ID", key: "ksid", text: (s) => (s.ksid ?? "–").slice(0, 13) },
  ]);
  const neighbours = makeTable(by("neighbour-table"), "Neighbours", [
    text("KME", "kme"), { title: "State", kind: "state", state: ofNeighbour },
    figure("Called", "called_s_ago", (s) => (s === null ? "–" : `${duration(s)} ago`)),
    text("URL", "url"), text("Failure", "failure"),
  ]);
  const routes = makeTable(by("route-table"), "Routes", [
    text("Stream", "stream"), text("To", "to"),
    { title: "Ways", text: (r) => (r.routes.length ? r.routes.map((w) => w.nodes.join(" – ")).join("; ") : "none") },
  ]);
  const peers = makeTable(by("peer-table"), "Other networks", [
    text("Peer", "name"), { title: "State", kind: "state", state: (p) => p.state }, text("Detail", "detail"),
  ]);
  const transfers = makeTable(by("transfer-table"), "Transfers and relaying", [
    { title: "", text: () => "This gateway" }, figure("Records", "records"), figure("Keys", "keys"),
    figure("Being voided", "voiding"), figure("Batches sent", "sent"), figure("Delivered", "delivered"),
    figure("Forwarded", "forwarded"), figure("Key forwarded", "forwarded_bytes", bytes), figure("Taken for us", "taken"),
    figure("Sent again", "repeated"), figure("Refused", "refused"), figure("Wrong", "wrong"),
  ]);
  const flight = makeTable(by("flight-table"), "Keys with an ID of their own", [
    text("Key ID", "id"), { title: "State", kind: "state", state: ofTransfer }, text("Initiator", "initiator"),
    { title: "From", text: (t) => t.origin ?? "here" },
    { title: "Targets", text: (t) => t.targets.map((x) => `${x.sae}${x.home ? ` at ${x.home}` : ""}: ${x.state}`).join(", ") },
    figure("Bits", "bits"), figure("Age", "age_s", duration), figure("Expires in", "expires_in_s", duration),
  ]);
  const saes = makeTable(by("sae-table"), "SAEs", [
    text("SAE", "id"),
    {
      title: "State", kind: "state",
      state: (s) => (s.suspended ? { tone: "warn", word: "suspended" } : { tone: "good", word: "admitted" }),
    },
    figure("Requests", "requests"), figure("Issued", "issued"), figure("Fetched", "fetched"), figure("Refused", "refused"),
    figure("Limited", "limited"), { ...text("Last key request", "last_ms", moment), kind: "number" },
    { title: "Act", kind: "act", act: acts.ofSae },
  ]);
  return {
    streams: (rows) => fill(streams, rows, (s) => s.name, "No streams are configured."),
    neighbours: (rows) => fill(neighbours, rows, (n) => n.kme, "No neighbours are configured."),
    routes: (rows) => fill(routes, rows, (r) => r.stream, "No virtual streams begin here."),
    peers: (rows) => fill(peers, rows, (p) => p.name, "No other networks are configured."),
    saes: (rows) => fill(saes, rows, (s) => s.id, "No SAEs are at home here."),
    flight: (rows) => fill(flight, rows, (t) => String(t.row), "No key with an ID of its own is here."),
    transfers: (t) => fill(transfers, [{ ...t, ...t.relay }], () => "all", ""),
  };
}
