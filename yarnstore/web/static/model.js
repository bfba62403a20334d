// One model: its history, the comparison of two versions, its files and its text.
import { call, get, link, modelPath, offerPath, post } from "./api.js";
import { agree, badge, button, bytes, change, facts, h, many, parameters, say, stepBadge, when } from "./dom.js";
import { comparison } from "./compare.js";
import { rollBack } from "./installed.js";
import { modelJobs, restore, started } from "./jobs.js";
import { memory } from "./updates.js";

export async function page(model, state) {
  const [found, offered] = await Promise.all([get(modelPath(model)), get(offerPath(model)).catch(() => null)]);
  const { installed, history } = found;
  const details = offered ?? found.details;
  const tab = state.get("tab") ?? (state.has("old") ? "compare" : installed ? "history" : "about");
  const tabs = [["history", "History"], ["compare", "Compare"], ["about", "About"]];
  const body = { history: () => versions(model, history, details), compare: () => comparison(model, history, state), about: () => about(model, installed, details) };
  return { title: model, body: [
    h("header.model-head", null,
      h("h1", null, model),
      h("p.lead", null, details?.description ?? details?.name ?? ""),
      h("p.badges", null,
        installed ? badge(`${installed.version} installed`, "good") : badge("not installed", "quiet"),
        installed?.variant && installed.variant !== "default" ? badge(installed.variant, "quiet") : null,
        installed?.pinned || installed?.pin ? badge(installed.pin ? `pinned: ${installed.pin}` : "pinned", "quiet") : null,
        details?.category ? badge(details.category, "quiet") : null,
        (details?.tags ?? []).map((tag) => badge(tag, "quiet")))),
    modelJobs(model, "h2"),
    h("nav.tabs", { "aria-label": `About ${model}` }, tabs.map(([key, text]) =>
      h("a", { href: link("models", model, { tab: key }), "aria-current": key === tab ? "page" : null }, text))),
    await (body[tab] ?? body.history)(),
  ], keep: tab === "compare" };
}

// --- history -------------------------------------------------------------------------------------

function versions(model, history, details) {
  const named = new Map();
  for (const [name, version] of Object.entries(details?.aliases ?? {})) named.set(version, [...(named.get(version) ?? []), name]);
  return h("div.columns", null,
    h("section", { "aria-labelledby": "versions-title" },
      h("h2", { id: "versions-title" }, "Versions"),
      history.versions.length ? h("ol.timeline", null, history.versions.map((row) => version(model, history, row, named.get(row.version) ?? [])))
        : h("p.empty", null, "No version is stored or published.")),
    h("section", { "aria-labelledby": "moves-title" },
      h("h2", { id: "moves-title" }, "Changes on this machine"),
      history.moves.length ? h("ol.moves", null, [...history.moves].reverse().slice(0, 50).map(move))
        : h("p.empty", null, "No version has been installed yet.")));
}

const WORDS = { checkout: "installed", update: "updated", import: "imported", remove: "removed", rollback: "rolled back", "self-check": "refused by its self-check" };

function move(item) {
  return h("li", null, h("span.quiet-text", null, when(item.time_ms)), h("strong", null, WORDS[item.operation] ?? item.operation),
    h("span.step", null, item.old ?? "–", h("span.arrow", { "aria-label": "to" }, "→"), item.new ?? "–"));
}

