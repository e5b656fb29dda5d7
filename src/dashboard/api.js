// SPDX-License-Identifier: Apache-2.0
// What this page asks of its gateway, and nobody else.

const WAIT_MS = 20000;
const PRESENT_MS = 15000; // after a key or a pointer somebody is here

let token = null;
let present = Date.now();

for (const kind of ["pointerdown", "pointermove", "keydown", "wheel", "touchstart"])
  addEventListener(kind, () => { present = Date.now(); }, { passive: true });

export class Refused extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** The JSON answer; a Refused with the status where it is none of 2xx, and 0 where there was none. */
export async function ask(method, path, body) {
  const headers = {};
  if (body !== undefined)
    headers["Content-Type"] = "application/json";
  if (token !== null && method !== "GET")
    headers["X-Qkdgate-Token"] = token;
  if (Date.now() - present > PRESENT_MS)
    headers["X-Qkdgate-Idle"] = "1";
  let answer;
  try {
    answer = await fetch(path, {
      method, headers, cache: "no-store", credentials: "same-origin", redirect: "error",
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(WAIT_MS),
    });
  } catch {
    throw new Refused(0, "the gateway does not answer");
  }
  const text = await answer.text().catch(() => "");
  let json = null;
  try {
    json = text === "" ? null : JSON.parse(text);
  } catch {
    json = null;
  }
  if (!answer.ok)
    throw new Refused(answer.status, (json && json.message) || `the gateway answered ${answer.status}`, json);
  return json;
}

export const get = (path) => ask("GET", path);
export const name = (text) => encodeURIComponent(text);

/** Who is here, or null. */
export async function session() {
  try {
    const s = await get("/api/v1/session");
    token = s.token;
    return s;
  } catch (e) {
    if (e.status !== 401)
      throw e;
    token = null;
    return null;
  }
}

export async function signIn(user, password) {
  present = Date.now();
  const s = await ask("POST", "/api/v1/session", { user, password });
  token = s.token;
  return s;
}

export async function signOut() {
  await ask("DELETE", "/api/v1/session");
  token = null;
}
