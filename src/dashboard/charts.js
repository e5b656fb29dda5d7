// SPDX-License-Identifier: Apache-2.0
// A card for each stream: what comes in, goes out and lies ready, over the last hour or day.
import { el, svg, say, set } from "./dom.js";
import { bytes, duration, minute, rate } from "./format.js";
import { ofStream, SIGN } from "./state.js";

const W = 480;
const YOUNG = 31;
const H = { rates: 74, stock: 44 };

/** A limit for the axis that is easy to read: 1, 2 or 5 times a power of ten. */
function nice(most) {
  if (most <= 0)
    return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((m) => m * power).find((v) => v >= most);
}

/** How many values the width is for: what the span has, or fewer while the gateway is young. */
const across = (h) => Math.min(h.most, Math.max(YOUNG, h.in_bps.length));

/** The path of the values, the last one at the right edge; `area` closes it at the foot. */
function path(values, many, top, height, area) {
  if (values.length === 0)
    return "";
  const step = W / (many - 1);
  const x = (i) => (W - (values.length - 1 - i) * step).toFixed(1);
  const y = (v) => (height - (Math.min(v, top) / top) * (height - 2) - 1).toFixed(1);
  const points = values.map((v, i) => `${x(i)} ${y(v)}`);
  if (values.length === 1)
    points.unshift(`${(W - 3).toFixed(1)} ${y(values[0])}`);
  const line = `M${points.join("L")}`;
  return area ? `${line}L${W} ${height}L${points[0].split(" ")[0]} ${height}Z` : line;
}