function version(model, history, row, aliases) {
  const names = [...new Set([...aliases, ...(row.latest ? ["latest"] : [])])];
  const label = `${row.version}${row.variant === "default" ? "" : ` ${row.variant}`}`;
  const installed = history.versions.findIndex((each) => each.installed);
  const older = installed >= 0 && history.versions.indexOf(row) > installed;
  const offer = row.installed ? null : older && row.variant === history.versions[installed].variant
    ? button("Roll back", change(() => rollBack(model, row.version)), { "aria-label": `Roll back to ${label}`, "data-key": `to-${label}` })
    : button("Install", change(() => install(model, history, row)), { "aria-label": `Install ${label}`, "data-key": `to-${label}` }, row.latest ? "primary" : "");
  return h(`li${row.installed ? ".now" : ""}${row.in_store ? ".here" : ""}`, null,
    h("div.version-head", null,
      h("h3", null, row.version, row.variant === "default" ? "" : h("span.variant", null, ` ${row.variant}`)),
      row.installed ? badge("installed", "good") : null,
      names.map((name) => badge(name, "alias")),
      stepBadge(row.type, row.security),
      row.yanked ? badge("withdrawn", "security") : row.deprecated ? badge("deprecated", "major") : null,
      row.pinned ? badge("pinned", "quiet") : null),
    h("p.changelog", null, row.changelog ?? (row.published ? "No changelog." : "Only on this machine: no registry lists it.")),
    row.deprecated && (row.deprecated_reason || row.replaced_by)
      ? h("p.hint", null, [row.deprecated_reason, row.replaced_by && `use ${row.replaced_by}`].filter(Boolean).join("; ")) : null,
    h("p.hint", null, row.release_date ? ["published ", when(row.release_date), " · "] : "",
      bytes(row.size_bytes), row.in_store ? " · in the store" : " · not downloaded"),
    h("div.buttons", null, offer,
      history.installed && !row.installed
        ? h("a.button", { href: link("models", model, { old: history.installed, new: row.version }), "aria-label": `Compare ${history.installed} with ${label}` }, "Compare") : null,
      row.in_store || row.installed ? null
        : button("Download only", change(async () => started(await post(modelPath(model, "/fetch"), { version: row.version, variant: row.variant }))),
          { "aria-label": `Download only: ${label}`, "data-key": `get-${label}` }),
      row.in_store ? pinButton(model, row, label) : null,
      row.in_store && !row.installed && !row.pinned
        ? h("span.apart", null, button("Remove", change(() => removeVersion(model, row, label)), { "aria-label": `Remove ${label}`, "data-key": `remove-${label}` }, "danger")) : null));
}

const again = () => dispatchEvent(new Event("ystore:refresh"));

function pinButton(model, row, label) {
  const spec = `:${row.variant}@${row.version}`;
  return button(row.pinned ? "Unpin" : "Pin", change(async () => {
    if (row.pinned) await call("DELETE", modelPath(model, "/pin", { spec }));
    else await call("PUT", modelPath(model, "/pin"), { spec });
    say(row.pinned ? `${label} is no longer pinned.` : `${label} is pinned: ${row.installed ? "it is not updated, and " : ""}its data is kept until you unpin it.`);
    again();
  }), { "aria-label": `${row.pinned ? "Unpin" : "Pin"} ${label}`, "data-key": `pin-${label}` });
}

/** Remove one version, once what goes is confirmed. */
async function removeVersion(model, row, label) {
  const { version, variant } = row;
  const usage = await get("/storage");
  const size = usage.models.find((each) => each.model === model)?.versions.find((each) => each.version === version && each.variant === variant);
  const yes = await agree(`Remove ${model} ${label}?`, [
    size ? facts(["Only this version", bytes(size.own_bytes)], ["Shared with others, stays", bytes(size.shared_bytes)], ["Last used", when(size.last_used_ms)]) : null,
    h("p", null, "The disk space is freed on the page Storage. Until then you can undo this, without a download."),
    row.published ? null : h("p.hint", null, "No registry has this version: once the disk space is freed, it is gone."),
  ], `Remove ${label}`);
  if (!yes) return;
  const gone = await call("DELETE", modelPath(model, `/versions/${encodeURIComponent(version)}`, { variant }));
  say(`${model} ${label} is removed.`, { undo: restore(model, gone) });
  again();
}

async function install(model, history, row) {
  const details = await get(offerPath(model, "", { version: row.version, variant: row.variant })).catch(() => null);
  const yes = await agree(`Install ${model} ${row.version}?`, [
    h("p.changelog", null, row.changelog ?? "No changelog."),
    h("p", null, row.in_store ? "It is in the store: nothing is downloaded." : `Up to ${bytes(row.size_bytes)} are downloaded; what the store already has is not.`),
    details ? facts(["Licence", details.license ?? "not stated"], ["Application", details.compatibility.join(", ") || "any version"], ["Needs", details.requires.join(", ") || "no other model"], ["Memory", memory(details)]) : null,
    history.installed ? h("p.hint", null, `${history.installed} stays in the store, so you can roll back.`) : null,
  ], `Install ${row.version}`, "primary");
  if (yes) started(await post(modelPath(model, "/checkout"), { version: row.version, variant: row.variant }));
}

// --- about ---------------------------------------------------------------------------------------

