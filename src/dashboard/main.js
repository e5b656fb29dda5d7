// SPDX-License-Identifier: Apache-2.0
// The dashboard: who is here, what is asked and when, and what is shown where.
import { get, name, session, signIn, signOut } from "./api.js";
import { makeActs, tell } from "./acts.js";
import { makeCard, showHistory, updateCard } from "./charts.js";
import { by, el, keyed, say, set } from "./dom.js";
import { bytes, clock, duration, number, rate } from "./format.js";
import { draw } from "./picture.js";
import { ofNeighbour, ofNode, ofPeer, ofStream, SIGN } from "./state.js";
import { makeTables } from "./tables.js";

const EVERY_MS = 2000;
const HISTORY_MS = 10000;

let who = null; // the session
let span = "hour";
let timer = 0;
let beat = 0; // counts what was begun, so that an old answer is dropped
let lastAnswer = 0;
const visible = new Set(); // cards on the screen: only these ask for their history
const acts = makeActs(() => refresh());
const tables = makeTables(by, acts);

// --- light and dark -----------------------------------------------------------

const THEMES = { auto: "Automatic", light: "Light", dark: "Dark" };

function showTheme() {
  const now = document.documentElement.dataset.theme || "auto";
  say(by("theme"), THEMES[now]);
  set(by("theme"), "aria-label", `Colours: ${THEMES[now]}. Change`);
  return now;
}

by("theme").addEventListener("click", () => {
  const order = Object.keys(THEMES);
  const next = order[(order.indexOf(showTheme()) + 1) % order.length];
  if (next === "auto")
    delete document.documentElement.dataset.theme;
  else
    document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("qkdgate-theme", next);
  } catch {
    // it holds until the page is left
  }
  showTheme();
});
showTheme();

// --- signing in -----------------------------------------------------------------

function showSignIn(why) {
  who = null;
  clearTimeout(timer);
  set(by("page"), "hidden", true);
  set(by("jump"), "hidden", true);
  set(by("sign-out"), "hidden", true);
  set(by("sign-in"), "hidden", false);
  set(by("offline"), "hidden", true);
  say(by("user"), "");
  say(by("state"), "");
  say(by("facts"), "");
  say(by("sign-in-error"), why || "");
  document.title = "Sign in · qkdgate";
  by(by("sign-in-user").value === "" ? "sign-in-user" : "sign-in-password").focus();
}

by("sign-in").addEventListener("submit", async (e) => {
  const [user, password] = [by("sign-in-user"), by("sign-in-password")];
  const button = by("sign-in").querySelector("button");
  e.preventDefault();
  button.disabled = true;
  say(by("sign-in-error"), "");
  try {
    who = await signIn(user.value, password.value);
    begin();
  } catch (error) {
    const wait = error.body && error.body.wait_s;
    say(by("sign-in-error"), wait ? `Too many attempts. Try again in ${duration(wait)}.` : `Not signed in: ${error.message}.`);
    password.focus();
  } finally {
    password.value = "";
    button.disabled = false;
  }
});

by("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
  } catch (e) {
    if (e.status !== 401)
      return void tell(`not signed out: ${e.message}`, true);
  }
  showSignIn("");
});

function begin() {
  set(by("sign-in"), "hidden", true);
  set(by("page"), "hidden", false);
  set(by("jump"), "hidden", false);
  set(by("sign-out"), "hidden", who.by !== "password");
  say(by("user"), `${who.user}${who.read_only ? " (may look only)" : ""}`);
  refresh();
}

// --- what is shown --------------------------------------------------------------

function showHead(status, alarms) {
  const state = ofNode(status.node);
  say(by("kme"), status.node.kme);
  set(by("state"), "class", `pill ${state.tone}`);
  say(by("state"), `${SIGN[state.tone]} ${state.word}`);
  say(by("facts"), `${status.node.version} · up ${duration(status.node.uptime_s)}`);
  say(by("foot"), `qkdgate ${status.node.version} · asked every ${EVERY_MS / 1000} s · last answer ${clock(lastAnswer)}`);
  const serious = alarms.filter((a) => a.severity !== "notice").length;
  document.title = `${status.node.kme}: ${state.word}${serious > 0 ? `, ${serious} alarms` : ""} · qkdgate`;
}

