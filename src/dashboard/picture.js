// SPDX-License-Identifier: Apache-2.0
// The network as this gateway sees it: itself, its neighbours, the nodes that its routes lead to, other
// networks. A line is as wide as key comes in, and drawn by its state in colour, stroke and sign.
import { svg } from "./dom.js";
import { rate } from "./format.js";
import { ofNeighbour, ofNode, ofStream, worst, SIGN } from "./state.js";

const BOX = { w: 132, h: 46 };
const WIDE = { reach: { x: 300, y: 150 }, row: { x: 0, y: 130 }, least: { w: 760, h: 190 }, turn: 0 };
const NARROW = { reach: { x: 165, y: 135 }, row: { x: 185, y: 0 }, least: { w: 340, h: 200 }, turn: Math.PI / 2 };
const NARROW_PX = 560;
const MARGIN = 16;
const WIDTH = { least: 2, most: 8 };
const DASH = { good: null, warn: "10 6", bad: "2 7", off: "5 7" };
const SHOWN = 40; // nodes: more would be no picture

const short = (text, most = 16) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** Every node once: {id, kind, ring}. */
function nodesOf(status, peers) {
  const nodes = new Map();
  const add = (id, kind, ring) => {
    if (!nodes.has(id) && nodes.size < SHOWN)
      nodes.set(id, { id, kind, ring });
  };
  add(status.node.kme, "self", 0);
  const direct = new Set(status.streams.filter((s) => !s.virtual).map((s) => s.neighbour));
  for (const n of status.neighbours)
    if (direct.has(n.kme))
      add(n.kme, "neighbour", 1);
  for (const r of status.routes)
    for (const way of r.routes)
      way.nodes.forEach((id, i) => { if (i > 0) add(id, "far", i); });
  for (const n of status.neighbours)
    add(n.kme, "far", 2);
  for (const p of peers)
    add(p.name, "peer", 1);
  return nodes;
}

/** Neighbours alone stand around this node. */
function placeAround(around, shape) {
  const grow = Math.max(1, around.length / 7);
  const first = around.length % 2 === 1 || around.length === 2 ? 0 : Math.PI / around.length;
  around.forEach((n, i) => {
    const angle = shape.turn + first + (2 * Math.PI * i) / around.length;
    n.x = Math.cos(angle) * shape.reach.x * grow;
    n.y = Math.sin(angle) * shape.reach.y * grow;
  });
}

/** With nodes beyond them they stand in rows, each as many hops away; other networks on the other side. */
function placeInRows(nodes, shape) {
  const rows = new Map();
  for (const n of nodes) {
    const row = n.kind === "peer" ? -1 : n.ring;
    rows.set(row, [...(rows.get(row) || []), n]);
  }
  for (const [row, list] of rows)
    list.forEach((n, i) => {
      const aside = i - (list.length - 1) / 2;
      n.x = shape.turn === 0 ? row * shape.reach.x : aside * shape.row.x;
      n.y = shape.turn === 0 ? aside * shape.row.y : row * shape.reach.y;
    });
}

function place(nodes, self, shape) {
  const all = [...nodes.values()];
  const root = nodes.get(self);
  root.x = root.y = 0;
  if (all.some((n) => n.ring > 1))
    placeInRows(all, shape);
  else
    placeAround(all.filter((n) => n !== root), shape);
}

function frame(nodes, least) {
  const all = [...nodes.values()];
  const x = all.map((n) => n.x);
  const y = all.map((n) => n.y);
  const box = {
    x: Math.min(...x) - BOX.w / 2 - MARGIN, y: Math.min(...y) - BOX.h / 2 - MARGIN,
    w: Math.max(...x) - Math.min(...x) + BOX.w + 2 * MARGIN, h: Math.max(...y) - Math.min(...y) + BOX.h + 2 * MARGIN,
  };
  const [w, h] = [Math.max(box.w, least.w), Math.max(box.h, least.h)];
  return { x: box.x - (w - box.w) / 2, y: box.y - (h - box.h) / 2, w, h };
}

