// Auto-update and its windows, registries and their mirrors, network and retention.
import { call, get, modelPath, post } from "./api.js";
import { agree, ask, badge, button, bytes, change, coded, facts, h, many, say, when } from "./dom.js";
import { outcomes } from "./jobs.js";

const POLICIES = [
  ["notify", "Notify", "Updates are reported; you install them."],
  ["security", "Security", "Updates that fix a security problem are installed."],
  ["patch", "Patch", "Patch updates are installed: 1.2.0 to 1.2.1."],
  ["minor", "Minor", "Minor and patch updates are installed: 1.2.0 to 1.3.0, but no major updates."],
];
const TITLES = {
  app_version: "Application version", keep: "Newest versions to keep", keep_within: "Keep versions used within",
  path_grace: "Keep files after their path was used", rollback: "Rollback", keep_copy: "Second copies", reserve: "Disk space to keep free", limit_rate: "Download rate limit", connections: "Connections per download",
  offline: "Work offline",
  notifications: "Notify on the desktop",
};
const EXAMPLES = { app_version: "1.5.0", keep: "3", keep_within: "30d", path_grace: "1d", reserve: "5%", limit_rate: "5M", connections: "8" };
const CHOICES = {
  rollback: { instant: "Instant", thin: "Thin: takes less disk space" },
  keep_copy: { imports: "Of imports", always: "Of all versions", never: "None" },
};
const again = () => dispatchEvent(new Event("ystore:refresh"));

export async function page() {
  const [auto, registries, settings, jobs] = await Promise.all([get("/auto-update"), get("/registries"), get("/settings"), get("/jobs")]);
  const last = jobs.find((job) => job.kind === "auto-update" && job.finished_ms);
  const round = last ? await get(`/jobs/${last.id}`).catch(() => last) : null;
  return { title: "Settings", body: [h("h1", null, "Settings"), updating(auto, round), sources(registries), others(settings)], ready: () => meanings(settings) };
}

// --- auto-update ---------------------------------------------------------------------------------

function updating({ status, next_round: next }, round) {
  const on = h("input", { type: "checkbox", role: "switch", id: "auto-on", checked: status.enabled });
  const windows = h("textarea", { id: "windows", rows: "3", spellcheck: "false", "aria-describedby": "windows-hint", value: status.windows.join("\n") });
  const jitter = h("input", { id: "jitter", value: short(status.jitter_s), "aria-describedby": "jitter-hint" });
  const choice = () => document.querySelector("input[name=policy]:checked")?.value;
  const own = status.models.filter((rule) => rule.own);
  const save = change(async (event) => {
    event.preventDefault();
    const page = await call("PUT", "/auto-update", {
      enabled: on.checked, policy: choice(), windows: lines(windows),
      ...(jitter.value.trim() ? { jitter: jitter.value.trim() } : {}),
    });
    say(`Saved. ${page.next_round.sentence}`);
    again();
  });
  return h("section.panel", { "aria-labelledby": "auto-title" }, h("h2", { id: "auto-title" }, "Auto-update"),
    h("p.next", { id: "next-round" }, next.sentence),
    h("form", { onsubmit: save },
      h("p.switch", null, on, h("label", { for: "auto-on" }, "Check for updates automatically")),
      h("fieldset", null, h("legend", null, "When an update is found"), POLICIES.map(([value, name, meaning]) =>
        h("p.choice", null, h("input", { type: "radio", name: "policy", id: `policy-${value}`, value, checked: status.policy === value }),
          h("label", { for: `policy-${value}` }, h("strong", null, name), ` ${meaning}`)))),
      h("div.field", null, h("label", { for: "windows" }, "Maintenance windows"), windows,
        h("p.hint", { id: "windows-hint" }, `One per line, such as Sat,Sun 02:00-05:00. Empty: at any time. Time zone: ${status.timezone || "that of this machine"}.`)),
      h("div.field", null, h("label", { for: "jitter" }, "Longest random delay"), jitter,
        h("p.hint", { id: "jitter-hint" }, "Such as 30m, so that many machines do not check at the same time.")),
      h("div.buttons", null, h("button.primary", { type: "submit", id: "save-auto" }, "Save auto-update"))),
    own.length ? [h("h3", null, "Models with their own rules"), h("ul.items", { id: "own-rules" }, own.map(ownRule))] : null,
    rules(status.models),
    h("p.hint", { id: "last-round" }, lastRound(round), " Last check for updates: ", when(status.last_check), "."));
}

