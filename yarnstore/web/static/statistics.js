// What operations cost and saved, how models are used, what failed.
import { get, link } from "./api.js";
import { bytes, count, duration, facts, h, share, when } from "./dom.js";

const SPANS = [["", "All"], ["7d", "7 days"], ["30d", "30 days"], ["365d", "1 year"]];
const NAMES = { fetch: "Download", checkout: "Install", update: "Update", rollback: "Roll back", gc: "Free disk space", fsck: "Check" };
const nameOf = (operation) => NAMES[operation] ?? operation;

export async function page(name, state) {
  const since = state.get("since") ?? "";
  const found = await get(`/stats${since ? `?${new URLSearchParams({ since })}` : ""}`);
  const counted = found.operations.length > 0;
  return { title: "Statistics", body: [
    h("h1", null, counted ? `${bytes(found.saved_bytes)} of downloads saved` : "Nothing is counted yet"),
    h("p.lead", null, counted ? ["Counted since ", when(found.first_ms), ". "] : "Downloads, updates and checks are counted here. ",
      "The numbers stay on this machine."),
    h("nav.tabs", { "aria-label": "Time" }, SPANS.map(([value, text]) =>
      h("a", { href: link("statistics", "", { since: value }), "aria-current": value === since ? "page" : null }, text))),
    counted ? saved(found) : null,
    table("Operations", ["Operation", "Count", "Failed", "Average time"], found.operations.map((row) =>
      [nameOf(row.operation), count(row.count), count(row.failed), row.count > row.failed ? spell(row.mean_seconds) : "–"])),
    table("Failures", ["Operation", "Count", "Error", "Last"], found.failures.map((row) =>
      [nameOf(row.operation), count(row.count), h("code", null, row.error), when(row.last_ms)])),
    table("Use of models", ["Model", "Uses", "Last used", "Updates", "Rollbacks", "Failed", "Downloaded"], found.models.map((row) =>
      [h("a", { href: link("models", row.model) }, row.model), count(row.uses), when(row.last_used_ms), count(row.updates), count(row.rollbacks), count(row.failed),
        row.size_bytes ? `${bytes(row.download_bytes)} of ${bytes(row.size_bytes)}` : "–"])),
  ] };
}

const spell = (seconds) => (seconds < 0.1 ? "under 0.1 s" : seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds));

function saved(found) {
  const part = found.size_bytes ? Math.min(1, found.download_bytes / found.size_bytes) : 0;
  return h("section.panel", { "aria-labelledby": "saved-title" }, h("h2", { id: "saved-title" }, "Downloads"),
    found.size_bytes ? h("div.amount", null,
      h("p", null, h("strong", null, bytes(found.download_bytes)), ` downloaded for ${bytes(found.size_bytes)} of models: ${share(part)}`),
      h("div.meter", { "aria-hidden": "true" }, h("span", { style: { width: `${Math.max(1, 100 * part)}%` } }))) : null,
    facts(["Already stored", bytes(found.dedupe_bytes)], ["Saved by deltas and compression", bytes(found.delta_bytes)]));
}

function table(title, names, rows) {
  if (!rows.length) return null;
  const id = `${title.toLowerCase().replaceAll(" ", "-")}-title`;
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title),
    h("div.scroll", { tabindex: "0", role: "region", "aria-label": `${title}, table` }, h("table.numbers.stacked", null,
      h("thead", null, h("tr", null, names.map((text, index) => h(`th${index ? ".number" : ""}`, { scope: "col" }, text)))),
      h("tbody", null, rows.map(([first, ...cells]) => h("tr", null, h("th", { scope: "row" }, first),
        cells.map((cell, index) => h("td.number", { "data-label": names[index + 1] }, cell))))))));
}
