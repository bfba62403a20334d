// Two versions side by side: a picture of the tensors by layer, coloured by the share that changed.
import { get, link, post } from "./api.js";
import { act, badge, bytes, count, facts, h, many, parameters, share } from "./dom.js";
import { all, ended, jobView, started } from "./jobs.js";

const STEPS = [0, 0.01, 0.1, 0.25, 0.5, 0.75, 1];
const MOST = 4000;

export async function comparison(model, history, state) {
  const names = [...new Set(history.versions.map((row) => row.version))];
  if (names.length < 2) return h("p.empty", null, "This model has one version: there is nothing to compare.");
  const old = state.get("old") ?? history.installed ?? names.at(-1);
  const fresh = state.get("new") ?? names.find((name) => name !== old);
  const pick = (id, label, value) => h("div.field", null, h("label", { for: id }, label),
    h("select", { id, value }, names.map((name) => h("option", { value: name, selected: name === value }, name))));
  const place = h("div.result", { "aria-live": "polite" });
  const form = h("form.inline", { onsubmit: (event) => {
    event.preventDefault();
    const given = { tab: "compare", old: document.getElementById("old").value, new: document.getElementById("new").value, run: "1" };
    const next = link("models", model, given);
    if (location.hash === next) run();
    else location.hash = next;
  } }, pick("old", "Old version", old), pick("new", "New version", fresh),
  h("button.primary", { type: "submit", id: "compare" }, "Compare"));
  const missing = [old, fresh].filter((name) => !history.versions.some((row) => row.version === name && row.in_store));

  const specs = { old: spec(model, history, old), new: spec(model, history, fresh) };
  const subject = `${specs.old} → ${specs.new}`;
  const run = act(async () => {
    place.replaceChildren();
    const before = all().find((job) => job.kind === "diff" && job.subject === subject && job.state === "done");
    let job = before ? await get(`/jobs/${before.id}`).catch(() => null) : null;
    if (!job?.result) {
      const begun = started(await post("/diff", specs));
      place.replaceChildren(jobView(begun, { heading: "h3" }));
      job = await ended(begun);
    }
    if (job.state === "done" && job.result) place.replaceChildren(...result(job.result));
  });
  const ready = state.has("run") || (state.has("old") && !missing.length);
  if (ready && old !== fresh) queueMicrotask(run);
  else if (missing.length) place.append(h("p.hint", null, `${missing.join(" and ")} ${missing.length > 1 ? "are" : "is"} not in the store and will be downloaded to compare.`));
  return h("section", { "aria-label": "Compare two versions" }, form, place);
}

function spec(model, history, version) {
  const rows = history.versions.filter((row) => row.version === version);
  const row = rows.find((each) => each.installed) ?? rows.find((each) => each.in_store) ?? rows[0];
  return row && row.variant !== "default" ? `${model}:${row.variant}@${version}` : `${model}@${version}`;
}

function result(diff) {
  const { totals } = diff;
  const part = totals.bytes ? totals.bytes_changed / totals.bytes : 0;
  return [
    h("h2", null, part ? `${share(part)} of the bytes changed` : "Nothing changed"),
    facts(
      ["Bytes", `${bytes(totals.bytes_changed)} of ${bytes(totals.bytes)}`],
      totals.parameters ? ["Parameters", `${parameters(totals.parameters_changed)} of ${parameters(totals.parameters)}`] : null,
      ["Tensors", counts(totals.tensors)], ["Files", counts(totals.files)]),
    diff.tensors.length ? tensors(diff) : null,
    files(diff),
  ];
}

function counts(of) {
  const found = ["changed", "added", "removed", "moved", "same"].filter((key) => of[key]).map((key) => `${count(of[key])} ${key}`);
  return found.join(", ") || "none";
}

const partOf = (tensor) => ["added", "removed"].includes(tensor.status) ? 1 : tensor.units ? tensor.units_changed / tensor.units : 0;
const step = (tensor) => (["added", "removed"].includes(tensor.status) ? tensor.status
  : String(STEPS.findIndex((limit) => partOf(tensor) <= limit)));

/** Where a tensor stands in the picture: its row (the layer, or what is outside of layers) and its column. */
function placeOf(name) {
  const found = /^(.*?)\b(\d+)\.(.+)$/.exec(name) ?? /^(.*?)(\d+)[._/](.+)$/.exec(name);
  if (!found) return { row: "Outside of layers", order: -1, column: name };
  const prefix = found[1].replace(/[._/]?(layers|layer|h|blocks|block|blk)[._/]?$/, "").replace(/[._/]$/, "");
  const short = ["model", "transformer", ""].includes(prefix) ? "" : `${prefix} `;
  return { row: `${short}layer ${found[2]}`, order: Number(found[2]), column: found[3] };
}

