// Jobs: their state, and the views that follow it.
import { call, get, link, modelPath, post } from "./api.js";
import { badge, button, bytes, change, changing, duration, h, many, when } from "./dom.js";

const jobs = new Map();
const followers = new Set();

const VERBS = {
  fetch: "Download", checkout: "Install", update: "Update", "update-all": "Update", "auto-update": "Auto-update",
  rollback: "Roll back", restore: "Restore", diff: "Compare", gc: "Free disk space", fsck: "Check",
};
const PHASES = {
  read: "Reading", delta: "Downloading changes", download: "Downloading", write: "Writing", check: "Checking",
};
const STATES = {
  queued: "Waiting for its turn", running: "Running", paused: "Paused", done: "Done", failed: "Failed",
  cancelled: "Cancelled", interrupted: "Interrupted",
};
const ACTIVE = ["queued", "running", "paused", "interrupted"];
export const isActive = (job) => ACTIVE.includes(job.state);

/** The model and the two versions of a comparison of one model. */
const compared = (job) => (job.kind === "diff" ? /^([^:@]+)@(\S+) → \1@(\S+)$/.exec(job.subject)?.slice(1) : null);
const subjectOf = (job) => compared(job)?.join(" ").replace(/ (\S+)$/, " → $1") ?? job.subject;
export const titleOf = (job) => (job.kind === "gc" ? VERBS.gc : `${VERBS[job.kind] ?? job.kind} ${subjectOf(job)}`);

const part = (job) => (job.bytes_total ? Math.min(1, job.bytes_done / job.bytes_total) : 0);

function line(job) {
  if (job.state === "failed") return job.error?.detail ?? "Failed";
  if (job.state !== "running") {
    const note = job.state === "interrupted" ? job.notes.at(-1) : "";
    return STATES[job.state] + (note ? `: ${note}` : "");
  }
  const words = [PHASES[job.phase] ?? "Starting"];
  if (job.bytes_total) words.push(`${bytes(job.bytes_done)} of ${bytes(job.bytes_total)}`);
  if (job.bytes_per_s) words.push(`${bytes(Math.round(job.bytes_per_s))}/s`);
  if (job.seconds_left !== null && job.seconds_left !== undefined) words.push(`${duration(job.seconds_left)} left`);
  return words.join(" · ");
}

const took = (job) => {
  const seconds = (job.finished_ms - job.started_ms) / 1000;
  return job.started_ms && seconds >= 1 ? `, took ${duration(seconds)}` : "";
};

export const all = () => [...jobs.values()].sort((a, b) => b.created_ms - a.created_ms);
export const active = () => all().filter(isActive);

/** Take a job's new state; tells the views, and returns the state before. */
export function take(job) {
  const before = jobs.get(job.id);
  jobs.set(job.id, { ...job, result: job.result ?? before?.result, taken: performance.now() });
  for (const follower of [...followers]) {
    if (follower.element.isConnected || follower.fresh) follower.update(job);
    else followers.delete(follower);
  }
  return before;
}

/** Call `update(job)` for each new state while `element` is on the page. */
export function follow(element, update) {
  const follower = { element, update, fresh: true };
  followers.add(follower);
  setTimeout(() => { follower.fresh = false; }, 60_000); // on a slow machine it is a while until the page is shown
  return element;
}

/** A job that was just requested: it is shown at once, if the stream did not bring a newer state already. */
export function started(job) {
  if (!jobs.has(job.id)) take(job);
  return job;
}

/** A job once it has ended, with its result. */
export function ended(job) {
  return new Promise((resolve) => {
    const follower = {
      element: document.body,
      update: async (now) => {
        if (now.id !== job.id || isActive(now)) return;
        followers.delete(follower);
        resolve(await get(`/jobs/${job.id}`));
      },
    };
    followers.add(follower);
    follower.update(jobs.get(job.id) ?? job);
  });
}

/** Check and repair the store, and show how that goes. */
export const repair = change(async () => {
  started(await post("/fsck", { repair: true }));
  location.hash = "#/jobs";
});

/** Take back a removal, by what it answered. */
export const restore = (model, { removed, pin }) => change(async () => {
  started(await post(modelPath(model, "/restore"), { removed, pin }));
});

