// The frame of the dashboard: which page is shown, keys, theme, what happens in the background.
import { get, listen } from "./api.js";
import { ask, button, h, say, sayFault, setReadOnly } from "./dom.js";
import * as jobs from "./jobs.js";

const PAGES = {
  updates: () => import("./updates.js"),
  installed: () => import("./installed.js"),
  registry: () => import("./registry.js"),
  models: () => import("./model.js"),
  storage: () => import("./storage.js"),
  settings: () => import("./settings.js"),
  statistics: () => import("./statistics.js"),
  jobs: async () => jobs,
};
const main = document.getElementById("main");
const bar = document.getElementById("activity");
let pageTitle = "Updates";
let shown = null;
let drawing = 0;
let pressed = false;
addEventListener("pointerdown", (event) => { pressed = event.button === 0; }, true);
for (const name of ["pointerup", "pointercancel", "blur"]) addEventListener(name, () => setTimeout(() => { pressed = false; }), true);
// What a person typed and did not save yet outlives a new drawing; `act` in dom.js ends it.
main.addEventListener("input", (event) => { event.target.dataset.edited = ""; });

// --- which page ----------------------------------------------------------------------------------

/** The name in an address, which a person may have typed. */
function decoded(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function where() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, name = ""] = path.split("/");
  return { page: PAGES[page] ? page : "updates", name: decoded(name), state: new URLSearchParams(query) };
}

// Codes of a damaged store; the page with the checks may be one of those that cannot be shown.
const DAMAGE = ["integrity", "bad-format"];

const keyOf = (element) => element?.id || element?.dataset?.key || "";

// Whether the service refuses changes, before the first page is drawn.
const mode = get("/overview").catch(() => null).then((overview) => {
  setReadOnly(Boolean(overview?.read_only));
  document.getElementById("read-only").hidden = !overview?.read_only;
});

/** What a page shows, or why it cannot. */
async function made(at) {
  await mode;
  try {
    return await (await PAGES[at.page]()).page(at.name, at.state);
  } catch (error) {
    return { title: "Problem", body: [
      h("h1", null, "This page cannot be shown"),
      h("p.lead", null, error.message),
      error.hint ? h("p.hint", null, error.hint) : null,
      h("div.buttons", null,
        DAMAGE.includes(error.code) ? button("Check and repair", jobs.repair, {}, "primary") : null,
        button("Try again", () => draw({ moved: true }))),
    ] };
  }
}

/** Draw the page: another one if `moved`, else the same with what changed, at once if a person `asked` for that. */
async function draw({ moved = false, asked = moved } = {}) {
  const turn = ++drawing;
  const at = where();
  if (moved) main.setAttribute("aria-busy", "true");
  for (const entry of document.querySelectorAll("#nav a")) {
    const mine = entry.hash === `#/${at.page}` || (at.page === "models" && entry.hash === "#/installed");
    if (mine) entry.setAttribute("aria-current", "page");
    else entry.removeAttribute("aria-current");
  }
  let page = await made(at);
  while (!asked && turn === drawing && busy()) {
    while (busy()) await new Promise((resolve) => setTimeout(resolve, 50));
    page = await made(at);
  }
  if (turn !== drawing) return;
  const focused = main.contains(document.activeElement) ? keyOf(document.activeElement) : "";
  const edited = moved ? [] : [...main.querySelectorAll("[data-edited][id]")];
  const folded = new Map([...main.querySelectorAll("details[data-key]")].map((each) => [each.dataset.key, each.open]));
  const top = scrollY;
  pageTitle = page.title;
  main.replaceChildren(...[page.body].flat(Infinity).filter(Boolean));
  for (const old of edited) {
    const field = document.getElementById(old.id);
    if (!field) continue;
    field.dataset.edited = "";
    if (["checkbox", "radio"].includes(old.type)) field.checked = old.checked;
    else field.value = old.value;
  }
  main.dataset.page = at.page;
  main.dataset.place = location.hash;
  main.removeAttribute("aria-busy");
  shown = page;
  if (moved) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
    page.ready?.();
  } else {
    page.ready?.(); // before what had the focus is looked for: it may be part of it
    for (const each of main.querySelectorAll("details[data-key]")) {
      if (folded.has(each.dataset.key)) each.open = folded.get(each.dataset.key);
    }
    scrollTo(0, top);
    // What had the focus may be gone, such as the button of a removed model.
    if (focused) ([...main.querySelectorAll("[id], [data-key]")].find((each) => keyOf(each) === focused) ?? main).focus({ preventScroll: true });
  }
  jobs.activity(bar, pageTitle);
}