function ownRule(rule) {
  return h("li", null, h("span.item-what", null, rule.model), h("strong", null, rule.enabled ? rule.policy : "off"),
    h("span.hint", null, rule.windows.join("; ") || "at any time"),
    h("div.buttons", null, button("Remove the rule", change(async () => {
      const { model, enabled, policy, windows } = rule;
      await call("DELETE", `/auto-update${modelPath(model)}`);
      say(`${model} follows the settings above.`, { undo: change(async () => {
        await call("PUT", "/auto-update", { models: [model], enabled, policy, windows });
        again();
      }) });
      again();
    }), { "aria-label": `Remove the rule of ${rule.model}`, "data-key": `rule-${rule.model}` }, "quiet")));
}

/** What the last automatic check of this service did. */
function lastRound(job) {
  if (!job) return "This service has run no automatic check yet.";
  if (job.state !== "done") return ["The last automatic check ", when(job.finished_ms), ` did not finish: ${job.error?.detail ?? job.state}.`];
  return ["The last automatic check was ", when(job.finished_ms), ": ", outcomes(job.result ?? {}), "."];
}

// The model whose rule the form shows: it outlives a new drawing.
let ruled = "";

/** A form for the rule of a single model. */
function rules(models) {
  if (!models.length) return null;
  const ruleOf = (model) => models.find((rule) => rule.model === model) ?? models[0];
  const first = ruleOf(ruled);
  const which = h("select", { id: "rule-model" }, models.map((rule) => h("option", { value: rule.model, selected: rule === first }, rule.model)));
  const policy = h("select", { id: "rule-policy" }, [["off", "Do not check"], ...POLICIES.map(([value, name]) => [value, name])].map(([value, name]) => h("option", { value }, name)));
  const windows = h("textarea", { id: "rule-windows", rows: "2", spellcheck: "false", "aria-describedby": "rule-hint" });
  const show = (rule) => {
    policy.value = rule.enabled ? rule.policy : "off";
    windows.value = rule.windows.join("\n");
    for (const field of [policy, windows]) delete field.dataset.edited;
  };
  show(first);
  which.addEventListener("change", () => {
    ruled = which.value;
    show(ruleOf(ruled));
  });
  return h("details", { "data-key": "rules" }, h("summary", null, "Change the rule of one model"),
    h("form", { onsubmit: change(async (event) => {
      event.preventDefault();
      const on = policy.value !== "off";
      await call("PUT", "/auto-update", {
        enabled: on, models: [which.value], windows: lines(windows), ...(on ? { policy: policy.value } : {}),
      });
      say(`Saved the rule of ${which.value}.`);
      again();
    }) },
    h("div.field", null, h("label", { for: "rule-model" }, "Model"), which),
    h("div.field", null, h("label", { for: "rule-policy" }, "When an update of this model is found"), policy),
    h("div.field", null, h("label", { for: "rule-windows" }, "Maintenance windows of this model"), windows,
      h("p.hint", { id: "rule-hint" }, "One per line. Empty: at any time.")),
    h("div.buttons", null, h("button", { type: "submit", id: "save-rule" }, "Save the rule"))));
}

const lines = (area) => area.value.split("\n").map((line) => line.trim()).filter(Boolean);

function short(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["m", 60]]) {
    if (seconds >= size && seconds % size === 0) return `${seconds / size}${unit}`;
  }
  return `${Math.round(seconds)}s`;
}

// --- registries ----------------------------------------------------------------------------------

const FAULTS = { lied: "served corrupt data", stalled: "stalled", unreachable: "not reachable" };