/** A line from box to box, beside the straight one by `aside`. */
function between(a, b, aside) {
  const dx = b.x - a.x;
  const dy = b.y - a.y;
  const long = Math.hypot(dx, dy) || 1;
  const ox = (-dy / long) * aside;
  const oy = (dx / long) * aside;
  const out = (n, sx, sy) => {
    const t = Math.min((BOX.w / 2 + 7) / (Math.abs(sx) || 1e-9), (BOX.h / 2 + 7) / (Math.abs(sy) || 1e-9));
    return { x: n.x + sx * t + ox, y: n.y + sy * t + oy };
  };
  return { from: out(a, dx / long, dy / long), to: out(b, -dx / long, -dy / long) };
}

function arrow(line, width) {
  const dx = line.to.x - line.from.x;
  const dy = line.to.y - line.from.y;
  const long = Math.hypot(dx, dy) || 1;
  const size = 7 + width;
  const ux = dx / long;
  const uy = dy / long;
  const foot = { x: line.to.x - ux * size, y: line.to.y - uy * size };
  const half = size * 0.55;
  return {
    foot,
    points: `${line.to.x},${line.to.y} ${foot.x - uy * half},${foot.y + ux * half} ${foot.x + uy * half},${foot.y - ux * half}`,
  };
}

function drawStream(s, from, to, aside, width) {
  const state = ofStream(s);
  const line = between(from, to, aside);
  const head = arrow(line, width);
  return svg("g", { class: `way ${state.tone}`, "data-stream": s.name },
    svg("title", null, `${s.name}: ${state.word}, key in ${rate(s.in_bps)}, key out ${rate(s.out_bps)}`),
    svg("line", {
      x1: line.from.x, y1: line.from.y, x2: head.foot.x, y2: head.foot.y,
      "stroke-width": width.toFixed(1), "stroke-dasharray": DASH[state.tone],
    }),
    svg("polygon", { points: head.points }));
}

function drawLabel(x, y, lines, tone) {
  const wide = Math.max(...lines.map((l) => l.length)) * 6.3 + 16;
  const high = lines.length * 15 + 7;
  return svg("g", { class: `tag ${tone}` },
    svg("rect", { x: x - wide / 2, y: y - high / 2, width: wide, height: high, rx: 6 }),
    ...lines.map((text, i) => svg("text", { x, y: y - high / 2 + 15 + i * 15, "text-anchor": "middle" }, text)));
}

function drawLink(status, nodes, neighbour, self, widthOf) {
  const far = nodes.get(neighbour.kme);
  const own = status.streams.filter((s) => s.neighbour === neighbour.kme && !s.virtual);
  const parts = [];
  own.forEach((s, i) => {
    const aside = (i - (own.length - 1) / 2) * 15;
    const inbound = s.direction === "inbound";
    parts.push(drawStream(s, inbound ? far : self, inbound ? self : far, inbound ? -aside : aside, widthOf(s)));
  });
  const state = worst(own.map(ofStream));
  const key = own.reduce((sum, s) => sum + s.in_bps, 0);
  const middle = { x: (self.x + far.x) / 2, y: (self.y + far.y) / 2 };
  parts.push(drawLabel(middle.x, middle.y, [`${SIGN[state.tone]} ${state.word}`, rate(key)], state.tone));
  return parts;
}

/** What lies beyond the neighbours is known from routes alone: how it is, nobody here can say. */
function drawBeyond(status, nodes) {
  const seen = new Set();
  const parts = [];
  for (const r of status.routes)
    for (const way of r.routes)
      for (let i = 1; i + 1 < way.nodes.length; i++) {
        const [a, b] = [nodes.get(way.nodes[i]), nodes.get(way.nodes[i + 1])];
        const id = [way.nodes[i], way.nodes[i + 1]].sort().join("\n");
        if (!a || !b || seen.has(id))
          continue;
        seen.add(id);
        const line = between(a, b, 0);
        parts.push(svg("line", { class: "beyond", x1: line.from.x, y1: line.from.y, x2: line.to.x, y2: line.to.y }));
      }
  return parts;
}

const LANES = [0, 5, -5, 10, -10];

