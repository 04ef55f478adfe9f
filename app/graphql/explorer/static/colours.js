// What is what in a text, for colouring.

import { tokens } from "./language.js";

const WORDS = new Set(["query", "mutation", "subscription", "fragment", "on"]);

/** The pieces of a GraphQL document. */
export function graphql(text) {
  const found = tokens(text);
  const solid = found.filter((token) => token.kind !== "space" && token.kind !== "comment");
  const after = new Map(solid.map((token, place) => [token, { before: solid[place - 1], next: solid[place + 1] }]));
  return found.map((token) => ({ text: token.text, class: classOf(token, after.get(token)) }));
}

function classOf(token, around) {
  if (token.kind !== "name") return { comment: "comment", string: "string", number: "number", other: "other", mark: "mark" }[token.kind];
  const { before, next } = around;
  if (before?.text === "$") return "variable";
  if (before?.text === "@") return "directive";
  if (WORDS.has(token.text) && next?.text !== ":" && (!before || ["}", "..."].includes(before.text) || before.kind === "name")) return "word";
  if (["true", "false", "null"].includes(token.text)) return "number";
  if (before && WORDS.has(before.text) && before.kind === "name") return "type";
  if (/^[A-Z][A-Z0-9_]*$/.test(token.text) && token.text.length > 1) return "enum";
  if (/^[A-Z]/.test(token.text)) return "type";
  return next?.text === ":" ? "argument" : "field";
}

const JSON_PIECE = /("(?:\\.|[^"\\\n])*"?)(\s*:)?|(-?[0-9][0-9.eE+-]*|true|false|null)|([\s\S])/g;

/** The pieces of a JSON text. */
export function json(text) {
  const pieces = [];
  for (const [whole, string, colon, literal] of text.matchAll(JSON_PIECE)) {
    if (string !== undefined) {
      pieces.push({ text: string, class: colon ? "argument" : "string" });
      if (colon) pieces.push({ text: colon, class: "mark" });
    } else if (literal !== undefined) pieces.push({ text: literal, class: "number" });
    else if (pieces.length && !pieces.at(-1).class) pieces.at(-1).text += whole;
    else pieces.push({ text: whole });
  }
  return pieces;
}