function sources(registries) {
  const name = h("input", { id: "registry-name", required: true, autocomplete: "off", spellcheck: "false" });
  const url = h("input", { id: "registry-url", type: "url", required: true, placeholder: "https://models.example.org/", autocomplete: "off" });
  return h("section.panel", { "aria-labelledby": "registries-title" }, h("h2", { id: "registries-title" }, "Registries and mirrors"),
    registries.length ? h("ul.registries", null, registries.map(source)) : h("p.empty", null, "No registry is configured."),
    h("form.inline", { onsubmit: change(async (event) => {
      event.preventDefault();
      const added = await post("/registries", { name: name.value.trim(), url: url.value.trim() });
      say(`${added.name} is added: ${many(added.models, "model")}.`);
      again();
    }) },
    h("div.field", null, h("label", { for: "registry-name" }, "Name"), name),
    h("div.field.wide", null, h("label", { for: "registry-url" }, "Address"), url),
    h("button", { type: "submit" }, "Add a registry")));
}

function source(info) {
  const others = info.mirrors.filter((mirror) => mirror.url !== info.url || mirror.fault);
  return h("li", null,
    h("div.card-head", null, h("h3", null, info.name), info.error ? badge("problem", "security") : badge("works", "good")),
    facts(["Address", h("code", null, info.url)], info.split ? null : ["Models", `${many(info.models, "model")}, ${many(info.versions, "version")}`],
      ["Last checked", when(info.fetched_ms)], ["Last changed", when(info.last_updated, "not stated")]),
    info.error ? h("p.fault", null, info.error) : null,
    others.length ? h("ul.mirrors", null, others.map((mirror) => h("li", null,
      mirror.url === info.url ? "" : mirror.configured ? "Mirror " : "Mirror, named by the registry ", h("code", null, mirror.url), " ", badge(mirror.fault ? FAULTS[mirror.fault] ?? mirror.fault : "works", mirror.fault ? "security" : "good"),
      mirror.fault ? h("span.hint", null, `${mirror.why ?? ""} · `, when(mirror.at_ms), ` · ${many(mirror.count, "time")}`) : null))) : null,
    h("div.buttons", null,
      button("Check now", change(async () => {
        await post(`/registries/${encodeURIComponent(info.name)}/refresh`);
        say(`${info.name} was checked.`);
        again();
      }), { "aria-label": `Check now: ${info.name}`, "data-key": `ask-${info.name}` }),
      button("Mirrors", change(() => editMirrors(info)), { "aria-label": `Mirrors of ${info.name}`, "aria-haspopup": "dialog", "data-key": `mirrors-${info.name}` }),
      h("span.apart", null, button("Remove", change(async () => {
        const yes = await agree(`Remove the registry ${info.name}?`, [
          h("p", null, `${info.url} is no longer checked for updates.`), h("p", null, "Installed models from this registry stay. You can undo this."),
        ], "Remove the registry");
        if (!yes) return;
        await call("DELETE", `/registries/${encodeURIComponent(info.name)}`);
        const mirrors = info.mirrors.filter((mirror) => mirror.configured).map((mirror) => mirror.url);
        say(`${info.name} is removed.`, { undo: /^https?:/.test(info.url) ? change(async () => {
          await post("/registries", { name: info.name, url: info.url });
          if (mirrors.length) await call("PUT", `/registries/${encodeURIComponent(info.name)}/mirrors`, { mirrors });
          again();
        }) : null });
        again();
      }), { "aria-label": `Remove the registry ${info.name}`, "data-key": `drop-${info.name}` }, "danger"))));
}

/** Change the addresses that are tried after the registry's own. */
async function editMirrors(info) {
  const before = info.mirrors.filter((mirror) => mirror.configured).map((mirror) => mirror.url);
  const area = h("textarea", { id: "mirrors", rows: "4", spellcheck: "false", "aria-describedby": "mirrors-hint dialog-fault", value: before.join("\n") });
  const put = (mirrors) => call("PUT", `/registries/${encodeURIComponent(info.name)}/mirrors`, { mirrors });
  const answer = await ask(`Mirrors of ${info.name}`, [
    h("div.field", null, h("label", { for: "mirrors" }, "Addresses, one per line"), area,
      h("p.hint", { id: "mirrors-hint" }, "Other addresses of the same registry, https:// or http://, in the order in which they are tried. They are trusted as much as its own address.")),
  ], [["Cancel", ""], ["Save the mirrors", "yes", "primary", () => put(lines(area))]]);
  if (answer !== "yes") return;
  say(`The mirrors of ${info.name} are saved.`, { undo: change(async () => { await put(before); again(); }) });
  again();
}