async function about(model, installed, details) {
  const which = installed ? { version: installed.version, variant: installed.variant } : { version: details?.versions?.[0] };
  const [contents, readme] = await Promise.all([
    get(offerPath(model, "/contents", installed ? which : {})).catch(() => null),
    get(offerPath(model, "/readme", installed ? which : {})).catch(() => null),
  ]);
  const first = !installed && details ? h("div.buttons", null,
    button(`Install ${details.version}`, change(() => install(model, { installed: null }, {
      version: details.version, variant: details.variant, changelog: details.changelog, size_bytes: details.size_bytes, in_store: details.in_store,
    })), { id: "install" }, "primary")) : null;
  return h("div", null, first,
    details ? facts(
      ["Latest version", details.version], ["Size", bytes(details.size_bytes)],
      contents?.parameters ? ["Parameters", parameters(contents.parameters)] : null,
      ["Licence", details.license ?? "not stated"], ["Application", details.compatibility.join(", ") || "any version"], ["Needs", details.requires.join(", ") || "no other model"],
      ["Memory", memory(details)], ["Published", when(details.release_date, "not stated")],
      ["Registry", details.registry], details.variants.length > 1 ? ["Variants", details.variants.join(", ")] : null,
      details.homepage ? ["Home page", details.homepage] : null,
      ["SHA-256", details.checksum ? h("code.hash", null, details.checksum.replace(/^sha256:/, "")) : null]) : h("p.hint", null, "No registry lists this model."),
    contents ? files(contents) : h("p.hint", null, "Its files and tensors are shown once it is downloaded."),
    readme ? h("section", { "aria-labelledby": "readme-title" }, h("h2", { id: "readme-title" }, readme.path),
      h("div.readme", null, text(readme.text), readme.truncated ? h("p.hint", null, "The file is longer.") : null)) : null);
}

function files(contents) {
  return h("section", { "aria-labelledby": "files-title" }, h("h2", { id: "files-title" }, `Files of ${contents.label}`),
    h("ul.items", null, contents.files.map((file) => h("li", null,
      h("span.item-what", null, h("code", null, file.path), file.format ? [" ", badge(file.format, "quiet")] : null),
      h("strong.number", null, bytes(file.size_bytes)),
      file.tensors.length ? h("span.hint", null, `${many(file.tensors.length, "tensor")}, ${parameters(file.parameters)} parameters: ${file.types.map((type) => type.dtype).join(", ")}`) : null,
      (file.code ?? []).length ? h("span.hint.warn", null, "Runs code when it is loaded.") : null,
      file.tensors.length ? h("details", { "data-key": `tensors-${file.path}` }, h("summary", null, "Tensors"),
        h("div.scroll", { tabindex: "0", role: "region", "aria-label": `Tensors of ${file.path}` }, h("table.numbers", null,
          h("thead", null, h("tr", null, ["Name", "Type", "Shape", "Size"].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", null, file.tensors.slice(0, 1000).map((tensor) => h("tr", null,
            h("th", { scope: "row" }, h("code", null, tensor.name)), h("td", null, tensor.dtype), h("td", null, tensor.shape.join(" × ")), h("td.number", null, bytes(tensor.size_bytes)))))))) : null))));
}

/** Markdown in its plainest: headings, lists, code, paragraphs; no links, no images, no HTML. */
function text(source) {
  const found = [];
  let lines = [];
  let code = null;
  const end = () => {
    if (!lines.length) return;
    const list = lines.every((line) => /^\s*[-*] /.test(line));
    found.push(list ? h("ul", null, lines.map((line) => h("li", null, line.replace(/^\s*[-*] /, "")))) : h("p", null, lines.join(" ")));
    lines = [];
  };
  for (const line of source.replace(/^---\n[\s\S]*?\n---\n/, "").split("\n")) {
    if (line.startsWith("```")) {
      if (code === null) { end(); code = []; } else { found.push(h("pre", { tabindex: "0" }, h("code", null, code.join("\n")))); code = null; }
    } else if (code !== null) code.push(line);
    else if (/^#{1,6} /.test(line)) { end(); found.push(h(line.startsWith("# ") ? "h3" : "h4", null, line.replace(/^#+ /, ""))); }
    else if (!line.trim()) end();
    else lines.push(line.trim());
  }
  end();
  if (code !== null) found.push(h("pre", { tabindex: "0" }, h("code", null, code.join("\n"))));
  return found;
}