function plot(height, kinds) {
  const lines = kinds.map((k) => svg("path", { class: `line ${k}` }));
  const areas = kinds.map((k) => svg("path", { class: `area ${k}` }));
  const cursor = svg("line", { class: "cursor", y1: 0, y2: height, x1: -5, x2: -5 });
  const grid = [0.5].map((f) => svg("line", { class: "grid", x1: 0, x2: W, y1: height * f, y2: height * f }));
  const node = svg("svg", { viewBox: `0 0 ${W} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...grid, svg("line", { class: "foot", x1: 0, x2: W, y1: height - 0.5, y2: height - 0.5 }),
    ...areas, ...lines, cursor);
  return { node, lines, areas, cursor, height };
}

function figure(name, key) {
  const value = el("dd", { "data-value": key }, "–");
  return { node: el("div", null, el("dt", null, name), value), value };
}

function makeAct(card) {
  return el("button", { type: "button", class: "quiet", click: () => card.reopen(card.stream) }, "Reopen");
}

/** Keys move the cursor, as the pointer does. */
function listen(card) {
  const move = (i) => {
    const n = card.history ? card.history.in_bps.length : 0;
    card.at = n === 0 ? null : Math.max(0, Math.min(n - 1, i));
    showCursor(card);
  };
  const leave = () => { card.at = null; showCursor(card); };
  card.area.addEventListener("pointermove", (e) => {
    const box = card.area.getBoundingClientRect();
    const h = card.history;
    if (h)
      move(h.in_bps.length - 1 - Math.round((1 - (e.clientX - box.left) / box.width) * (across(h) - 1)));
  });
  card.area.addEventListener("pointerleave", leave);
  card.area.addEventListener("blur", leave);
  card.area.addEventListener("keydown", (e) => {
    const n = card.history ? card.history.in_bps.length : 0;
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 }[e.key];
    if (step !== undefined)
      move((card.at ?? n - 1) + step);
    else if (e.key === "Home" || e.key === "End")
      move(e.key === "Home" ? 0 : n - 1);
    else
      return;
    e.preventDefault();
  });
}

export function makeCard(reopen) {
  const card = { stream: null, history: null, at: null, reopen };
  card.sign = el("span", { class: "sign", "aria-hidden": "true" });
  card.name = el("h3");
  card.word = el("span", { class: "word" });
  card.way = el("p", { class: "muted way-text" });
  card.act = makeAct(card);
  card.figures = {
    in: figure("Key in", "in_bps"), out: figure("Key out", "out_bps"), ready: figure("Ready", "ready_bytes"),
    empty: figure("Empty in", "empty_in_s"),
  };
  card.rates = plot(H.rates, ["in", "out"]);
  card.stock = plot(H.stock, ["ready"]);
  card.topRates = el("span", { class: "top-mark" });
  card.topStock = el("span", { class: "top-mark" });
  card.readout = el("p", { class: "readout", "aria-live": "polite" });
  card.from = el("span");
  card.to = el("span", null, "now");
  card.area = el("div", { class: "plots", tabindex: "0", role: "img" },
    el("div", { class: "plot" }, card.topRates, card.rates.node),
    el("div", { class: "plot small" }, card.topStock, card.stock.node));
  card.node = el("article", { class: "card chart" },
    el("header", null, card.sign, card.name, card.word, card.act), card.way,
    el("dl", { class: "figures" }, ...Object.values(card.figures).map((f) => f.node)),
    card.area, el("div", { class: "time-axis" }, card.from, card.readout, card.to));
  listen(card);
  return card;
}

export function updateCard(card, s, mayAct) {
  const state = ofStream(s);
  card.stream = s;
  set(card.node, "data-stream", s.name);
  set(card.node, "class", `card chart ${state.tone}`);
  say(card.sign, SIGN[state.tone]);
  say(card.name, s.name);
  say(card.word, state.word);
  const way = { outbound: `to ${s.neighbour}`, inbound: `from ${s.neighbour}`, shared: `with ${s.neighbour}` }[s.direction];
  say(card.way, `${way} · ${s.virtual ? "relayed" : s.profile}${s.trouble ? ` · ${s.trouble}` : ""}`);
  say(card.figures.in.value, rate(s.in_bps));
  say(card.figures.out.value, rate(s.out_bps));
  say(card.figures.ready.value, s.direction === "inbound" ? bytes(s.held_chunks * s.chunk_bytes) : bytes(s.ready_bytes));
  say(card.figures.ready.node.firstElementChild, s.direction === "inbound" ? "Held" : "Ready");
  say(card.figures.empty.value, duration(s.empty_in_s));
  set(card.act, "hidden", !mayAct);
  set(card.act, "aria-label", `Reopen stream ${s.name}`);
}

function showCursor(card) {
  const h = card.history;
  const n = h ? h.in_bps.length : 0;
  const i = card.at;
  const x = h && i !== null ? W - (n - 1 - i) * (W / (across(h) - 1)) : -5;
  for (const p of [card.rates, card.stock]) {
    set(p.cursor, "x1", x.toFixed(1));
    set(p.cursor, "x2", x.toFixed(1));
  }
  if (!h || i === null)
    return void say(card.readout, "");
  const at = h.until_ms - (i === n - 1 ? 0 : (h.last_s + (n - 2 - i) * h.step_s) * 1000);
  say(card.readout, `${minute(at)}  in ${rate(h.in_bps[i])}, out ${rate(h.out_bps[i])}, ${bytes(h.stock_bytes[i])}`);
}

export function showHistory(card, h) {
  const topRates = nice(Math.max(...h.in_bps, ...h.out_bps));
  const topStock = Math.max(1, ...h.stock_bytes);
  const many = across(h);
  card.history = h;
  [h.in_bps, h.out_bps].forEach((values, i) => {
    set(card.rates.lines[i], "d", path(values, many, topRates, H.rates, false));
    set(card.rates.areas[i], "d", path(values, many, topRates, H.rates, true));
  });
  set(card.stock.lines[0], "d", path(h.stock_bytes, many, topStock, H.stock, false));
  set(card.stock.areas[0], "d", path(h.stock_bytes, many, topStock, H.stock, true));
  say(card.topRates, rate(topRates));
  say(card.topStock, `${bytes(topStock)}`);
  say(card.from, `${duration(Math.round((many - 1) * h.step_s / 60) * 60)} ago`);
  const n = h.in_bps.length - 1;
  set(card.area, "aria-label", `${card.stream.name}, last ${h.span}: key in up to ${rate(Math.max(...h.in_bps))}, key out up `
    + `to ${rate(Math.max(...h.out_bps))}, stock now ${bytes(h.stock_bytes[n])}. Arrow keys read single values.`);
  set(card.node, "data-points", h.in_bps.length);
  showCursor(card);
}