// --- the rest ------------------------------------------------------------------------------------

function others(settings) {
  return h("section.panel", { "aria-labelledby": "settings-title" }, h("h2", { id: "settings-title" }, "Network, disk and application"),
    h("div.settings", null, settings.map(setting)));
}

function setting(info) {
  const id = `set-${info.name}`;
  const title = TITLES[info.name] ?? info.name;
  const save = async (value) => {
    await call("PATCH", "/settings", { [info.name]: value });
    say(`${title}: saved.`);
    again();
  };
  const source = info.source === "default" ? "" : info.source === "managed.toml" ? " Set here." : ` Set by ${info.where ?? info.source}.`;
  const hint = h("p.hint", { id: `${id}-hint` }, coded(info.meaning), source, h("strong", { id: `${id}-now` }));
  const described = { "aria-describedby": `${id}-hint`, disabled: !info.editable };
  if (typeof info.value === "boolean") {
    const box = h("input", { type: "checkbox", role: "switch", id, checked: info.value, onchange: change(() => save(box.checked)), ...described });
    return h("div.setting", null, h("p.switch", null, box, h("label", { for: id }, title)), hint);
  }
  const words = CHOICES[info.name] ?? {};
  const field = info.choices.length
    ? h("select", { id, ...described }, info.choices.map((value) => h("option", { value, selected: value === info.value }, words[value] ?? value)))
    : h("input", { id, value: info.value ?? "", placeholder: EXAMPLES[info.name] ? `not set, such as ${EXAMPLES[info.name]}` : "not set", autocomplete: "off", ...described });
  const read = () => {
    const text = field.value.trim();
    if (text === "") return null;
    return ["keep", "connections"].includes(info.name) && /^\d+$/.test(text) ? Number(text) : text;
  };
  return h("form.setting", { onsubmit: change(async (event) => { event.preventDefault(); await save(read()); }) },
    h("label", { for: id }, title),
    h("div.inline", null, field, info.editable ? h("button", { type: "submit", "aria-label": `Save: ${title}` }, "Save") : null,
      info.editable && info.source === "managed.toml" ? button("Reset", change(() => save(null)), { "aria-label": `Reset: ${title}` }, "quiet") : null),
    hint);
}

/** What the settings of the disk mean now: measuring a large store takes a moment, after the page is drawn. */
async function meanings(settings) {
  const usage = await get("/storage").catch(() => null);
  if (!usage) return;
  const now = Object.fromEntries(settings.map((info) => [info.name, info.value]));
  const rows = usage.models.flatMap((model) => model.versions);
  const before = rows.filter((row) => row.reason_kept === "rollback");
  const frees = rows.reduce((sum, row) => sum + row.thin_frees_bytes, 0);
  const targets = many(before.length, "earlier version");
  const texts = {
    rollback: !before.length ? "Now: there is no version to roll back to."
      : frees ? `Now: ${targets} can be rolled back to; “thin” would free about ${bytes(frees)} of ${bytes(before.reduce((sum, row) => sum + row.own_bytes, 0))}.`
        : `Now: ${targets} can be rolled back to, and “thin” would free nothing.`,
    keep: now.keep === null && now.keep_within === null ? "Now: an update deletes no version." : null,
    reserve: `Now: ${bytes(usage.free_bytes)} are free, and downloads leave ${bytes(usage.reserve_bytes)} of that.`,
  };
  for (const [name, text] of Object.entries(texts)) {
    const place = document.getElementById(`set-${name}-now`);
    if (place && text) place.textContent = ` ${text}`;
  }
}

