// Laying out documents and JSON.

import { laidOut } from "./json.js";
import { tokens } from "./language.js";

const WIDTH = 88;

/** A document with one selection a line. What does not parse is laid out as far as it goes; comments stay. */
export function prettified(text) {
  return new Printer(tokens(text).filter((token) => token.kind !== "space")).document();
}

class Printer {
  constructor(found) {
    this.tokens = found;
    this.place = 0;
    this.lines = [];
    this.line = "";
    this.depth = 0;
  }

  get token() {
    return this.tokens[this.place];
  }

  document() {
    while (this.token) {
      const { text, kind } = this.token;
      if (kind === "comment") this.comment();
      else if (text === "{") this.open();
      else if (text === "}") this.close();
      else if (text === "(") this.group();
      else this.word();
    }
    this.flush();
    return `${this.lines.join("\n").trim()}\n`;
  }

  flush() {
    if (this.line.trim()) this.lines.push("  ".repeat(this.depth) + this.line.trim());
    this.line = "";
  }

  comment() {
    this.flush();
    this.line = this.tokens[this.place++].text;
    this.flush();
  }

  open() {
    this.place += 1;
    this.line = this.line ? `${this.line} {` : "{";
    this.flush();
    this.depth += 1;
  }

  close() {
    this.place += 1;
    this.flush();
    this.depth = Math.max(0, this.depth - 1);
    this.line = "}";
    this.flush();
    if (this.depth === 0 && this.token) this.lines.push("");
  }

  word() {
    const token = this.tokens[this.place];
    if (this.beginsLine(token)) this.flush();
    this.line += (this.line ? between(this.tokens[this.place - 1], token, 0) : "") + token.text;
    this.place += 1;
  }

  /** In a selection every field and spread has a line of its own. */
  beginsLine(token) {
    const before = this.tokens[this.place - 1]?.text;
    if (this.depth === 0 || token.kind === "string") return false;
    if (token.text === "...") return true;
    return token.kind === "name" && ![":", "@", "$", "..."].includes(before) && !/\.\.\. on$/.test(this.line);
  }

  /** Arguments or variables: on the line where they fit, else one a line. */
  group() {
    const from = this.place;
    let depth = 0;
    do {
      if (this.token.text === "(") depth += 1;
      if (this.token.text === ")") depth -= 1;
      this.place += 1;
    } while (this.token && depth > 0);
    const inner = this.tokens.slice(from + 1, depth === 0 ? this.place - 1 : this.place);
    if (["query", "mutation", "subscription"].includes(this.line)) this.line += " ";
    const members = parted(inner).map(flat);
    const whole = `(${members.join(", ")})`;
    const fits = 2 * this.depth + this.line.length + whole.length <= WIDTH;
    if (fits && !inner.some((token) => token.kind === "comment" || token.text.includes("\n"))) {
      this.line += whole;
      return;
    }
    this.line += "(";
    this.flush();
    this.depth += 1;
    for (const member of members) {
      this.line = member;
      this.flush();
    }
    this.depth -= 1;
    this.line = ")";
  }
}

/** The members of a group: each begins with `name:` or `$name:`, or is a comment. */
function parted(found) {
  const members = [];
  let depth = 0;
  found.forEach((token, place) => {
    const dollar = token.text === "$" && found[place + 2]?.text === ":";
    const named = found[place + 1]?.text === ":" && found[place - 1]?.text !== "$" && token.kind === "name";
    if (members.length === 0 || (depth === 0 && (dollar || named || token.kind === "comment"))) members.push([]);
    members.at(-1).push(token);
    if ("[{".includes(token.text)) depth += 1;
    if ("]}".includes(token.text)) depth -= 1;
  });
  return members;
}

/** Tokens of a value or variable on one line. */
function flat(found) {
  let text = "";
  let depth = 0;
  found.forEach((token, place) => {
    text += between(found[place - 1], token, depth) + token.text;
    if ("[{(".includes(token.text)) depth += 1;
    if ("]})".includes(token.text)) depth -= 1;
  });
  return text;
}

const isValue = (token) => ["name", "number", "string"].includes(token.kind);

/** What stands between two tokens of a line; inside of brackets, values are parted by commas. */
function between(before, token, depth) {
  if (!before || ["$", "[", "@", "("].includes(before.text)) return "";
  if (["]", ":", "!", ")", "("].includes(token.text) || before.text + token.text === "{}") return "";
  if (before.text === "...") return ["on", "@", "{"].includes(token.text) ? " " : "";
  const ends = isValue(before) || ["]", "}"].includes(before.text);
  const begins = isValue(token) || ["$", "[", "{"].includes(token.text);
  return depth > 0 && ends && begins ? ", " : " ";
}

/** JSON with two spaces a level, or null if it is none. */
export function prettifiedJson(text) {
  if (!text.trim()) return "";
  try {
    JSON.parse(text);
    return `${laidOut(text)}\n`;
  } catch {
    return null;
  }
}
