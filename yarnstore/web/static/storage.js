// What fills the disk, what can be freed, and whether all is sound.
import { Problem, get, link, post } from "./api.js";
import { agree, badge, button, bytes, change, facts, h, isReadOnly, many, s, when } from "./dom.js";
import { active, ended, isActive, jobView, started } from "./jobs.js";
import { squares } from "./squares.js";

const KINDS = {
  shared: "Shared by several versions", unused: "Used by no version", temporary: "Temporary files", trash: "Deleted, not yet freed",
  registries: "Cached registries", records: "Manifests, refs, logs and indexes",
};
const SHORT = { shared: "Shared", unused: "Unused", temporary: "Temporary", trash: "Deleted", registries: "Registries", records: "Records" };
const WHY = {
  installed: "installed", rollback: "previous version", pinned: "pinned", "in use": "open in a program", recent: "recently used",
  newest: "among the newest",
};
const ITEMS = { version: "Version", download: "Unfinished download", view: "Files of a deleted version", data: "Data", temporary: "Temporary files" };

// What was asked for last: it outlives a new drawing of the page.
let plan = null;
let check = null;

export async function page() {
  const usage = await get("/storage");
  return { title: "Storage", body: [
    h("h1", null, `${bytes(usage.total_bytes)} on the disk`),
    h("p.lead", null, `${bytes(usage.free_bytes)} are free; ${bytes(usage.reserve_bytes)} of that stay in reserve.`),
    usage.total_bytes ? picture(usage) : h("p.empty", null, "The store is empty."),
    table(usage), isReadOnly() ? null : [freeing(), checking()],
  ], ready: () => { showPlan(); showCheck(); } };
}

function tiles(usage) {
  const found = usage.models.flatMap((model, index) => model.versions.map((row) => ({
    bytes: row.own_bytes, hue: index % 6, name: model.model, text: `${row.version}${row.variant === "default" ? "" : ` ${row.variant}`}`,
    installed: row.installed,
  })));
  found.push(...usage.other.map((other) => ({ bytes: other.bytes, hue: other.kind === "shared" ? "shared" : "other", name: SHORT[other.kind] ?? other.kind, text: "" })));
  return found.filter((tile) => tile.bytes > 0).sort((a, b) => b.bytes - a.bytes);
}

function picture(usage) {
  const found = tiles(usage);
  const wide = innerWidth > 700;
  const [width, height] = wide ? [1000, 320] : [360, 360];
  const total = found.reduce((sum, tile) => sum + tile.bytes, 0) || 1;
  const drawing = s("svg.treemap", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `What fills the disk, by size: ${found.slice(0, 8).map((tile) => `${tile.name} ${tile.text} ${bytes(tile.bytes)}`).join("; ")}` });
  squares(found.map((tile) => tile.bytes / total), width, height).forEach((place, index) => {
    const tile = found[index];
    const group = s(`g.tile.hue-${tile.hue}`, null,
      s("title", null, `${tile.name} ${tile.text}: ${bytes(tile.bytes)}`),
      s("rect", { x: place.x + 1, y: place.y + 1, width: Math.max(0, place.width - 2), height: Math.max(0, place.height - 2), rx: 5 }));
    const lines = [tile.name, tile.text, bytes(tile.bytes)].filter(Boolean);
    const longest = Math.max(...lines.map((text) => text.length));
    if (place.width > longest * 7.6 + 20 && place.height > lines.length * 19 + 14) {
      lines.forEach((text, row) => group.append(s(`text${row === 0 ? ".tile-name" : ""}`, { x: place.x + 12, y: place.y + 24 + row * 19 }, text)));
    }
    drawing.append(group);
  });
  return h("figure.picture", null, drawing,
    h("figcaption", null, "Each area shows how much disk space would be free without that version. Space that versions share is a separate area."));
}