export function undo(job) {
  if (!job.undo) return null;
  return change(async () => started(await call(job.undo.method, job.undo.path, job.undo.body ?? undefined)));
}

export function sentence(job) {
  const result = job.result ?? {};
  if (job.state === "failed") return `${titleOf(job)} failed: ${job.error?.detail ?? ""}`;
  if (job.state === "cancelled") return `${titleOf(job)} was cancelled. What was downloaded is kept.`;
  if (job.state === "paused") return `${titleOf(job)} is paused.`;
  switch (job.kind) {
    case "gc": return `Freed ${bytes(result.freed_bytes ?? 0)}.`;
    case "fsck": {
      const left = (result.repaired?.length ? result.remaining : result.problems) ?? [];
      if (left.length) return `The check found ${many(left.length, "problem")}.`;
      return result.repaired?.length ? "Everything is repaired." : "The check found no problem.";
    }
    case "fetch": return `${result.model ?? job.subject} ${result.version ?? ""} is in the store.`;
    case "restore": return `${result.model ?? job.subject} ${(result.versions ?? []).join(", ")} is in the store again.`;
    case "update-all": case "auto-update": return `${titleOf(job)}: ${outcomes(result)}.`;
    case "update": case "checkout": case "rollback":
      return result.version
        ? `${result.model} ${result.previous && result.previous !== result.version ? `${result.previous} → ` : ""}${result.version} is installed.`
        : `${titleOf(job)}: done.`;
    default: return `${titleOf(job)}: done.`;
  }
}

/** What a round or an update of several models did. */
export function outcomes(result) {
  const rows = result.results ?? result.models ?? [];
  return [["updated", "updated"], ["available", "with an update available"], ["failed", "failed"], ["stopped", "stopped until the next run"]]
    .map(([status, words]) => [rows.filter((row) => row.status === status).length, words]).filter(([number]) => number)
    .map(([number, words]) => `${many(number, "model")} ${words}`).join(", ") || result.postponed || "nothing to do";
}

/** One job: what it does, how far it is, and what can be done with it. */
export function jobView(first, { heading = "h2", removable = false } = {}) {
  const bar = h("progress", { max: 1, "aria-label": titleOf(first) });
  const text = h("p.job-line");
  const state = h("span");
  const buttons = h("div.buttons");
  const hint = h("p.hint");
  const notes = h("ul.notes");
  const element = h("article.job", { "data-job": first.id },
    h("div.job-head", null, h(`${heading}.job-title`, null, titleOf(first)), state),
    bar, text, hint, notes, buttons);
  let drawn = "";
  let current = first;
  const send = (what) => change(() => post(`/jobs/${first.id}/${what}`));
  const label = (what) => ({ "aria-label": `${what} ${titleOf(first).toLowerCase()}` });

  function update(job) {
    if (job.id !== first.id) return;
    current = job;
    element.dataset.state = job.state;
    const known = job.bytes_total > 0;
    bar.hidden = !isActive(job);
    if (known) bar.value = part(job);
    else if (job.state === "running") bar.removeAttribute("value");
    else bar.value = 0;
    text.replaceChildren(...(job.state === "done" ? [job.kind === "diff" ? "" : `${sentence(job).replace(/\.$/, "")} · `, when(job.finished_ms), took(job)] : [line(job)]));
    if (drawn === job.state) return;
    drawn = job.state;
    const kind = { failed: "security", done: "good", paused: "quiet", interrupted: "major" }[job.state] ?? "quiet";
    state.replaceChildren(badge(STATES[job.state], kind));
    hint.textContent = job.state === "failed" ? job.error?.hint ?? "" : "";
    hint.hidden = !hint.textContent;
    notes.hidden = !removable || !job.notes.length;
    notes.replaceChildren(...job.notes.slice(-4).map((note) => h("li", null, note)));
    const offered = [];
    if (["running", "queued"].includes(job.state)) offered.push(button("Pause", send("pause"), label("Pause")));
    if (["paused", "interrupted"].includes(job.state)) offered.push(button("Resume", send("resume"), label("Resume"), "primary"));
    if (["failed", "cancelled"].includes(job.state)) offered.push(button("Try again", send("resume"), label("Try again:")));
    if (isActive(job)) offered.push(button("Cancel", send("cancel"), label("Cancel")));
    if (job.undo && job.state === "done") offered.push(button("Undo", changing((event) => undo(current)?.(event)), label("Undo")));
    if (job.state === "done" && compared(job)) {
      const [model, old, to] = compared(job);
      offered.push(h("a.button", { href: link("models", model, { tab: "compare", old, new: to, run: 1 }), ...label("Show:") }, "Show"));
    }
    if (removable && !isActive(job)) {
      offered.push(button("Remove from the list", change(async () => {
        await call("DELETE", `/jobs/${job.id}`);
        jobs.delete(job.id);
        dispatchEvent(new Event("ystore:refresh"));
      }), label("Remove from the list:"), "quiet"));
    }
    buttons.replaceChildren(...offered);
  }
  update(jobs.get(first.id) ?? first);
  return follow(element, update);
}