function tile(title, value, detail, tone, key) {
  return { title, value, detail, tone, key };
}

function showTiles(status, alarms) {
  const ours = status.streams.filter((s) => s.direction !== "inbound");
  const sum = (list, member) => list.reduce((n, s) => n + s[member], 0);
  const running = status.streams.filter((s) => s.state === "running").length;
  const reached = status.neighbours.filter((n) => ofNeighbour(n).tone === "good").length;
  const critical = alarms.filter((a) => a.severity === "critical").length;
  const most = sum(ours.map((s) => ({ n: s.most_chunks * s.chunk_bytes })), "n");
  const ready = sum(ours, "ready_bytes");
  const tiles = [
    tile("Key ready", bytes(ready), most > 0 ? `${Math.round((100 * ready) / most)} % of the pools` : "no pools",
      ready === 0 ? "bad" : "", "ready"),
    tile("Key in", rate(sum(status.streams, "in_bps")), "from all sources", "", "in"),
    tile("Key out", rate(sum(status.streams, "out_bps")), "issued, fetched, relayed", "", "out"),
    tile("Streams", `${running} of ${status.streams.length}`, "running", running < status.streams.length ? "warn" : "good", "streams"),
    tile("Neighbours", `${reached} of ${status.neighbours.length}`, "reached", reached < status.neighbours.length ? "warn" : "good",
      "neighbours"),
    tile("Alarms", number(alarms.length), critical > 0 ? `${critical} critical` : "none critical",
      critical > 0 ? "bad" : alarms.length > 0 ? "warn" : "good", "alarms"),
  ];
  keyed(by("tiles"), tiles, (t) => t.key, (t) => {
    const [value, detail] = [el("dd", { class: "value" }), el("dd", { class: "detail" })];
    return { node: el("div", { "data-tile": t.key }, el("dt", null, t.title), value, detail), value, detail };
  }, (part, t) => {
    set(part.node, "class", `tile ${t.tone}`);
    say(part.value, t.value);
    say(part.detail, t.detail);
  });
}

const TONES = { critical: "bad", warning: "warn", notice: "off" };

function showAlarms(alarms) {
  say(by("alarm-count"), alarms.length > 0 ? number(alarms.length) : "");
  const rows = alarms.length > 0 ? alarms : [{ severity: "none", finding: "Nothing is wrong.", advice: "", of: "" }];
  keyed(by("alarm-list"), rows, (a) => `${a.severity}\n${a.of}\n${a.finding.replace(/\d+/g, "")}`, () => {
    const parts = { sign: el("span", { class: "sign" }), finding: el("p", { class: "finding" }), advice: el("p", { class: "advice" }) };
    return { node: el("li", null, parts.sign, el("div", null, parts.finding, parts.advice)), ...parts };
  }, (part, a) => {
    const tone = TONES[a.severity] || "good";
    set(part.node, "class", `alarm ${tone}`);
    set(part.node, "data-severity", a.severity);
    say(part.sign, SIGN[tone]);
    set(part.sign, "aria-label", a.severity);
    set(part.sign, "role", "img");
    say(part.finding, a.finding);
    say(part.advice, a.advice);
    set(part.advice, "hidden", a.advice === "");
  });
}

const watcher = new IntersectionObserver((entries) => {
  for (const e of entries) {
    const card = e.target.card;
    if (!e.isIntersecting)
      visible.delete(card);
    else if (!visible.has(card)) {
      visible.add(card);
      refreshHistory(card);
    }
  }
}, { rootMargin: "200px" });

function showCards(streams) {
  keyed(by("charts"), streams, (s) => s.name, () => {
    const card = makeCard((s) => acts.reopen(s));
    card.node.card = card;
    watcher.observe(card.node);
    return card;
  }, (card, s) => updateCard(card, s, acts.may()));
  for (const card of visible)
    if (!card.node.isConnected)
      visible.delete(card);
}

// One at a time: a page takes as few connections of the gateway as it can.
const wanted = [];
let asking = false;

async function askHistory() {
  while (wanted.length > 0 && who !== null) {
    const card = wanted.shift();
    const over = span;
    try {
      const h = await get(`/api/v1/streams/${name(card.stream.name)}/history?span=${over}`);
      if (over === span)
        showHistory(card, h);
    } catch {
      // the next status says what is wrong
    }
  }
}

