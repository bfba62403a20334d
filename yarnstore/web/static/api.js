// The API: requests, problems, and the stream of events.
import { follow } from "./stream.js";

export class Problem extends Error {
  constructor(detail, code = "", hint = "") {
    super(detail);
    this.code = code;
    this.hint = hint;
  }
}

/** A request; `path` is below /api/v1, or whole. */
export async function call(method, path, body) {
  let answer;
  try {
    answer = await fetch(path.startsWith("/api/") ? path : `/api/v1${path}`, {
      method,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem("The service does not answer.", "no-answer", "Check that ystore serve is still running.");
  }
  if (answer.status === 401) {
    location.assign("/login" + location.hash);
    throw new Problem("The session has ended.", "unauthorized");
  }
  if (answer.status === 204) return null;
  const text = await answer.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch { /* not ours */ }
  if (!answer.ok) throw new Problem(value?.detail ?? `The service answered ${answer.status}.`, value?.code, value?.hint);
  return value;
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

/** A path of the API about a model. */
export const modelPath = (model, rest = "", query = {}) => {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = given.length ? "?" + new URLSearchParams(given) : "";
  return `/models/${encodeURIComponent(model.replaceAll("/", "~"))}${rest}${text}`;
};
export const offerPath = (model, rest = "", query = {}) => modelPath(model, rest, query).replace("/models/", "/catalogue/");

/** The address of a page: link("models", "acme/bge", {old: "1.0.0"}). */
export function link(page, name = "", state = {}) {
  const given = Object.entries(state).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = given.length ? "?" + new URLSearchParams(given) : "";
  return `#/${page}${name ? "/" + encodeURIComponent(name) : ""}${text}`;
}

/** Listen; calls `onjob(job)`, `onstore()` and `online(boolean)`. */
export function listen(onjob, onstore, online) {
  const heard = async (message) => {
    if (message.job) onjob(message.job);
    if (message.store) onstore();
    if (!("online" in message)) return;
    online(message.online);
    // The stream does not say why it was refused; a request does, and leads to the login if the session ended.
    if (message.refused) await get("/auto-update").catch(() => null);
  };
  if (!globalThis.SharedWorker) {
    follow(heard);
    return;
  }
  const { port } = new SharedWorker("/static/stream.js", { type: "module" });
  port.onmessage = (event) => heard(event.data);
  addEventListener("pagehide", () => port.postMessage("closed"));
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}