/** Along the links, between their streams; ways that begin alike side by side. */
function drawRoutes(status, nodes) {
  const parts = [];
  const begun = new Map();
  status.routes.forEach((r) => r.routes.forEach((way) => {
    const at = way.nodes.map((id) => nodes.get(id));
    if (at.some((n) => !n) || at.length < 3)
      return;
    const lane = begun.get(way.nodes[1]) || 0;
    const aside = LANES[lane % LANES.length];
    begun.set(way.nodes[1], lane + 1);
    const points = at.slice(1).map((n, i) => between(at[i], n, aside));
    const d = points.map((l, i) => `${i === 0 ? "M" : "L"}${l.from.x.toFixed(1)} ${l.from.y.toFixed(1)} L${l.to.x.toFixed(1)} ${l.to.y.toFixed(1)}`);
    const stream = status.streams.find((s) => s.name === r.stream);
    const tone = stream ? ofStream(stream).tone : "off";
    parts.push(svg("path", { class: `route ${tone}`, d: d.join(" "), "stroke-dasharray": "1 6" },
      svg("title", null, `${r.stream}: ${way.nodes.join(" – ")}`)));
  }));
  return parts;
}

function drawNode(n, state, href) {
  const { x, y } = n;
  const shape = n.kind === "peer"
    ? svg("path", { d: `M${x - 66} ${y}l14 -23h104l14 23l-14 23h-104z` })
    : svg("rect", { x: x - BOX.w / 2, y: y - BOX.h / 2, width: BOX.w, height: BOX.h, rx: n.kind === "self" ? 12 : 8 });
  return svg("a", { class: `node ${n.kind} ${state.tone}`, href, "aria-label": `${n.id}: ${state.word}`, "data-node": n.id },
    svg("title", null, `${n.id}: ${state.word}`),
    shape,
    svg("text", { class: "id", x, y: y - 3, "text-anchor": "middle" }, short(n.id)),
    svg("text", { class: "word", x, y: y + 14, "text-anchor": "middle" }, `${SIGN[state.tone]} ${short(state.word, 18)}`));
}

function stateOf(n, status, peers) {
  if (n.kind === "self")
    return ofNode(status.node);
  if (n.kind === "peer")
    return peers.find((p) => p.name === n.id).state;
  const neighbour = status.neighbours.find((x) => x.kme === n.id);
  if (neighbour)
    return ofNeighbour(neighbour);
  return { tone: "off", word: "on a route" };
}

function describe(status, peers) {
  const parts = status.neighbours.map((n) => `${n.kme} ${ofNeighbour(n).word}`);
  parts.push(...peers.map((p) => `other network ${p.name} ${p.state.word}`));
  return `${status.node.kme} is ${ofNode(status.node).word}. ${parts.join(", ")}. The tables below say the same.`;
}

/** Draws it anew into `parent`; the node that had the focus keeps it. */
export function draw(parent, status, peers) {
  const nodes = nodesOf(status, peers);
  const self = nodes.get(status.node.kme);
  const shape = parent.clientWidth < NARROW_PX ? NARROW : WIDE;
  place(nodes, self.id, shape);
  const box = frame(nodes, shape.least);
  const most = Math.max(1, ...status.streams.map((s) => s.in_bps));
  const widthOf = (s) => WIDTH.least + (WIDTH.most - WIDTH.least) * Math.sqrt(s.in_bps / most);
  const links = status.neighbours.filter((n) => nodes.has(n.kme) && nodes.get(n.kme).kind === "neighbour");
  const peerLinks = peers.filter((p) => nodes.has(p.name)).map((p) => {
    const line = between(self, nodes.get(p.name), 0);
    return svg("g", { class: `way ${p.state.tone}` }, svg("line", {
      x1: line.from.x, y1: line.from.y, x2: line.to.x, y2: line.to.y, "stroke-width": 2, "stroke-dasharray": "1 5",
    }));
  });
  const image = svg("svg", {
    viewBox: `${box.x.toFixed(0)} ${box.y.toFixed(0)} ${box.w.toFixed(0)} ${box.h.toFixed(0)}`, role: "group",
    "aria-label": describe(status, peers),
  },
  ...drawBeyond(status, nodes), ...peerLinks, ...drawRoutes(status, nodes),
  ...links.flatMap((n) => drawLink(status, nodes, n, self, widthOf)),
  ...[...nodes.values()].map((n) => drawNode(n, stateOf(n, status, peers),
    n.kind === "self" ? "#acts" : n.kind === "peer" ? "#peers" : "#links")));
  const focus = parent.contains(document.activeElement) ? document.activeElement.getAttribute("data-node") : null;
  parent.replaceChildren(image);
  if (focus !== null)
    [...image.querySelectorAll("[data-node]")].find((n) => n.getAttribute("data-node") === focus)?.focus();
}
