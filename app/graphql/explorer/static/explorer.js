// The page: what its parts do for each other.

import { Events, shownAnswer, shownFault } from "./answers.js";
import * as colours from "./colours.js";
import { completions, variableCompletions } from "./completing.js";
import { Docs } from "./docs.js";
import { byId, el, lasting, passing, settled } from "./dom.js";
import { Editor } from "./editor.js";
import { History } from "./history.js";
import { extended, laidOut } from "./json.js";
import { read } from "./language.js";
import { splitting, tabbed, themed } from "./layout.js";
import { prettified, prettifiedJson } from "./pretty.js";
import { INTROSPECTION, Schema, sample, shown, signature } from "./schema.js";
import { send, subscribe } from "./transport.js";

const WELCOME = `# Ctrl+Enter runs the operation.
# Ctrl+Space suggests what could stand at the caret.

query Newest {
  campaigns(first: 5) {
    totalCount
    nodes {
      campaignId
      name
      status
      stats {
        targets
        sent
        skipped
        failed
        pending
      }
    }
  }
}
`;

let schema = null;
let running = null; // stops what runs
let last = ""; // the latest answer, to copy
let introspected = 0; // the newest question for the schema

const linked = fromLink() ?? kept() ?? { query: WELCOME, variables: "" };
const keyField = byId("key");
const keep = settled(300, () => lasting.set("operation", { query: query.text, variables: variables.text }));

const variables = new Editor(byId("variables-editor"), {
  id: "variables", label: "Variables, as JSON", placeholder: "{ }",
  paint: colours.json,
  problems: jsonProblems,
  complete: (text, offset) => variableCompletions(text, offset, schema, query.text),
  onChange: () => keep(),
});
const query = new Editor(byId("query-editor"), {
  id: "query", label: "Operation, in GraphQL", placeholder: "query { … }",
  paint: colours.graphql,
  problems: (text) => read(text, schema).problems,
  complete: (text, offset) => completions(text, offset, schema),
  onChange: (text) => { keep(); offerOperations(text); },
  onMove: hint,
});
const docs = new Docs(byId("docs"), use);
const history = new History(byId("history"), use);

function use({ query: text, variables: given }) {
  query.set(prettified(text));
  variables.set(typeof given === "string" ? given : Object.keys(given).length ? `${JSON.stringify(given, null, 2)}\n` : "");
  query.area.focus();
  query.area.setSelectionRange(0, 0);
}

/** An operation in the address, behind #, where it reaches no server and no log. */
function fromLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  const asked = given.get("query") ?? new URLSearchParams(location.search).get("query");
  return asked === null ? null : { query: asked, variables: given.get("variables") ?? "" };
}

/** The operation of the last visit, if what is stored is one. */
function kept() {
  const found = lasting.get("operation");
  return [found?.query, found?.variables].every((text) => typeof text === "string") ? found : null;
}

function jsonProblems(text) {
  if (!text.trim()) return [];
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" && !Array.isArray(value) ? [] : [{ start: 0, end: text.length, message: "Variables are a JSON object" }];
  } catch (fault) {
    const at = Number(/position (\d+)/.exec(fault.message)?.[1] ?? text.length - 1);
    return [{ start: Math.max(0, at - 1), end: at + 1, message: "This is not JSON yet" }];
  }
}

/** What stands at the caret, in the schema's words. */
function hint(text, offset) {
  const { marks } = read(text, schema);
  const mark = marks.find((each) => each.start <= offset && offset <= each.end);
  const problem = query.problemAt(offset);
  byId("hint").replaceChildren(...(problem ? [el("span", { class: "wrong" }, problem.message)] : described(mark)));
}

function described(mark) {
  if (!mark) return [schema ? "Put the caret on a field to read what it is." : ""];
  const { field, argument, type, value } = mark;
  const head = field ? signature(field, true) : argument ? `${argument.name}: ${shown(argument.type)}` : (type ?? value).name;
  return [el("code", {}, head), " ", el("span", {}, (field ?? argument ?? type ?? value).description ?? "")];
}

