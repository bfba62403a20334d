// Elements, texts for people, dialogs and messages.

const SVG = "http://www.w3.org/2000/svg";

let reading = false;
/** Whether the service refuses changes. */
export const isReadOnly = () => reading;
export function setReadOnly(value) { reading = value; }

/** Mark a handler that changes something: of a read-only service its button is hidden, its fields are disabled. */
export const changing = (handler) => Object.assign(handler, { changes: true });

function forbid(element) {
  for (const each of element.elements ?? [element]) {
    if (each.tagName === "BUTTON") each.hidden = true;
    else each.disabled = true;
  }
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((each) => each !== undefined && each !== null && each !== false && each !== ""));
  if (reading && Object.values(properties ?? {}).some((value) => value?.changes)) forbid(element);
  return element;
}

function named(text, make) {
  const [tag, ...classes] = text.split(".");
  const element = make(tag || "div");
  if (classes.length) element.setAttribute("class", classes.join(" "));
  return element;
}

/** h("p.note", {id: "x"}, "text", child): an element; false and null children are left out. */
export function h(name, properties, ...children) {
  return fill(named(name, (tag) => document.createElement(tag)), properties, children);
}

/** As `h`, of SVG. */
export function s(name, properties, ...children) {
  return fill(named(name, (tag) => document.createElementNS(SVG, tag)), properties, children);
}

export const button = (text, onclick, properties = {}, kind = "") =>
  h(`button${kind && "." + kind}`, { type: "button", onclick, ...properties }, text);

// --- texts ---------------------------------------------------------------------------------------

export function bytes(count) {
  if (count === null || count === undefined) return "unknown";
  if (count < 1000) return many(count, "byte");
  let value = count;
  let unit = 0;
  const units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export const count = (value) => new Intl.NumberFormat("en").format(value).replaceAll(",", "\u202f");
export const many = (value, one, more = `${one}s`) => `${count(value)} ${value === 1 ? one : more}`;

/** A sentence with the commands in it as code. */
export const coded = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", null, part) : part));

export function share(part) {
  if (part === 0) return "0 %";
  if (part < 0.01) return "under 1 %";
  return part > 0.99 && part < 1 ? "over 99 %" : `${Math.round(100 * part)} %`;
}

export function parameters(value) {
  if (value < 1e6) return count(value);
  return value < 1e9 ? `${(value / 1e6).toFixed(1)} million` : `${(value / 1e9).toFixed(2)} billion`;
}

export function duration(seconds) {
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} min ${total % 60} s`;
  return `${Math.floor(total / 3600)} h ${Math.floor((total % 3600) / 60)} min`;
}

const DAY = new Intl.DateTimeFormat("en", { dateStyle: "medium" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function ago(then) {
  const seconds = (then - Date.now()) / 1000;
  for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) {
      if (unit === "day" && Math.abs(seconds) > 14 * size) return DAY.format(then);
      return AGO.format(Math.round(seconds / size), unit);
    }
  }
  return "just now";
}

/** A moment in words, with the exact one as its title; of milliseconds or ISO 8601. */
export function when(value, never = "never") {
  if (!value) return never;
  const date = new Date(value);
  return h("time", { datetime: date.toISOString(), title: MOMENT.format(date) }, ago(date.getTime()));
}

export const badge = (text, kind = "") => h(`span.badge${kind && "." + kind}`, null, text);

/** The type of a step, security first. */
export function stepBadge(kind, security = false) {
  const name = security || kind === "security" ? "security" : kind;
  return name ? badge(name, name) : null;
}

export const facts = (...rows) => h("dl.facts", null, rows.filter(Boolean).map(([name, value]) =>
  value === null || value === undefined || value === "" ? null : h("div", null, h("dt", null, name), h("dd", null, value))));

// --- messages and dialogs ------------------------------------------------------------------------

let closing = 0;

/** Say a sentence at the foot of the page; `undo` adds a button. */
export function say(text, { undo = null, label = "Undo", fault = false } = {}) {
  const place = document.getElementById("said");
  clearTimeout(closing);
  const close = () => place.replaceChildren();
  place.replaceChildren(h(`div.said${fault ? ".fault" : ""}`, null,
    h("p", null, text),
    undo && button(label, changing(() => { close(); undo(); })),
    button("Close", close, {}, "quiet")));
  if (!undo && !fault) closing = setTimeout(close, 8000);
}

export function sayFault(error) {
  say(h("span", null, h("strong", null, error.message), error.hint ? h("span.hint", null, error.hint) : null), { fault: true });
}

/** Mark the field that was refused: the only one, or the one whose text the error names. */
function mark(place, error) {
  const fields = [...(place?.querySelectorAll?.("input:not([type=checkbox], [type=radio]), textarea") ?? [])];
  const named = (field) => field.value.split("\n").some((line) => line.trim() && error.message.includes(line.trim()));
  const refused = fields.length > 1 ? fields.find(named) : fields[0];
  refused?.setAttribute("aria-invalid", "true");
  refused?.focus();
}

/** Run what a click asks for; `tell` shows its error, and what was typed stays. */
export const act = (work, tell = sayFault) => async (event) => {
  const from = event?.currentTarget;
  if (from?.getAttribute?.("aria-disabled") === "true") return;
  from?.setAttribute?.("aria-disabled", "true");
  const sent = from?.closest?.("form, dialog") ?? from;
  for (const field of sent?.querySelectorAll?.("[aria-invalid]") ?? []) field.removeAttribute("aria-invalid");
  try {
    await work(event);
    for (const field of [sent, ...(sent?.querySelectorAll?.("[data-edited]") ?? [])]) delete field?.dataset?.edited;
  } catch (error) {
    tell(error);
    mark(sent, error);
  } finally {
    from?.removeAttribute?.("aria-disabled");
  }
};

/** As `act`, of what changes something. */
export const change = (work) => changing(act(work));

/**
 * A modal dialog with the page's own close keys; resolves with the value of the button.
 * A button with `work` closes it once that is done; an error is shown in the dialog, and what was typed stays.
 */
export function ask(title, body, buttons) {
  return new Promise((resolve) => {
    const fault = h("p.fault", { id: "dialog-fault", role: "alert" });
    const tell = (error) => fault.replaceChildren(error.message, ...(error.hint ? [h("span.hint", null, error.hint)] : []));
    const done = (value, work) => work
      ? act(async () => { fault.replaceChildren(); await work(); dialog.close(value); }, tell)
      : () => dialog.close(value);
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" },
      h("h2", { id: "dialog-title" }, title),
      h("div.dialog-body", null, body, fault),
      h("div.dialog-buttons", null, buttons.map(([text, value, kind, work]) => button(text, done(value, work), {}, kind ?? ""))));
    const field = dialog.querySelector("textarea");
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    dialog.addEventListener("click", (event) => { if (event.target === dialog && !field) dialog.close(""); });
    document.body.append(dialog);
    dialog.showModal();
    (field ?? dialog.querySelector(".dialog-buttons button"))?.focus();
  });
}

/** Whether a person agrees to what deletes something. */
export const agree = async (title, body, yes, kind = "danger") =>
  (await ask(title, body, [["Cancel", ""], [yes, "yes", kind]])) === "yes";
