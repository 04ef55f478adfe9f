// The schema to read: types, fields, arguments, and where each leads.

import { el } from "./dom.js";
import { operationFor, shown } from "./schema.js";

const ROOTS = ["query", "mutation", "subscription"];
const MOST_FOUND = 80;

export class Docs {
  /** `use({ query, variables })` takes an operation that the reader wants to begin with. */
  constructor(host, use) {
    this.host = host;
    this.use = use;
    this.schema = null;
    this.trail = [];
    this.search = el("input", {
      type: "search", placeholder: "Search types and fields", "aria-label": "Search the documentation",
      oninput: () => this.draw(),
    });
    this.page = el("div", { class: "page" });
    host.append(el("div", { class: "search" }, this.search), this.page);
    this.say("Enter an API key above to see what this API offers.");
  }

  say(sentence) {
    this.schema = null;
    this.search.parentElement.hidden = true;
    this.page.replaceChildren(el("p", { class: "empty" }, sentence));
  }

  show(schema) {
    this.schema = schema;
    this.search.parentElement.hidden = false;
    this.trail = this.trail.filter((name) => schema.type(name));
    this.draw();
  }

  /** Opens the page of a type. */
  open(name) {
    this.search.value = "";
    this.trail.push(name);
    this.draw();
    this.page.querySelector("h2")?.focus();
    this.host.scrollTop = 0;
  }

  back(place) {
    this.trail.length = place;
    this.draw();
    this.page.querySelector("h2, button")?.focus();
  }

  draw() {
    if (!this.schema) return;
    const wanted = this.search.value.trim().toLowerCase();
    const type = this.schema.type(this.trail.at(-1));
    this.page.replaceChildren(...(wanted ? this.found(wanted) : type ? this.typePage(type) : this.start()));
  }

  start() {
    return ROOTS.filter((kind) => this.schema.root(kind)).flatMap((kind) => {
      const root = this.schema.root(kind);
      return [el("h2", { tabIndex: -1 }, root.name), text(root.description), this.fields(root, kind)];
    });
  }

  crumbs() {
    const steps = ["Schema", ...this.trail];
    return el("nav", { "aria-label": "Path" }, el("ol", { class: "crumbs" }, steps.slice(-4).map((name, place, shownSteps) => {
      const depth = steps.length - shownSteps.length + place;
      return el("li", {}, place === shownSteps.length - 1
        ? el("span", { "aria-current": "page" }, name)
        : el("button", { type: "button", class: "link", onclick: () => this.back(depth) }, name));
    })));
  }

  typePage(type) {
    const kind = ROOTS.find((each) => this.schema.root(each)?.name === type.name) ?? null;
    return [
      this.crumbs(),
      el("h2", { tabIndex: -1 }, type.name, " ", el("small", {}, type.kind.toLowerCase().replace("_", " "))),
      text(type.description),
      this.names("Implements", type.interfaces),
      this.names("One of", type.possibleTypes),
      type.fields?.length ? this.fields(type, kind) : null,
      type.inputFields?.length ? this.fields({ ...type, fields: type.inputFields }, null) : null,
      type.enumValues?.length ? el("dl", { class: "members" }, type.enumValues.map((value) => el("div", {}, el("dt", {}, el("code", { class: "enum" }, value.name)), el("dd", {}, value.description ?? "")))) : null,
    ].filter(Boolean);
  }

  names(label, types) {
    if (!types?.length) return null;
    return el("p", { class: "names" }, `${label} `, types.map((each, place) => [place ? ", " : "", this.link(each)]).flat());
  }

  fields(type, kind) {
    return el("dl", { class: "members" }, type.fields.map((field) => this.field(field, kind)));
  }

  field(field, kind) {
    const use = kind && el("button", {
      type: "button", class: "use", "aria-label": `Use ${field.name} in the editor`, title: "Write it into the editor",
      onclick: () => this.use(operationFor(this.schema, kind, field)),
    }, "Use");
    return el("div", {},
      el("dt", {}, el("code", {}, el("span", { class: "field" }, field.name), ...this.args(field), ": ", ...this.typed(field.type),
        field.defaultValue ? ` = ${field.defaultValue}` : ""), use),
      el("dd", {}, field.isDeprecated ? el("p", { class: "old" }, `Deprecated: ${field.deprecationReason ?? ""}`) : null, field.description ?? ""));
  }

  args(field) {
    const args = field.args ?? [];
    if (!args.length) return [];
    return ["(", el("span", { class: "args" }, args.map((arg) => el("span", { class: "arg", title: arg.description ?? "" },
      el("span", { class: "argument" }, arg.name), ": ", ...this.typed(arg.type), arg.defaultValue ? ` = ${arg.defaultValue}` : ""))), ")"];
  }

  typed(type) {
    const whole = shown(type);
    const name = this.schema.named(type)?.name ?? whole;
    const [before, after] = whole.split(name);
    return [before, this.link({ name }), after];
  }

  link(type) {
    return el("button", { type: "button", class: "link type", onclick: () => this.open(type.name) }, type.name);
  }

  found(wanted) {
    const hits = [];
    for (const type of this.schema.types.values()) {
      if (type.name.startsWith("__")) continue;
      if (type.name.toLowerCase().includes(wanted)) hits.push({ type, rank: type.name.toLowerCase() === wanted ? 0 : 1 });
      for (const field of [...(type.fields ?? []), ...(type.inputFields ?? []), ...(type.enumValues ?? [])]) {
        const name = field.name.toLowerCase();
        if (name.includes(wanted)) hits.push({ type, field, rank: name === wanted ? 0 : name.startsWith(wanted) ? 1 : 2 });
      }
    }
    hits.sort((one, other) => one.rank - other.rank);
    const shownHits = hits.slice(0, MOST_FOUND);
    return [
      el("p", { class: "count", role: "status" }, hits.length > MOST_FOUND ? `${hits.length} found; the first ${MOST_FOUND}:` : `${hits.length} found`),
      el("ul", { class: "hits" }, shownHits.map(({ type, field }) => el("li", {}, this.link(type), field ? `.${field.name}` : "",
        el("span", { class: "note" }, (field ?? type).description ?? "")))),
    ];
  }
}

const text = (description) => (description ? el("p", { class: "about" }, description) : null);