function tensors(diff) {
  const listed = diff.tensors.slice(0, MOST);
  const rows = new Map();
  for (const tensor of listed) {
    const place = placeOf(tensor.name);
    if (!rows.has(place.row)) rows.set(place.row, []);
    rows.get(place.row).push([place.column, tensor]);
  }
  const detail = h("div.tensor-detail", { "aria-live": "polite" }, h("p.hint", null, "Choose a tensor for its details."));
  let chosen = null;
  const choose = (cell, tensor) => {
    chosen?.removeAttribute("aria-pressed");
    chosen = cell;
    cell.setAttribute("aria-pressed", "true");
    detail.replaceChildren(h("h3", null, h("code", null, tensor.name)), facts(
      ["State", tensor.status === "same" ? "the same" : tensor.status], ["Changed", `${share(partOf(tensor))} of ${many(tensor.units, tensor.unit.replace(/s$/, ""))}`],
      ["Type", tensor.old_dtype && tensor.old_dtype !== tensor.dtype ? `${tensor.old_dtype} → ${tensor.dtype}` : tensor.dtype],
      ["Shape", tensor.shape.join(" × ") || "scalar"],
      tensor.old_shape && tensor.old_shape.join() !== tensor.shape.join() ? ["Old shape", tensor.old_shape.join(" × ")] : null,
      ["Size", bytes(tensor.size_bytes)], ["Parameters", count(tensor.parameters)],
      tensor.relative_mean !== null && tensor.relative_mean !== undefined ? ["Mean relative change", tensor.relative_mean.toPrecision(2)] : null,
      tensor.relative_max !== null && tensor.relative_max !== undefined ? ["Largest relative change", tensor.relative_max.toPrecision(2)] : null,
      tensor.old_name && tensor.old_name !== tensor.name ? ["Old name", tensor.old_name] : null,
      ["File", tensor.file]));
  };
  const grid = h("ul.tensors", { "aria-label": "Tensors by layer", id: "tensors" }, [...rows].map(([row, cells]) =>
    h("li.tensor-row", null, h("span.tensor-layer", null, row), h("span.tensor-cells", null, cells.map(([column, tensor]) => {
      const cell = h("button.tensor", {
        type: "button", "data-step": step(tensor), tabindex: "-1", title: `${tensor.name}: ${share(partOf(tensor))} changed`,
        "aria-label": `${tensor.name}: ${tensor.status === "same" ? "the same" : `${tensor.status}, ${share(partOf(tensor))}`}`,
        style: { "flex-grow": String(Math.max(1, Math.log2(tensor.size_bytes + 2))) },
      }, h("span", { "aria-hidden": "true" }, shorten(column)));
      cell.addEventListener("click", () => choose(cell, tensor));
      return cell;
    })))));
  const cells = () => [...grid.querySelectorAll("button")];
  const first = grid.querySelector("button");
  if (first) first.tabIndex = 0;
  grid.addEventListener("keydown", (event) => {
    const list = cells();
    const at = list.indexOf(document.activeElement);
    if (at < 0) return;
    const lines = [...grid.children].map((line) => [...line.querySelectorAll("button")]);
    const row = lines.findIndex((line) => line.includes(list[at]));
    const column = lines[row].indexOf(list[at]);
    const near = (line) => line && line[Math.min(column, line.length - 1)];
    const next = { ArrowRight: list[at + 1], ArrowLeft: list[at - 1], ArrowDown: near(lines[row + 1]), ArrowUp: near(lines[row - 1]), Home: list[0], End: list.at(-1) }[event.key];
    if (!next) return;
    event.preventDefault();
    list[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  return h("section", { "aria-labelledby": "tensors-title" },
    h("h2", { id: "tensors-title" }, "Tensors by layer"), legend(),
    diff.tensors.length > MOST ? h("p.hint", null, `The first ${count(MOST)} of ${count(diff.tensors.length)} tensors are shown.`) : null,
    h("div.compare-columns", null, grid, detail));
}

const shorten = (column) => column.replace(/\.(weight|bias)$/, (_, kind) => (kind === "bias" ? " bias" : "")).replace(/^(self_attn|attention|mlp)\./, "").replaceAll("_", " ");

function legend() {
  const texts = ["the same", "up to 1 %", "10 %", "25 %", "50 %", "75 %", "100 %"];
  return h("ul.legend", { "aria-label": "Share that changed" },
    texts.map((text, index) => h("li", null, h("span.swatch", { "data-step": String(index), "aria-hidden": "true" }), text)),
    h("li", null, h("span.swatch", { "data-step": "added", "aria-hidden": "true" }), "added"),
    h("li", null, h("span.swatch", { "data-step": "removed", "aria-hidden": "true" }), "removed"));
}

function files(diff) {
  return h("section", { "aria-labelledby": "diff-files" }, h("h2", { id: "diff-files" }, "Files"),
    h("ul.items", null, [...diff.files].sort((a, b) => (a.status === "same") - (b.status === "same")).map((file) => h("li", null,
      h("span.item-what", null, h("code", null, file.path), " ", badge(file.status, file.status === "same" ? "quiet" : file.status === "removed" ? "security" : "minor")),
      file.status === "changed" ? h("span.number", null, h("strong", null, bytes(file.bytes_changed)), ` of ${bytes(file.size_bytes)}`)
        : h("span.number", null, bytes(file.size_bytes))))));
}
