// The first page: is everything current and verified, and if not, what to do.
import { get, link, modelPath, offerPath, post } from "./api.js";
import { agree, badge, button, bytes, change, coded, facts, h, many, say, stepBadge, when } from "./dom.js";
import { modelJobs, repair, started } from "./jobs.js";

export const available = (item) => item.wanted !== item.installed || item.wanted_variant;
const isLocal = (item) => !item.registry && !item.error && !item.latest;
const isSecurity = (item) => item.kind === "security" || item.changes.some((change) => change.security);

export async function page() {
  const updates = await get("/updates").catch(() => []);
  const overview = await get("/overview"); // which does not wait for a registry that was never read
  const waiting = updates.filter(available).sort((a, b) => isSecurity(b) - isSecurity(a));
  const others = updates.filter((item) => !available(item));
  const details = new Map(await Promise.all(waiting.map(async (item) => [
    item.model,
    await get(offerPath(item.model, "", { version: item.wanted, variant: item.wanted_variant })).catch(() => null),
  ])));
  return { title: "Updates", body: [
    answer(overview, waiting, others.filter((item) => item.across).length),
    waiting.length ? h("section.stack", { "aria-label": "Updates" }, waiting.map((item) => card(item, details.get(item.model)))) : null,
    others.length ? h("section", null,
      h("h2", null, waiting.length ? "Other models" : "Installed"),
      h("ul.rows", null, others.map(row))) : null,
  ] };
}

function answer(overview, waiting, majors) {
  const check = button("Check now", change(async () => {
    await get("/updates?refresh=true");
    say("The registries were checked.");
    dispatchEvent(new Event("ystore:refresh"));
  }), { id: "check" });
  const total = waiting.reduce((sum, item) => sum + (item.download_bytes ?? 0), 0);
  const all = waiting.length > 1 && button(`Update all (${bytes(total)})`, change(async () => {
    started(await post("/updates", { models: [] }));
  }), { id: "update-all" }, "primary");
  // What is wrong with a version that has an update is in the card of that update.
  const problems = overview.problems.filter((text) => !waiting.some((item) => overview.store.notices.includes(text) && text.startsWith(`${item.model} `)));
  const urgent = waiting.filter(isSecurity).length;
  const kind = problems.length || urgent ? "attention" : waiting.length || majors ? "news" : "well";
  const sentence = overview.answer === "empty" ? "No model is installed" : problems.length
    ? "Something needs attention" : waiting.length ? `${many(waiting.length, "model has", "models have")} an update`
      : majors ? `${many(majors, "model has", "models have")} a new major version` : "Everything is up to date";
  return h(`section.answer.${kind}`, { "aria-labelledby": "answer" },
    h("h1", { id: "answer" }, sentence),
    h("p.lead", null,
      overview.answer === "empty" ? [h("a", { href: link("registry") }, "Choose one from the registries"), "."] : [
        urgent ? `${many(urgent, "update")} ${urgent === 1 ? "fixes" : "fix"} a security problem. ` : "",
        waiting.length && majors ? `${many(majors, "more model has", "more models have")} a new major version. ` : "",
        `${many(overview.store.installed, "model")} installed`,
        overview.last_check_ms ? [", registries checked ", when(overview.last_check_ms)] : "",
        overview.last_fsck_ms ? [", store checked ", when(overview.last_fsck_ms)] : "", ".",
      ]),
    problems.length ? h("ul.problems", null, problems.map((text) => h("li", null, coded(text)))) : null,
    h("div.buttons", null,
      overview.store.damaged ? button("Check and repair", repair, { id: "repair" }, "primary") : null,
      all, overview.answer === "empty" ? null : check));
}

function download(item) {
  if (item.download_bytes === null) return h("p.amount", null, h("strong", null, "Download size unknown"));
  const size = item.size_bytes ?? item.download_bytes;
  const part = size ? Math.min(1, item.download_bytes / size) : 0;
  return h("div.amount", null,
    h("p", null, h("strong", null, bytes(item.download_bytes)), item.size_bytes ? ` to download, of ${bytes(item.size_bytes)}` : " to download"),
    h("div.meter", { "aria-hidden": "true" }, h("span", { style: { width: `${Math.max(1, 100 * part)}%` } })));
}

