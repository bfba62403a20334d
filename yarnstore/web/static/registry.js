// What the registries offer.
import { get, link } from "./api.js";
import { act, badge, button, bytes, h, many } from "./dom.js";

const PART = 100;

// How many results a person had shown, of which search: it outlives a new drawing.
let reached = { text: "", count: PART };

/** So many of the offers for a text from one on, and whether there are more. */
async function part(text, offset, limit) {
  const found = await get(`/catalogue?${new URLSearchParams({ q: text, limit: limit + 1, offset })}`);
  return { offers: found.slice(0, limit), more: found.length > limit };
}

export async function page(name, state) {
  let text = state.get("q") ?? "";
  const field = h("input", { id: "search", type: "search", value: text, placeholder: "Name, tag or description", autocomplete: "off", "aria-describedby": "found" });
  const list = h("ul.offers");
  const found = h("p.lead", { id: "found", role: "status" });
  const more = h("div.buttons");
  let turn = 0;

  async function search() {
    const now = ++turn;
    if (reached.text !== text) reached = { text, count: PART };
    const wanted = reached.count;
    let shown = [];
    let next = { more: true };
    try {
      while (next.more && shown.length < wanted) {
        next = await part(text, shown.length, PART);
        shown = [...shown, ...next.offers];
      }
    } catch (error) {
      if (now !== turn) return;
      found.textContent = [error.message, error.hint].filter(Boolean).join(" ");
      list.replaceChildren();
      more.replaceChildren();
      return;
    }
    if (now !== turn) return;
    list.replaceChildren(...shown.sort((a, b) => Boolean(b.installed) - Boolean(a.installed)).map(offer));
    tell(shown.length, next.more);
  }

  function tell(shown, further) {
    const what = `${further ? "The first " : ""}${many(shown, "model")}`;
    found.textContent = text ? `${what} for “${text}”` : `${what} in the registries`;
    more.replaceChildren(...(further ? [button("Show more", act(add), { id: "more" })] : []));
  }

  async function add() {
    const now = turn;
    const next = await part(text, reached.count, PART);
    if (now !== turn) return;
    const fresh = next.offers.map(offer);
    reached.count += PART;
    list.append(...fresh);
    tell(list.children.length, next.more);
    fresh[0]?.querySelector("a").focus();
  }

  let waiting = 0;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      text = field.value.trim();
      history.replaceState(null, "", link("registry", "", { q: text }));
      search();
    }, 150);
  });
  await search();
  return { title: "Registry", body: [
    h("h1", null, "Registry"),
    h("form.search", { role: "search", onsubmit: (event) => event.preventDefault() },
      h("label", { for: "search" }, "Search the registries"), field),
    found, list, more,
  ], ready: () => { if (state.get("focus") === "search") field.focus(); } };
}

function offer(item) {
  return h("li", null, h("a.offer", { href: link("models", item.model), "data-key": `offer-${item.model}` },
    h("span.offer-name", null, item.model),
    item.name && item.name !== item.model ? h("span.quiet-text", null, item.name) : null,
    h("span.offer-text", null, item.description ?? ""),
    h("span.offer-facts", null,
      h("span.whole", null, `${item.latest ?? "–"} · ${bytes(item.size_bytes)} · ${many(item.versions, "version")}`),
      item.installed ? badge(`${item.installed} installed`, "good") : null,
      item.tags.slice(0, 4).map((tag) => badge(tag, "quiet")))));
}