/** Whether a person would lose something if the page were drawn again now: a click, a dialog, a place in a text. */
const busy = () => pressed || document.querySelector("dialog[open]")
  || (main.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox], [type=radio]), textarea, select"));

/** Draw the page again with what changed in the background. */
let waiting = 0;
function refresh() {
  if (shown?.keep) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => draw(), 250);
}

addEventListener("hashchange", () => draw({ moved: true }));
addEventListener("ystore:refresh", () => draw({ asked: true }));

// --- what happens in the background --------------------------------------------------------------

let lost = false;
listen(
  (job) => {
    const before = jobs.take(job);
    const finished = before && jobs.isActive(before) && !jobs.isActive(job);
    if (finished || (!before && job.finished_ms > performance.timeOrigin)) {
      if (job.kind !== "diff") {
        const back = job.state === "done" ? jobs.undo(job) : null;
        say(jobs.sentence(job), { undo: back, fault: job.state === "failed" });
      }
      refresh();
    }
    jobs.activity(bar, pageTitle);
  },
  refresh,
  (connected) => {
    if (!connected && !lost) say("The connection to the service was lost. Trying to connect again.", { fault: true });
    if (connected && lost) {
      say("Connected to the service again.");
      refresh();
    }
    lost = !connected;
  },
);

// --- keys ----------------------------------------------------------------------------------------

const single = () => localStorage.getItem("ystore-keys") !== "off";

function showKeys() {
  const choice = h("input", { type: "checkbox", id: "single-keys", checked: single() });
  choice.addEventListener("change", () => localStorage.setItem("ystore-keys", choice.checked ? "on" : "off"));
  ask("Keys", [
    h("dl.keys", null, [
      ["/", "Search the registries"], ["?", "Show these keys"], ["Esc", "Close a dialog or a message; leave a field"],
      ["1 to 7", "Updates, Installed, Registry, Storage, Jobs, Settings, Statistics"],
      ["Tab, Enter", "Move to the next control; use it"],
      ["Arrow keys", "Move in the picture of tensors"],
    ].map(([key, text]) => h("div", null, h("dt", null, h("kbd", null, key)), h("dd", null, text)))),
    h("p", null, choice, " ", h("label", { for: "single-keys" }, "Use single keys (/, ?, 1 to 7)")),
  ], [["Close", "", "primary"]]);
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target instanceof Element && event.target.matches("input, textarea, select");
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (field) event.target.blur();
    document.getElementById("said").replaceChildren();
    return;
  }
  if (field || !single() || document.querySelector("dialog[open]")) return;
  if (event.key === "/") {
    event.preventDefault();
    const search = document.getElementById("search");
    if (search) search.focus();
    else location.hash = "#/registry?focus=search";
  } else if (event.key === "?") {
    event.preventDefault();
    showKeys();
  } else if (/^[1-7]$/.test(event.key)) {
    location.hash = document.querySelectorAll("#nav a")[event.key - 1].hash;
  }
});
document.getElementById("keys").addEventListener("click", showKeys);

// --- theme ---------------------------------------------------------------------------------------

const themes = ["system", "light", "dark"];
const toggle = document.getElementById("theme");
function setTheme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  toggle.textContent = `Theme: ${name}`;
  localStorage.setItem("ystore-theme", name);
}
setTheme(themes.includes(localStorage.getItem("ystore-theme")) ? localStorage.getItem("ystore-theme") : "system");
toggle.addEventListener("click", () => {
  const now = localStorage.getItem("ystore-theme");
  setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
});

draw({ moved: false }).catch(sayFault);