function table(usage) {
  const rows = usage.models.flatMap((model) => model.versions.map((row, index) => h("tr", null,
    h("th", { scope: "row" }, index ? h("span.again", null, model.model) : h("a", { href: link("models", model.model) }, model.model)),
    h("td", { "data-label": "Version" }, row.version, row.variant === "default" ? "" : ` ${row.variant}`, " ",
      row.installed ? badge("installed", "good") : null, row.pinned ? badge("pinned", "quiet") : null),
    h("td.number", { "data-label": "Own" }, bytes(row.own_bytes)),
    h("td.number", { "data-label": "Shared" }, bytes(row.shared_bytes)),
    h("td", { "data-label": "Last used" }, when(row.last_used_ms)),
    h("td", { "data-label": "Why it stays" }, WHY[row.reason_kept] ?? row.reason_kept ?? "can be freed"))));
  const others = usage.other.filter((other) => other.bytes).map((other) => h("tr", null,
    h("th", { scope: "row" }, KINDS[other.kind] ?? other.kind), h("td"), h("td.number", { "data-label": "Own" }, bytes(other.bytes)), h("td"), h("td"), h("td")));
  if (!rows.length && !others.length) return null;
  return h("details", { "data-key": "numbers", open: true }, h("summary", null, "By version"),
    h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Disk space by version" }, h("table.numbers.stacked", null,
      h("thead", null, h("tr", null, ["Model", "Version", "Own", "Shared", "Last used", "Why it stays"].map((text, index) =>
        h(`th${[2, 3].includes(index) ? ".number" : ""}`, { scope: "col" }, text)))),
      h("tbody", null, rows, others))));
}

const UNITS = { "": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12 };

/** The bytes that a text such as `20 GB` or `1.5T` means. */
function sizeOf(text) {
  const [, number, unit] = /^\s*(\d+(?:[.,]\d+)?)\s*([kmgt]?)b?\s*$/i.exec(text) ?? [];
  if (number === undefined) throw new Problem(`“${text}” is not a size.`, "usage", "Give a number and a unit, such as 500 MB or 20 GB.");
  return Math.round(Number(number.replace(",", ".")) * UNITS[unit.toLowerCase()]);
}

// --- freeing -------------------------------------------------------------------------------------

function freeing() {
  const keep = h("input", { id: "gc-keep", type: "number", min: "0", max: "1000", placeholder: "as set", inputmode: "numeric" });
  const days = h("input", { id: "gc-unused", type: "number", min: "0", max: "100000", step: "any", placeholder: "not limited", inputmode: "decimal" });
  const most = h("input", { id: "gc-size", placeholder: "such as 20 GB", autocomplete: "off", spellcheck: "false" });
  const form = h("form.inline", { onsubmit: change(async (event) => {
    event.preventDefault();
    plan = await post("/gc/plans", {
      ...(keep.value === "" ? {} : { keep: Number(keep.value) }),
      ...(days.value === "" ? {} : { unused_s: Number(days.value) * 86400 }),
      ...(most.value.trim() === "" ? {} : { max_size_bytes: sizeOf(most.value) }),
    });
    showPlan();
  }) },
  h("div.field.natural", null, h("label", { for: "gc-keep" }, "Versions to keep of each model"), keep),
  h("div.field.natural", null, h("label", { for: "gc-unused" }, "Days without use"), days),
  h("div.field.natural", null, h("label", { for: "gc-size" }, "Largest size of the store"), most),
  h("button", { type: "submit", id: "gc-make" }, "Show what can be freed"));
  const running = active().filter((job) => job.kind === "gc").map((job) => jobView(job, { heading: "h3" }));
  return h("section", { "aria-labelledby": "gc-title" }, h("h2", { id: "gc-title" }, "Free disk space"),
    h("p.hint", null, "Nothing is deleted before you have seen the list. Installed and pinned versions always stay. To reach a size, the least recently used versions go first."),
    form, running, h("div", { id: "gc-plan", "aria-live": "polite" }));
}

