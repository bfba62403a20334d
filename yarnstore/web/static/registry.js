// What the registries offer.
import { get, link } from "./api.js";
import { badge, bytes, h, many } from "./dom.js";

const PART = 100;

export async function page(name, state) {
  let text = state.get("q") ?? "";
  const field = h("input", { id: "search", type: "search", value: text, placeholder: "Name, tag or description", autocomplete: "off", "aria-describedby": "found" });
  const list = h("ul.offers");
  const found = h("p.lead", { id: "found", role: "status" });
  const more = h("div.buttons");
  let turn = 0;

  async function search() {
    const now = ++turn;
    const offers = await get(`/catalogue?${new URLSearchParams({ q: text, limit: PART })}`).catch((error) => error);
    if (now !== turn) return;
    if (offers instanceof Error) {
      found.textContent = [offers.message, offers.hint].filter(Boolean).join(" ");
      list.replaceChildren();
      return;
    }
    offers.sort((a, b) => Boolean(b.installed) - Boolean(a.installed));
    found.textContent = text ? `${many(offers.length, "model")} for “${text}”`
      : `${many(offers.length, "model")} in the registries${offers.length === PART ? ", of more" : ""}`;
    list.replaceChildren(...offers.map(offer));
    if (offers.length === PART) more.replaceChildren(h("p.hint", null, `The first ${PART} are shown. Search for the others.`));
    else more.replaceChildren();
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
  return h("li", null, h("a.offer", { href: link("models", item.model) },
    h("span.offer-name", null, item.model),
    item.name && item.name !== item.model ? h("span.quiet-text", null, item.name) : null,
    h("span.offer-text", null, item.description ?? ""),
    h("span.offer-facts", null,
      h("span", null, `${item.latest ?? "–"} · ${bytes(item.size_bytes)} · ${many(item.versions, "version")}`),
      item.installed ? badge(`${item.installed} installed`, "good") : null,
      item.tags.slice(0, 4).map((tag) => badge(tag, "quiet")))));
}
