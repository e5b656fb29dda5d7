// SPDX-License-Identifier: Apache-2.0
// What an administrator can do here. Each act is confirmed first; what came of it is told.
import { ask, name } from "./api.js";
import { by, el, say, set } from "./dom.js";

const TOLD_MS = 8000;
let timer = 0;

export function tell(text, bad) {
  const box = by("told");
  set(box, "class", `told shown${bad ? " bad" : ""}`);
  say(box, text);
  clearTimeout(timer);
  timer = setTimeout(() => { set(box, "class", "told"); say(box, ""); }, TOLD_MS);
}

/** Asks whether it is meant; what was typed, or null. `must`: what has to be typed. */
function confirm({ title, text, yes, ask: question, value, must, danger }) {
  const [box, input, button] = [by("dialog"), by("dialog-input"), by("dialog-yes")];
  say(by("dialog-h"), title);
  say(by("dialog-text"), text);
  say(button, yes);
  set(button, "class", danger ? "danger" : "main-act");
  set(by("dialog-label"), "hidden", !question);
  say(by("dialog-ask"), question || "");
  input.value = value || "";
  const check = () => { button.disabled = must !== undefined && input.value !== must; };
  input.oninput = check;
  check();
  return new Promise((done) => {
    let typed = null;
    by("dialog-form").onsubmit = () => { typed = input.value; };
    by("dialog-no").onclick = () => box.close();
    box.onclose = () => done(typed);
    box.showModal();
    (question ? input : by("dialog-no")).focus();
  });
}

async function run(what, path, body) {
  try {
    await ask("POST", path, body);
    tell(`${what}: done`);
    return true;
  } catch (e) {
    tell(`${what}: ${e.message}`, true);
    return false;
  }
}

/** `after`: called when something may have changed. */
export function makeActs(after) {
  const state = { may: false, kme: "" };

  async function reopen(stream) {
    const sure = await confirm({
      title: `Reopen ${stream.name}?`, yes: "Reopen",
      text: "The epoch that is being filled ends and another one opens. Key that was taken so far stays.",
    });
    if (sure !== null && await run(`reopen ${stream.name}`, `/api/v1/streams/${name(stream.name)}/reopen`))
      after();
  }

  async function suspend(sae) {
    const on = !sae.suspended;
    const sure = await confirm({
      title: `${on ? "Suspend" : "Resume"} ${sae.id}?`, yes: on ? "Suspend" : "Resume",
      text: on ? "It gets no keys until it is resumed or the gateway starts anew." : "It may ask for keys again.",
    });
    if (sure !== null &&
        await run(`${on ? "suspend" : "resume"} ${sae.id}`, `/api/v1/saes/${name(sae.id)}/${on ? "suspend" : "resume"}`))
      after();
  }

  async function reload() {
    const sure = await confirm({
      title: "Reload the configuration?", yes: "Reload",
      text: "Configuration, certificates, revocation lists and passwords are taken anew, or refused whole with the reason.",
    });
    if (sure !== null && await run("reload", "/api/v1/reload"))
      after();
  }

  async function drain() {
    const grace = await confirm({
      title: "Take this gateway out of service?", yes: "Drain", danger: true, ask: "Seconds until it stops", value: "5",
      text: "No key is issued from now on. After the time below the gateway stops in order; it is started again on its host.",
    });
    if (grace === null)
      return;
    const seconds = /^\d{1,5}$/.test(grace.trim()) ? Number(grace) : null;
    if (seconds === null)
      tell("drain: give a number of seconds", true);
    else if (await run("drain", "/api/v1/drain", { grace_s: seconds }))
      after();
  }

  async function zeroize() {
    const typed = await confirm({
      title: "Destroy all key material?", yes: "Zeroize", danger: true, must: state.kme,
      ask: `Type ${state.kme} to confirm`,
      text: "At once and for good, in memory and on disk: master key, key ring, database, anchor. The gateway ends. There is no way back.",
    });
    if (typed !== null && await run("zeroize", "/api/v1/zeroize", { confirm: typed }))
      after();
  }

  const row = by("act-row");
  const buttons = [
    ["Reload…", "", reload, "act-reload"], ["Drain…", "", drain, "act-drain"], ["Zeroize…", "danger", zeroize, "act-zeroize"],
  ].map(([text, kind, act, id]) => el("button", { type: "button", class: kind || null, id, click: act }, text));
  row.append(...buttons);

  return {
    reopen,
    may: () => state.may,
    ofSae: (sae) => (state.may ? {
      text: sae.suspended ? "Resume" : "Suspend", label: `${sae.suspended ? "Resume" : "Suspend"} ${sae.id}`,
      run: () => suspend(sae),
    } : null),
    set(session, kme) {
      state.may = !session.read_only;
      state.kme = kme;
      set(row, "hidden", !state.may);
      say(by("acts-note"), state.may ? "Each act leaves a line in the audit log." : "You may look, but change nothing.");
    },
  };
}
