// Showing what came back: errors first and in words, then all of it.

import { json } from "./colours.js";
import { el } from "./dom.js";
import { laidOut, part } from "./json.js";

const MOST_COLOURED = 400_000; // characters; more takes the browser too long
const MOST_EVENTS = 200;

/** A JSON text, laid out and coloured. */
export function shownJson(given) {
  const text = laidOut(given);
  if (text.length > MOST_COLOURED) return el("pre", { class: "json" }, text);
  return el("pre", { class: "json" }, json(text).map((piece) =>
    (piece.class ? el("span", { class: piece.class }, piece.text) : piece.text)));
}

/** The top-level errors of an answer, and those of the payloads of a mutation, in one form. */
function errorsOf(text, isMutation) {
  const { errors, data } = JSON.parse(text);
  const top = (errors ?? []).map((error, place) => ({
    code: error.extensions?.code ?? "ERROR",
    message: error.message,
    path: error.path ?? [],
    locations: error.locations ?? [],
    details: detailsOf(text, place, error.extensions),
  }));
  return isMutation ? [...top, ...Object.entries(data ?? {}).flatMap(([name, payload]) => refusalsOf(text, name, payload))] : top;
}

/** What a mutation's payload says that was refused. */
function refusalsOf(text, name, payload) {
  const errors = Array.isArray(payload?.errors) ? payload.errors : [];
  return errors.map((error, place) => ({
    code: error.code ?? "REFUSED",
    message: error.message ?? "Refused; select message to be told why.",
    path: [name, ...(error.path?.length ? ["input", ...error.path] : [])],
    locations: [],
    details: error.details ? part(text, "data", name, "errors", place, "details") : null,
  }));
}

/** What programs are told beside the code, as JSON text. */
function detailsOf(text, place, { code, details, ...rest } = {}) {
  if (Object.keys(rest).length) return part(text, "errors", place, "extensions");
  return details ? part(text, "errors", place, "extensions", "details") : null;
}

/** One error as a card. `goTo(line, column)` shows a place of the operation. */
function errorCard(error, goTo) {
  return el("li", { class: "error" },
    el("p", {}, el("code", { class: "code" }, error.code), " ", error.message),
    el("p", { class: "where" },
      error.path.length ? el("span", {}, `at ${error.path.join(" › ")}`) : null,
      error.locations.map(({ line, column }) =>
        el("button", { type: "button", class: "link", onclick: () => goTo(line, column) }, `line ${line}, column ${column}`))),
    error.details ? el("details", {}, el("summary", {}, "Details"), shownJson(error.details)) : null);
}

/** What an operation answered, of its JSON text. Payloads of a mutation may have refusals of their own. */
export function shownAnswer(text, goTo, isMutation = false) {
  const errors = errorsOf(text, isMutation);
  return [
    errors.length ? el("ul", { class: "errors", "aria-label": "Errors" }, errors.map((each) => errorCard(each, goTo))) : null,
    shownJson(text),
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
    this.trouble.replaceChildren(...shownAnswer(`{"errors":${errors}}`, this.goTo).slice(0, 1));
  }
}
