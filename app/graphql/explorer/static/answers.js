// Showing what came back: errors first and in words, then all of it.

import { json } from "./colours.js";
import { el } from "./dom.js";

const MOST_COLOURED = 400_000; // characters; more takes the browser too long
const MOST_EVENTS = 200;

/** A JSON value, laid out and coloured. */
export function shownJson(value) {
  const text = JSON.stringify(value, null, 2);
  if (text.length > MOST_COLOURED) return el("pre", { class: "json" }, text);
  return el("pre", { class: "json" }, json(text).map((piece) =>
    (piece.class ? el("span", { class: piece.class }, piece.text) : piece.text)));
}

/** Top-level errors, and those of the payloads of mutations, in one form. */
export function errorsOf(body) {
  const top = (body.errors ?? []).map((error) => ({
    code: error.extensions?.code ?? "ERROR",
    message: error.message,
    path: error.path ?? [],
    locations: error.locations ?? [],
    details: detailsOf(error.extensions),
  }));
  const payloads = Object.entries(body.data ?? {}).flatMap(([name, payload]) =>
    (Array.isArray(payload?.errors) ? payload.errors : []).map((error) => ({
      code: error.code ?? "REFUSED",
      message: error.message ?? "Refused; select message to be told why.",
      path: [name, ...(error.path?.length ? ["input", ...error.path] : [])],
      locations: [],
      details: error.details ?? null,
    })));
  return [...top, ...payloads];
}

/** What programs are told beside the code. */
function detailsOf({ code, details, ...rest } = {}) {
  const all = { ...details, ...rest };
  return Object.keys(all).length ? all : null;
}

/** One error as a card. `goTo(line, column)` shows a place of the operation. */
export function errorCard(error, goTo) {
  return el("li", { class: "error" },
    el("p", {}, el("code", { class: "code" }, error.code), " ", error.message),
    el("p", { class: "where" },
      error.path.length ? el("span", {}, `at ${error.path.join(" › ")}`) : null,
      error.locations.map(({ line, column }) =>
        el("button", { type: "button", class: "link", onclick: () => goTo(line, column) }, `line ${line}, column ${column}`))),
    error.details ? el("details", {}, el("summary", {}, "Details"), shownJson(error.details)) : null);
}

/** What a query or mutation answered. */
export function shownAnswer(body, goTo) {
  const errors = errorsOf(body);
  return [
    errors.length ? el("ul", { class: "errors", "aria-label": "Errors" }, errors.map((each) => errorCard(each, goTo))) : null,
    shownJson(body),
  ].filter(Boolean);
}

/** A sentence where there is no answer. */
export function shownFault(sentence) {
  return el("ul", { class: "errors", "aria-label": "Errors" }, el("li", { class: "error" }, el("p", {}, sentence)));
}

/** The events of a subscription, the newest first; the oldest go when there are too many. */
export class Events {
  constructor(host, goTo) {
    this.goTo = goTo;
    this.count = 0;
    this.last = null;
    this.list = el("ol", { class: "events", "aria-label": "Events, the newest first" });
    this.trouble = el("div");
    host.replaceChildren(this.trouble, this.list);
  }

  add(result) {
    this.count += 1;
    this.last = result;
    const at = new Date().toLocaleTimeString([], { hour12: false });
    const previous = this.list.firstElementChild?.querySelector("details");
    if (previous && !previous.dataset.kept) previous.open = false;
    const details = el("details", { open: true }, el("summary", {}, el("b", {}, `#${this.count}`), ` ${at}`), ...shownAnswer(result, this.goTo));
    details.addEventListener("click", () => { details.dataset.kept = "1"; });
    this.list.prepend(el("li", {}, details));
    if (this.list.childElementCount > MOST_EVENTS) this.list.lastElementChild.remove();
  }

  fail(errors) {
    this.trouble.replaceChildren(...shownAnswer({ errors }, this.goTo).slice(0, 1));
  }
}
