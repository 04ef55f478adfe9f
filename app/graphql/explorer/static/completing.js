// What could be written at the caret: of the operation by the schema, of the variables by what it declares.

import { read, tokens } from "./language.js";
import { shown, signature } from "./schema.js";

const MOST = 60;
const BEGINNINGS = ["query", "mutation", "subscription", "fragment"];

/**
 * Suggestions at `offset`: { from, items: [{ label, detail, note, insert, caret }] }. `caret` is where in
 * `insert` to go on writing.
 */
export function completions(text, offset, schema) {
  if (!schema) return none(offset);
  const before = text.slice(0, offset);
  const last = tokens(before).at(-1);
  if (last?.kind === "comment" || unfinished(last)) return none(offset);
  const from = last?.kind === "name" ? last.start : offset;
  const { expected } = read(before.slice(0, from), schema);
  const whole = read(text, schema);
  return matching(before.slice(from), from, offered(expected, schema, whole, before));
}

function unfinished(token) {
  return token?.kind === "string" && (token.text.length === 1 || !token.text.endsWith('"'));
}

const none = (from) => ({ from, items: [] });

function offered(expected, schema, whole, before) {
  switch (expected?.in) {
    case "definition":
      return BEGINNINGS.map((word) => item(word, "", "", `${word} `));
    case "field":
      return schema.fields(expected.type).map((field) => fieldItem(schema, field, before));
    case "spread":
      return [
        ...whole.fragments.map((fragment) => item(fragment.name, `fragment on ${fragment.on ?? "…"}`)),
        ...schema.conditions(expected.type).map((type) => item(`on ${type.name}`, "", type.description)),
      ];
    case "typeCondition":
    case "compositeType":
      return schema.conditions(expected.type).map((type) => item(type.name, "", type.description));
    case "argument":
      return (expected.args ?? [])
        .filter((arg) => !expected.given.includes(arg.name))
        .map((arg) => item(arg.name, shown(arg.type), arg.description, `${arg.name}: `));
    case "inputType":
      return schema.inputs().map((type) => item(type.name, type.kind.toLowerCase(), type.description));
    case "directive":
      return schema.directives.map((each) => item(each.name, signature(each), each.description));
    case "variable":
      return variables(whole).map((variable) => item(variable.name, shown(variable.type)));
    case "value":
      return valueItems(schema, expected.type, whole);
    default:
      return [];
  }
}

function item(label, detail = "", note = "", insert = label, caret = insert.length) {
  return { label, detail, note: note ?? "", insert, caret };
}

/** A field with what has to follow it: arguments that it needs, and a selection. */
function fieldItem(schema, field, before) {
  const needs = field.args.some((arg) => arg.type.kind === "NON_NULL" && arg.defaultValue === null);
  const composite = schema.fields(schema.named(field.type)).length > 0;
  const indent = /[ \t]*$/.exec(before.slice(before.lastIndexOf("\n") + 1).replace(/\S.*$/, ""))[0];
  const inner = composite ? ` {\n${indent}  \n${indent}}` : "";
  const insert = `${field.name}${needs ? "()" : ""}${inner}`;
  const caret = needs ? field.name.length + 1 : composite ? field.name.length + 5 + indent.length : insert.length;
  return { ...item(field.name, shown(field.type), field.description, insert, caret), deprecated: field.isDeprecated };
}

const variables = (whole) => whole.operations.flatMap((operation) => operation.variables);

function valueItems(schema, type, whole) {
  const named = type ? schema.named(type) : null;
  const values = named?.enumValues?.map((value) => item(value.name, named.name, value.description)) ?? [];
  const simple = named?.name === "Boolean" ? [item("true"), item("false")] : [];
  const object = named?.kind === "INPUT_OBJECT" && type.kind !== "LIST" ? [item("{ }", named.name, named.description, "{  }", 2)] : [];
  const declared = variables(whole).map((variable) => item(`$${variable.name}`, shown(variable.type)));
  return [...values, ...simple, ...object, ...declared];
}

/** The offers that begin with what was typed, then those that hold it. */
function matching(typed, from, items) {
  const wanted = typed.toLowerCase();
  const rank = ({ label }) => {
    const name = label.toLowerCase();
    return name.startsWith(wanted) ? 0 : name.includes(wanted) ? 1 : 2;
  };
  const ranked = items.map((each) => ({ each, rank: rank(each) })).filter((pair) => pair.rank < 2);
  ranked.sort((one, other) => one.rank - other.rank);
  const found = ranked.slice(0, MOST).map((pair) => pair.each);
  return { from, items: found.length === 1 && found[0].label === typed ? [] : found };
}

const JSON_TOKEN = /"(?:\\.|[^"\\\n])*(?:"|$|(?=\n))|[{}[\],:]|-?[0-9][0-9.eE+-]*|[A-Za-z]+/g;

/** Suggestions in the variables, by what the document declares. */
export function variableCompletions(text, offset, schema, document) {
  if (!schema) return none(offset);
  const found = [...text.slice(0, offset).matchAll(JSON_TOKEN)];
  const last = found.at(-1);
  const partial = last && /^"?[_A-Za-z$]*$/.test(last[0]) && last.index + last[0].length === offset && !/^".*"$/.test(last[0]);
  const from = partial ? last.index : offset;
  const place = jsonPlace(partial ? found.slice(0, -1) : found);
  if (!place) return none(offset);
  const type = typeAt(place.path, schema, document);
  const typed = text.slice(from, offset).replace(/^"/, "");
  const closing = text[offset] === '"' ? 1 : 0;
  const items = place.key ? keyItems(type, place.given, closing) : jsonValues(type, schema, closing);
  return { ...matching(typed, from, items) };
}

function keyItems(type, given, closing) {
  return (type?.inputFields ?? [])
    .filter((field) => !given.includes(field.name))
    .map((field) => item(field.name, shown(field.type), field.description, `"${field.name}${closing ? "" : '": '}`));
}

function jsonValues(type, schema, closing) {
  if (type?.name === "Boolean") return [item("true"), item("false")];
  return (type?.enumValues ?? []).map((value) =>
    item(value.name, type.name, value.description, `"${value.name}${closing ? "" : '"'}`));
}

/** Where the JSON ends: the keys that lead there, whether a key is due, and the keys that stand beside it. */
function jsonPlace(found) {
  const open = [];
  for (const [token] of found) {
    const top = open.at(-1);
    if (token === "{" || token === "[") open.push({ list: token === "[", given: [], key: null, due: token === "{" });
    else if (token === "}" || token === "]") open.pop();
    else if (token === ":" && top) top.due = false;
    else if (token === "," && top) Object.assign(top, { key: null, due: !top.list });
    else if (top?.due) {
      top.key = token.replaceAll('"', "");
      top.given.push(top.key);
    }
  }
  const top = open.at(-1);
  if (!top) return null;
  const path = open.filter((each) => !each.list && each.key !== null).map((each) => each.key);
  return { path: top.due && top.key !== null ? path.slice(0, -1) : path, key: top.due, given: top.given };
}

function typeAt(path, schema, document) {
  const declared = read(document, schema).operations.flatMap((operation) => operation.variables);
  const root = { inputFields: declared.map((variable) => ({ name: variable.name, type: variable.type ?? {} })) };
  return path.reduce((type, key) => {
    const field = type?.inputFields?.find((each) => each.name === key);
    return field ? schema.named(field.type) : null;
  }, root);
}