/** Show the plan that was asked for last; what had the focus in the one before keeps it, or the button that asks for another gets it. */
function showPlan() {
  const place = document.getElementById("gc-plan");
  if (!place) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.id : null;
  place.replaceChildren(...(plan ? [planView()] : []));
  if (focused === null) return;
  const again = focused && place.querySelector(`#${focused}`);
  (again || document.getElementById("gc-make")).focus({ preventScroll: true });
}

function items(list) {
  return h("ul.items", null, list.map((item) => h("li", null,
    h("span.item-what", null, badge(ITEMS[item.kind] ?? item.kind, "quiet"), " ", item.what),
    h("strong.number", null, bytes(item.bytes)),
    h("span.hint", null, item.why))));
}

function planView() {
  const now = plan;
  const drop = () => { plan = null; showPlan(); };
  if (!now.items.length) {
    return h("div.plan", null, h("h3", null, "Nothing can be freed"), h("p.hint", null, "All stored data is needed or recent."), kept(now));
  }
  return h("div.plan", null,
    h("h3", null, `${bytes(now.freed_bytes)} would be freed`), items(now.items), kept(now),
    h("div.buttons", null,
      button(`Free ${bytes(now.freed_bytes)}`, change(async () => {
        const yes = await agree(`Free ${bytes(now.freed_bytes)}?`, [
          h("p", null, `${many(now.items.length, "item")} will be deleted. This cannot be undone; published versions can be downloaded again.`),
          h("ul", null, now.items.slice(0, 12).map((item) => h("li", null, `${item.what} · ${bytes(item.bytes)}`)),
            now.items.length > 12 ? h("li", null, `and ${now.items.length - 12} more`) : null),
        ], `Free ${bytes(now.freed_bytes)}`);
        if (!yes) return;
        drop();
        started(await post(`/gc/plans/${now.id}/apply`));
      }), { id: "gc-apply" }, "danger"),
      button("Keep everything", drop)));
}

function kept(now) {
  if (!now.kept.length) return null;
  return h("details", { "data-key": "kept" }, h("summary", null, `${many(now.kept.length, "item")} stay${now.kept.length === 1 ? "s" : ""}, and why`), items(now.kept));
}

// --- checking ------------------------------------------------------------------------------------

function checking() {
  const start = (body) => change(async () => watch(started(await post("/fsck", body))));
  const running = active().find((job) => job.kind === "fsck");
  if (running && running.id !== check?.id) watch(running);
  return h("section", { "aria-labelledby": "fsck-title" }, h("h2", { id: "fsck-title" }, "Check the store"),
    h("p.hint", null, "A check reads every stored byte and compares it with its hash. A quick check does not read contents."),
    h("div.buttons", null, button("Check", start({}), { id: "fsck" }), button("Quick check", start({ quick: true })),
      button("Check and repair", start({ repair: true }))),
    h("div", { id: "fsck-result", "aria-live": "polite" }));
}

function watch(job) {
  check = job;
  showCheck();
  ended(job).then((now) => {
    if (check.id === now.id) check = now;
    showCheck();
  });
}

function showCheck() {
  if (!check) return;
  document.getElementById("fsck-result")?.replaceChildren(isActive(check) ? jobView(check, { heading: "h3" }) : checked(check));
}

function checked(job) {
  const result = job.result;
  if (!result) return h("p.fault", null, job.error?.detail ?? "The check did not finish.");
  const left = result.repaired.length ? result.remaining : result.problems;
  return h(`div.plan${left.length ? ".bad" : ".good"}`, null,
    h("h3", null, left.length ? many(left.length, "problem") : result.repaired.length ? "Everything is repaired" : "No problem found"),
    facts(["Checked", `${many(result.versions, "version")}, ${bytes(result.checked_bytes)}`], ["Time", `${result.seconds.toFixed(1)} s`]),
    result.repaired.length ? h("ul", null, result.repaired.map((text) => h("li", null, text))) : null,
    left.length ? h("ul", null, left.map((item) => h("li", null, `${item.where}: ${item.what}`,
      item.hurts.length ? h("span.hint", null, `affects ${item.hurts.join(", ")}`) : null))) : null);
}