function card(item, details) {
  const title = `update-${item.model}`;
  const name = `${item.model} ${item.wanted}`;
  return h("article.card", { "aria-labelledby": title, "data-model": item.model },
    h("div.card-head", null,
      h("h2", { id: title }, h("a", { href: link("models", item.model) }, item.model)),
      stepBadge(item.kind, isSecurity(item)), item.breaking ? badge("breaking", "major") : null,
      h("p.step", null, h("span", null, item.installed), h("span.arrow", { "aria-label": "to" }, "→"), h("strong", null, item.wanted),
        item.wanted_variant ? ` ${item.wanted_variant}` : "")),
    h("div.card-body", null,
      h("div", null, changelogs(item), item.note ? h("p.hint", null, item.note) : null),
      h("div.side", null, download(item))),
    needs(details),
    modelJobs(item.model),
    h("div.buttons", null,
      button("Update", change(async () => started(await post(modelPath(item.model, "/update")))),
        { "data-key": `go-${item.model}`, "aria-label": `Update ${name}` }, "primary"),
      h("a.button", { href: link("models", item.model, { old: item.installed, new: item.wanted }), "aria-label": `Compare ${item.model} ${item.installed} with ${item.wanted}` }, "Compare"),
      across(item)));
}

function needs(details) {
  if (!details) return null;
  return facts(
    ["Licence", details.license ?? "not stated"],
    ["Application", details.compatibility.join(", ") || "any version"],
    ["Memory", memory(details)],
  );
}

export function memory(details) {
  const { minimum_ram_gb: least, recommended_ram_gb: better } = details;
  if (least === null && better === null) return "not stated";
  return [least !== null && `at least ${least}\u00a0GB`, better !== null && `${better}\u00a0GB recommended`].filter(Boolean).join(", ");
}

function changelogs(item) {
  const changes = item.changes.length ? item.changes
    : [{ version: item.wanted, kind: item.kind, changelog: item.changelog, release_date: null, security: false, breaking: false }];
  return h("ol.changes", { "aria-label": `What changes from ${item.installed} to ${item.wanted}` }, changes.map((change) =>
    h("li", null,
      h("p.change-head", null, h("strong", null, change.version), stepBadge(change.kind, change.security),
        change.breaking ? badge("breaking", "major") : null,
        change.release_date ? h("span.quiet-text", null, when(change.release_date)) : null),
      h("p.changelog", null, change.changelog ?? "No changelog."))));
}

function across(item) {
  if (!item.across || item.across === item.wanted) return null;
  return button(`Update to ${item.across}`, change(async () => {
    const yes = await agree(`Update ${item.model} to ${item.across}?`, [
      h("p", null, `${item.across} is a major version: what works with ${item.installed} may not work with it.`),
      h("p", null, `${item.installed} stays in the store, so you can roll back.`),
    ], `Update to ${item.across}`, "primary");
    if (yes) started(await post(modelPath(item.model, "/update"), { major: true }));
  }), { "aria-label": `Update to ${item.across}, a major version of ${item.model}` });
}

function row(item) {
  return h("li.row", null,
    h("div.row-main", null,
      h("a", { href: link("models", item.model) }, item.model), " ", h("span.version", null, item.installed),
      item.pinned || item.pin ? badge(item.pin ? `pinned: ${item.pin}` : "pinned", "quiet") : null,
      item.standing?.yanked ? badge("withdrawn", "security") : item.standing?.deprecated ? badge("deprecated", "major") : null,
      h("p.hint", null, item.obstacle === "major" && item.across ? `${item.across} is a new major version.` : isLocal(item) ? "Only on this machine: no registry lists this model." : item.note ?? "Up to date.")),
    modelJobs(item.model),
    h("div.buttons", null, across(item)));
}
