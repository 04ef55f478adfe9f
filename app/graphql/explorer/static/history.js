// What was run in this browser. Answers are not kept, and neither is the key.

import { el, lasting } from "./dom.js";

const MOST = 60;

/** Whether what was stored is an operation that was run. */
const isEntry = (entry) => ["query", "variables", "kind", "title"].every((name) => typeof entry?.[name] === "string");

export class History {
  /** `use({ query, variables })` takes what the reader wants to see again. */
  constructor(host, use) {
    this.host = host;
    this.use = use;
    const kept = lasting.get("history");
    this.entries = Array.isArray(kept) ? kept.filter(isEntry) : [];
    this.draw();
  }

  /** Notes an operation; one that was there already moves to the front. */
  add(entry) {
    const same = (other) => other.query === entry.query && other.variables === entry.variables;
    this.entries = [{ ...entry, at: Date.now() }, ...this.entries.filter((other) => !same(other))].slice(0, MOST);
    this.keep();
  }

  keep() {
    lasting.set("history", this.entries);
    this.draw();
  }

  remove(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    this.keep();
    this.host.querySelector("button")?.focus();
  }

  draw() {
    if (!this.entries.length) {
      this.host.replaceChildren(el("p", { class: "empty" }, "What you run is listed here, in this browser only, without answers and keys."));
      return;
    }
    this.host.replaceChildren(
      el("ol", { class: "past" }, this.entries.map((entry) => el("li", {}, this.again(entry), el("button", {
        type: "button", class: "use", "aria-label": `Forget ${entry.title}`, onclick: () => this.remove(entry),
      }, "✕")))),
      el("p", { class: "clear" }, el("button", { type: "button", onclick: () => { this.entries = []; this.keep(); this.host.focus(); } }, "Clear the history")));
  }

  again(entry) {
    return el("button", { type: "button", class: "entry", onclick: () => this.use(entry) },
      el("b", {}, entry.title), el("small", {}, `${entry.kind} · ${new Date(entry.at).toLocaleString([], { dateStyle: "short", timeStyle: "short" })}`));
  }
}