function offerOperations(text) {
  const { operations } = read(text);
  const choice = byId("operation");
  const named = operations.filter((operation) => operation.name);
  const chosen = choice.value;
  choice.replaceChildren(...named.map((operation) => el("option", { value: operation.name }, operation.name)));
  if (named.some((operation) => operation.name === chosen)) choice.value = chosen;
  byId("operation-label").hidden = operations.length < 2 || named.length === 0;
}

/** The operation that would run: the one chosen, else the one that the caret stands in, else the first. */
function chosenOperation() {
  const { operations } = read(query.text);
  if (operations.length < 2) return operations[0] ?? null;
  return operations.find((operation) => operation.name === byId("operation").value) ?? operations[0];
}

function followCaret() {
  const { operations } = read(query.text);
  const at = query.area.selectionStart;
  const here = operations.find((operation) => operation.start <= at && at <= operation.end);
  if (here?.name) byId("operation").value = here.name;
}

async function run() {
  if (running) {
    running();
    return;
  }
  query.close();
  const request = requested();
  if (!request) return;
  const operation = chosenOperation();
  history.add({
    query: query.text, variables: variables.text,
    kind: operation?.kind ?? "query", title: operation?.name ?? firstField(query.text),
  });
  if (operation?.kind === "subscription") listen(request);
  else await ask(request, operation?.kind === "mutation");
}