async function refreshHistory(card) {
  card.asked = Date.now();
  if (!wanted.includes(card))
    wanted.push(card);
  if (asking)
    return;
  asking = true;
  await askHistory();
  asking = false;
}

function setSpan(to) {
  span = to;
  for (const s of ["hour", "day"])
    set(by(`span-${s}`), "aria-pressed", s === to ? "true" : "false");
  for (const card of visible)
    refreshHistory(card);
}
by("span-hour").addEventListener("click", () => setSpan("hour"));
by("span-day").addEventListener("click", () => setSpan("day"));

/** Other networks, in the words of this page. */
function readPeers(answer) {
  return answer.peers.map((p) =>
    ({ name: p.id, state: ofPeer(p), detail: [p.link, p.mode, p.dialect, p.url].join(" · ") }));
}

function showAll(status, alarms, transfers, saes, peers) {
  acts.set(who, status.node.kme);
  showHead(status, alarms);
  showTiles(status, alarms);
  showAlarms(alarms);
  last = [status, peers];
  draw(by("picture"), status, peers);
  showCards(status.streams);
  tables.streams(status.streams);
  tables.neighbours(status.neighbours);
  tables.routes(status.routes);
  tables.peers(peers);
  tables.transfers(transfers);
  tables.flight(transfers.list);
  set(by("flight-more"), "hidden", transfers.next === null);
  tables.saes(saes);
  set(by("routes"), "hidden", status.routes.length === 0);
  set(by("peers"), "hidden", peers.length === 0);
  const bad = status.streams.filter((s) => ofStream(s).tone !== "good").length;
  say(by("stream-count"), bad > 0 ? `${bad} of ${status.streams.length} not well` : number(status.streams.length));
  say(by("neighbour-count"), number(status.neighbours.length));
  say(by("route-count"), number(status.routes.length));
  say(by("peer-count"), number(peers.length));
  say(by("sae-count"), number(saes.length));
  say(by("links-note"), `The gateway keeps this since its start, ${duration(status.node.uptime_s)} ago.`);
}

// --- again and again ----------------------------------------------------------------

let last = null; // what the picture shows
new ResizeObserver(() => last && draw(by("picture"), ...last)).observe(by("picture"));

async function load() {
  const status = await get("/api/v1/status");
  const alarms = await get("/api/v1/alarms");
  const transfers = await get("/api/v1/transfers?limit=20");
  const saes = await get("/api/v1/saes");
  const peers = await get("/api/v1/peers");
  return () => showAll(status, alarms.alarms, transfers, saes.saes, readPeers(peers));
}

async function refresh() {
  const mine = ++beat;
  clearTimeout(timer);
  try {
    const show = await load();
    if (mine !== beat || who === null)
      return;
    lastAnswer = Date.now();
    set(by("offline"), "hidden", true);
    show();
    for (const card of visible)
      if (Date.now() - (card.asked || 0) >= HISTORY_MS)
        refreshHistory(card);
  } catch (e) {
    if (mine !== beat || who === null)
      return;
    if (e.status === 401)
      return void showSignIn("The session has ended. Sign in again.");
    say(by("offline"), `No answer${lastAnswer ? ` since ${clock(lastAnswer)}` : ""}: ${e.message || "the page failed"}. Trying again.`);
    set(by("offline"), "hidden", false);
    if (!(e.status >= 0))
      console.error(e);
  }
  if (mine === beat && !document.hidden)
    timer = setTimeout(refresh, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && who !== null)
    refresh();
});

const LEGEND = [["good", "running"], ["warn", "not open, or low"], ["bad", "fails, or no key"]];
by("picture-legend").append(...LEGEND.flatMap(([tone, text]) => [el("span", { class: tone }, SIGN[tone]), ` ${text}  `]),
  "· width: key in");

async function start() {
  try {
    who = await session();
  } catch (e) {
    say(by("offline"), `${e.message}. Trying again.`);
    set(by("offline"), "hidden", false);
    setTimeout(start, EVERY_MS);
    return;
  }
  if (who === null)
    showSignIn("");
  else
    begin();
}
start();