/** A place that shows the unfinished jobs of a model, and is empty without. */
export function modelJobs(model, heading = "h3") {
  const element = h("div.model-jobs");
  const shown = new Map();
  const show = (job) => {
    const mine = job.model === model || (job.model === null && job.kind === "update-all");
    if (!mine || job.kind === "diff") return;
    if (isActive(job) && !shown.has(job.id)) {
      shown.set(job.id, jobView(job, { heading }));
      element.append(shown.get(job.id));
    } else if (!isActive(job) && shown.has(job.id)) {
      shown.get(job.id).remove();
      shown.delete(job.id);
    }
  };
  active().forEach(show);
  return follow(element, show);
}

/** The foot of each page: the jobs that are not finished; and the progress in the tab's title. */
export function activity(place, pageTitle) {
  const now = active().filter((job) => job.kind !== "diff");
  place.hidden = !now.length;
  const key = now.map((job) => job.id).join(" ");
  if (place.dataset.key !== key) {
    place.dataset.key = key;
    place.replaceChildren(...now.slice(0, 2).map((job) => compact(job)),
      ...(now.length > 2 ? [h("a", { href: link("jobs") }, `and ${now.length - 2} more`)] : []));
  }
  const first = now.find((job) => job.state === "running" && job.bytes_total);
  document.title = (first ? `${Math.floor(100 * part(first))} % · ` : "") + pageTitle + " – ystore";
}

function compact(first) {
  const bar = h("progress", { max: 1, "aria-label": `Progress: ${titleOf(first)}` });
  const text = h("span.job-line");
  const update = (job) => {
    if (job.id !== first.id) return;
    if (job.bytes_total) bar.value = part(job);
    else if (job.state === "running") bar.removeAttribute("value");
    text.textContent = line(job);
  };
  update(first);
  return follow(h("div.compact", null, h("a", { href: link("jobs") }, titleOf(first)), bar, text), update);
}

/** The page of all jobs. */
export async function page() {
  const asked = performance.now();
  const listed = await get("/jobs");
  const ids = new Set(listed.map((job) => job.id));
  for (const [id, job] of jobs) if (!ids.has(id) && job.taken < asked) jobs.delete(id); // removed in another tab
  for (const job of listed) {
    const known = jobs.get(job.id);
    if (!(known?.taken >= asked)) jobs.set(job.id, { ...known, ...job }); // else the stream brought a newer state meanwhile
  }
  const heading = h("h1");
  const empty = h("p.empty", null, "Downloads, updates and checks that you start appear here.");
  const list = h("div.stack", null, all().map((job) => jobView(job, { removable: true })));
  const summarise = () => {
    const running = active().length;
    heading.textContent = running ? `${running} ${running === 1 ? "job is" : "jobs are"} not finished` : "No job is running";
    empty.hidden = jobs.size > 0;
  };
  summarise();
  follow(list, (job) => {
    if (!list.querySelector(`[data-job="${job.id}"]`)) list.prepend(jobView(job, { removable: true }));
    summarise();
  });
  return {
    title: "Jobs",
    body: [heading, h("p.lead", null, "Jobs continue when this page is closed, and after a restart of the service."), list, empty],
    keep: true,
  };
}