const firstField = (text) => /\{\s*(?:#[^\n]*\s*)*([_A-Za-z][_0-9A-Za-z]*)/.exec(text)?.[1] ?? "operation";

function requested() {
  const given = variables.text.trim();
  if (!query.text.trim()) {
    showFault("There is no operation to run.");
  } else if (given && jsonProblems(given).length) {
    showFault("The variables are not a JSON object.");
    variables.area.focus();
  } else {
    const operation = chosenOperation();
    return { key: keyField.value.trim(), query: query.text, variables: given, operationName: operation?.name };
  }
  return null;
}

function say(sentence, how = "") {
  byId("status").textContent = sentence;
  byId("status").className = how;
}

/** A sentence about what the reader did in the editor, shown and read out. */
function tell(sentence, how = "") {
  byId("hint").replaceChildren(el("span", { class: how }, sentence));
  byId("told").textContent = sentence;
}

function showFault(sentence) {
  say("Not run", "bad");
  byId("result").replaceChildren(shownFault(sentence));
}

function working(stop) {
  running = stop;
  byId("run-word").textContent = stop ? "Stop" : "Run";
  byId("run").classList.toggle("stop", Boolean(stop));
  byId("run").firstElementChild.textContent = stop ? "■" : "▶";
}

const goTo = (line, column) => query.goTo(line, column);

async function ask(request, isMutation) {
  const abort = new AbortController();
  working(() => abort.abort());
  say("Running …");
  try {
    const answer = await send(request, abort.signal);
    last = answer.text;
    const bad = answer.status >= 400 || answer.body.errors;
    say(`${answer.status} · ${Math.round(answer.milliseconds)} ms · ${size(answer.text.length)}`, bad ? "bad" : "good");
    byId("result").replaceChildren(...shownAnswer(answer.text, goTo, isMutation));
    byId("result").scrollTop = 0;
    byId("copy-answer").hidden = false;
  } catch (fault) {
    if (fault.name === "AbortError") say("Stopped");
    else showFault(fault.message);
  } finally {
    working(null);
  }
}

const size = (bytes) => (bytes < 1000 ? `${bytes} B` : bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function listen(request) {
  const events = new Events(byId("result"), goTo);
  const counted = (count) => `${count} ${count === 1 ? "event" : "events"}`;
  say("Connecting …");
  byId("copy-answer").hidden = true;
  working(subscribe(request, {
    connected: () => say("Listening …", "live"),
    next(result) {
      events.add(result);
      last = events.last;
      byId("copy-answer").hidden = false;
      say(`Listening · ${counted(events.count)}`, "live");
    },
    failed: (errors) => events.fail(errors),
    ended(sentence, well) {
      working(null);
      say(`${sentence} · ${counted(events.count)}`, well ? "good" : "bad");
    },
  }));
}

function prettify() {
  if (read(query.text).problems.length) {
    tell(`Not laid out, because of a mistake: ${read(query.text).problems[0].message}`, "wrong");
    return;
  }
  query.replace(0, query.text.length, prettified(query.text));
  const json = prettifiedJson(variables.text);
  if (json !== null && json !== variables.text) variables.replace(0, variables.text.length, json);
  query.area.focus();
  tell("Laid out.");
}

function fillIn() {
  const declared = chosenOperation() ? read(query.text, schema).operations.flatMap((each) => each.variables) : [];
  const wrong = jsonProblems(variables.text).length > 0;
  const given = !wrong && variables.text.trim() ? JSON.parse(variables.text) : {};
  if (wrong || !schema) {
    tell(wrong ? "The variables are not a JSON object." : "This needs the schema: enter a key.", "wrong");
    return;
  }
  const missing = declared.filter((each) => each.type && !(each.name in given));
  const more = Object.fromEntries(missing.map((each) => [each.name, sample(schema, each.type)]));
  variables.replace(0, variables.text.length, `${extended(variables.text, more)}\n`);
  tell(missing.length ? `Added ${missing.map((each) => `$${each.name}`).join(", ")}.` : "No variable is missing.");
}

async function copied(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    tell(`Copied ${what}.`);
  } catch {
    tell("This browser does not let the page copy.", "wrong");
  }
}

function link() {
  const parts = new URLSearchParams({ query: query.text });
  if (variables.text.trim()) parts.set("variables", variables.text);
  return `${location.origin}${location.pathname}#${parts}`;
}

/** Takes the key: who it is, and what the API offers. */
async function takeKey() {
  const key = keyField.value.trim();
  const turn = (introspected += 1);
  passing.set("key", key || null);
  schema = null;
  known("", "");
  if (!key) {
    docs.say("Enter an API key above to see what this API offers.");
    query.paint();
    return;
  }
  try {
    const who = await send({ key, query: "{ viewer { name role } }" });
    if (turn !== introspected) return;
    const viewer = who.body.data?.viewer;
    known(viewer ? `${viewer.role} · ${viewer.name}` : who.body.errors[0].message, viewer ? "good" : "bad");
    if (!viewer) docs.say("This key is not valid.");
    else await learn(key, turn);
  } catch (fault) {
    if (turn !== introspected) return;
    known(fault.message, "bad");
    docs.say(fault.message);
  }
}

async function learn(key, turn) {
  docs.say("Reading the schema …");
  const { body } = await send({ key, query: INTROSPECTION });
  if (turn !== introspected) return;
  if (!body.data) {
    docs.say(`No documentation and no suggestions here. ${body.errors[0].message}`);
    return;
  }
  schema = new Schema(body.data);
  docs.show(schema);
  query.paint();
  query.moved();
}

function known(sentence, how) {
  byId("viewer").textContent = sentence;
  byId("viewer").className = how;
}

function shortcuts(event) {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    event.preventDefault();
    if (event.target === query.area) followCaret();
    run();
  } else if (event.altKey && event.shiftKey && event.code === "KeyF") {
    event.preventDefault();
    prettify();
  }
}

themed();
tabbed([byId("tab-docs"), byId("tab-history")]);
splitting("split-side", "--side");
splitting("split-answer", "--ask");
splitting("split-variables", "--variables", { vertical: true, invert: true });
document.addEventListener("keydown", shortcuts);
byId("run").addEventListener("click", run);
byId("prettify").addEventListener("click", prettify);
byId("fill").addEventListener("click", fillIn);
byId("copy-link").addEventListener("click", () => copied(link(), "a link, without the key"));
byId("copy-answer").addEventListener("click", () => copied(`${laidOut(last)}\n`, "the answer"));
byId("key-show").addEventListener("click", (event) => {
  const hidden = keyField.type === "password";
  keyField.type = hidden ? "text" : "password";
  event.currentTarget.textContent = hidden ? "Hide" : "Show";
  event.currentTarget.setAttribute("aria-label", `${hidden ? "Hide" : "Show"} the key`);
});
keyField.addEventListener("input", settled(350, takeKey));
keyField.value = passing.get("key") ?? "";
byId("result").replaceChildren(el("p", { class: "empty" }, "The answer appears here."));
query.set(linked.query);
variables.set(linked.variables);
takeKey();
