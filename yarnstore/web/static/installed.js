// What is installed, and what can be done with it.
import { call, get, link, modelPath, post } from "./api.js";
import { act, agree, ask, badge, button, bytes, change, facts, h, many, say, when } from "./dom.js";
import { modelJobs, restore, started } from "./jobs.js";
import { available } from "./updates.js";

export async function page() {
  const [models, storage, updates] = await Promise.all([get("/models"), get("/storage"), get("/updates").catch(() => [])]);
  const waiting = new Map(updates.filter(available).map((item) => [item.model, item]));
  const stored = new Map(storage.models.map((model) => [model.model, model.versions.length]));
  const sizes = new Map(storage.models.flatMap((model) =>
    model.versions.map((row) => [`${model.model} ${row.version} ${row.variant}`, row])));
  return { title: "Installed", body: [
    h("h1", null, models.length ? `${many(models.length, "model")} installed` : "No model is installed"),
    h("p.lead", null, models.length
      ? [`${many(storage.models.reduce((sum, model) => sum + model.versions.length, 0), "version")} in the store, `,
        h("a", { href: link("storage") }, bytes(storage.total_bytes)), " on the disk."]
      : ["What you install appears here. ", h("a", { href: link("registry") }, "Browse the registries"), "."]),
    h("div.stack", null, models.map((item) => card(item, sizes.get(`${item.model} ${item.version} ${item.variant}`), stored.get(item.model), waiting.get(item.model)))),
  ] };
}

function card(item, size, stored, update) {
  // Without a registry and without another version in the store there is nothing to roll back to.
  const mayGoBack = item.standing?.published || stored > 1;
  const title = `model-${item.model}`;
  return h("article.card.installed", { "aria-labelledby": title, "data-model": item.model },
    h("div.card-head", null,
      h("h2", { id: title }, h("a", { href: link("models", item.model) }, item.model)),
      h("p.step", null, h("strong", null, item.version), item.variant === "default" ? "" : ` ${item.variant}`),
      item.pinned || item.pin ? badge(item.pin ? `pinned: ${item.pin}` : "pinned", "quiet") : null,
      item.standing?.yanked ? badge("withdrawn", "security") : item.standing?.deprecated ? badge("deprecated", "major") : null),
    facts(
      ["Size", bytes(item.size_bytes)],
      size && ["Only this version", bytes(size.own_bytes)],
      size && ["Shared with others", bytes(size.shared_bytes)],
      ["Installed", when(item.installed_ms)],
      ["Last used", when(item.last_used_ms)],
    ),
    modelJobs(item.model),
    h("div.buttons", null,
      update && button(`Update to ${update.wanted}`, change(async () => started(await post(modelPath(item.model, "/update")))),
        { "aria-label": `Update to ${update.wanted}: ${item.model}`, "data-key": `update-${item.model}` }, "primary"),
      button("Copy path", act(() => copyPath(item)), { "aria-label": `Copy path of ${item.model}`, "data-key": `path-${item.model}` }),
      h("a.button", { href: link("models", item.model), "aria-label": `History of ${item.model}` }, "History"),
      mayGoBack && button("Roll back", change(() => rollBack(item.model)), { "aria-label": `Roll back ${item.model}`, "data-key": `back-${item.model}` }),
      pinButton(item),
      h("span.apart", null, button("Remove", change(() => remove(item)), { "aria-label": `Remove ${item.model}`, "data-key": `remove-${item.model}` }, "danger"))));
}

async function copyPath(item) {
  const { path } = await get(modelPath(item.model, "/path"));
  try {
    await navigator.clipboard.writeText(path);
    say("The path is copied.");
  } catch {
    await ask(`The path of ${item.model}`, h("p.path", null, h("code", null, path)), [["Close", ""]]);
  }
}

function pinButton(item) {
  const pinned = item.pinned || item.pin;
  return button(pinned ? "Unpin" : "Pin", change(async () => {
    if (pinned) await call("DELETE", modelPath(item.model, "/pin", { spec: item.pin }));
    else await call("PUT", modelPath(item.model, "/pin"), {});
    say(pinned ? `${item.model} can be updated again.` : `${item.model} stays at ${item.version} until you unpin it.`);
    dispatchEvent(new Event("ystore:refresh"));
  }), { "aria-label": `${pinned ? "Unpin" : "Pin"} ${item.model}`, "data-key": `pin-${item.model}` });
}

/** Show what a rollback changes, and start it; `version` null: the one installed before. */
export async function rollBack(model, version = null) {
  const history = await get(modelPath(model, "/history"));
  const target = version ?? before(history);
  if (!target) {
    await ask(`No version to roll back to`, h("p", null, `No other version of ${model} was installed before.`), [["Close", ""]]);
    return;
  }
  const row = history.versions.find((each) => each.version === target);
  const yes = await agree(`Roll ${model} back to ${target}?`, [
    h("p", null, h("span.step", null, history.installed ?? "–", h("span.arrow", null, "→"), h("strong", null, target))),
    h("p", null, row?.in_store ? "It is in the store: nothing is downloaded." : `It is not in the store: up to ${bytes(row?.size_bytes)} are downloaded.`),
    lost(history, target),
  ], `Roll back to ${target}`, "primary");
  if (yes) started(await post(modelPath(model, "/rollback"), version ? { version } : {}));
}

function before(history) {
  const moves = history.moves.filter((move) => move.new === history.installed && move.old && move.operation !== "rollback");
  return moves.at(-1)?.old ?? null;
}

/** The changelogs of the versions between two, which a rollback takes back. */
function lost(history, target) {
  const names = history.versions.map((row) => row.version);
  const from = names.indexOf(history.installed);
  const to = names.indexOf(target);
  if (from < 0 || to <= from) return null;
  const crossed = history.versions.slice(from, to).filter((row) => row.changelog);
  if (!crossed.length) return null;
  return [h("p", null, "This undoes:"),
    h("ul.changes", null, crossed.map((row) => h("li", null, h("strong", null, row.version), ` ${row.changelog}`)))];
}

async function remove(item) {
  const history = await get(modelPath(item.model, "/history"));
  const stored = history.versions.filter((row) => row.in_store);
  const yes = await agree(`Remove ${item.model}?`, [
    h("p", null, `${many(stored.length, "version")} will be removed:`),
    h("ul", null, stored.map((row) => h("li", null, row.version, row.installed ? " (installed)" : "", ` · ${bytes(row.size_bytes)}`))),
    h("p", null, "The disk space is freed on the page Storage. Until then you can undo this, without a download."),
    stored.every((row) => row.published) ? null : h("p.hint", null, "No registry has all of these versions: once the disk space is freed, they are gone."),
  ], `Remove ${item.model}`);
  if (!yes) return;
  const gone = await call("DELETE", modelPath(item.model));
  say(`${item.model} is removed.`, { undo: restore(item.model, gone) });
  dispatchEvent(new Event("ystore:refresh"));
}
