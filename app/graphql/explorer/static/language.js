// Reading GraphQL: tokens, and a parser that takes unfinished documents and says what could stand where.

const TOKEN = /(?<comment>#[^\n\r]*)|(?<string>"""(?:\\"""|[^"]|"(?!""))*(?:"""|$)|"(?:\\.|[^"\\\n\r])*(?:"|$|(?=[\n\r])))|(?<number>-?[0-9][0-9.eE+-]*)|(?<name>[_A-Za-z][_0-9A-Za-z]*)|(?<mark>\.\.\.|[!$&():=@[\]{|}])|(?<space>[\s,\ufeff]+)|(?<other>.)/gsu;

/** The tokens of a document: kind, text, start, end. Together they are the whole text. */
export function tokens(text) {
  return [...text.matchAll(TOKEN)].map((found) => ({
    kind: Object.keys(found.groups).find((kind) => found.groups[kind] !== undefined),
    text: found[0],
    start: found.index,
    end: found.index + found[0].length,
  }));
}

const KINDS = ["query", "mutation", "subscription"];

/**
 * What a document says: `operations` (kind, name, variables, start), `fragments`, `problems` (start, end,
 * message), `marks` (start, end and the definition that stands there), and `expected`: what may come at its end.
 * Without a schema it knows no types, and finds fewer problems.
 */
export function read(text, schema = null) {
  return new Reader(text, schema).document();
}

class Reader {
  constructor(text, schema) {
    this.schema = schema;
    this.tokens = tokens(text).filter((token) => token.kind !== "space" && token.kind !== "comment");
    this.place = 0;
    this.length = text.length;
    this.found = { operations: [], fragments: [], problems: [], marks: [], expected: null };
    this.spreads = [];
    this.operation = null;
  }

  get token() {
    return this.tokens[this.place];
  }

  at(text) {
    return this.token?.text === text && this.token.kind !== "string";
  }

  skip(text) {
    if (!this.at(text)) return false;
    this.place += 1;
    return true;
  }

  /** Notes what may stand here if the document ends here; what was expected first is meant. */
  expect(expected) {
    if (!this.token) this.found.expected ??= expected;
  }

  next() {
    const token = this.token;
    if (token) this.place += 1;
    return token;
  }

  name(expected) {
    if (expected) this.expect(expected);
    return this.token?.kind === "name" ? this.next() : null;
  }

  problem(token, message) {
    const at = token ?? { start: Math.max(0, this.length - 1), end: this.length };
    this.found.problems.push({ start: at.start, end: at.end, message });
  }

  mark(token, mark) {
    this.found.marks.push({ start: token.start, end: token.end, ...mark });
  }

  wanted(text) {
    this.expect({ in: "nothing" });
    if (this.skip(text)) return true;
    this.problem(this.token, this.token ? `Expected ${text} here` : `Expected ${text} at the end`);
    return false;
  }

  document() {
    while (this.token) this.definition();
    this.expect({ in: "definition" });
    for (const { token, name } of this.spreads) {
      if (!this.found.fragments.some((fragment) => fragment.name === name)) {
        this.problem(token, `There is no fragment ${name}`);
      }
    }
    return this.found;
  }

  definition() {
    const token = this.token;
    if (token.text === "{") this.operationOf("query", token.start);
    else if (KINDS.includes(token.text)) this.operationOf(this.next().text, token.start);
    else if (token.text === "fragment") this.fragment();
    else {
      this.problem(this.next(), "Expected query, mutation, subscription, fragment or {");
    }
  }

  operationOf(kind, start) {
    const operation = { kind, name: null, variables: [], start, used: [] };
    this.operation = operation;
    this.found.operations.push(operation);
    operation.name = this.name()?.text ?? null;
    this.expect({ in: "nothing" });
    if (this.skip("(")) this.variables(operation);
    this.directives();
    this.selections(this.schema?.root(kind) ?? null, true);
    operation.end = this.tokens[this.place - 1]?.end ?? this.length;
    this.checkVariables(operation);
    this.operation = null;
  }

  checkVariables(operation) {
    for (const { token, name } of operation.used) {
      if (!operation.variables.some((variable) => variable.name === name)) {
        this.problem(token, `The operation does not declare $${name}`);
      }
    }
  }

  variables(operation) {
    while (this.token && !this.at(")")) {
      if (!this.skip("$")) {
        this.problem(this.next(), "Expected a variable such as $id here");
        continue;
      }
      const name = this.name({ in: "nothing" });
      this.wanted(":");
      const type = this.type();
      if (name) operation.variables.push({ name: name.text, type });
      if (this.skip("=")) this.value(type);
      this.directives();
    }
    this.wanted(")");
  }

  type() {
    this.expect({ in: "inputType" });
    let type = null;
    if (this.skip("[")) {
      type = { kind: "LIST", ofType: this.type() };
      this.wanted("]");
    } else {
      const name = this.name();
      if (!name) {
        this.problem(this.token, "Expected a type here");
        return null;
      }
      const known = this.schema?.type(name.text);
      if (this.schema && !known) this.problem(name, `There is no type ${name.text}`);
      if (known) this.mark(name, { type: known });
      type = { kind: known?.kind, name: name.text };
    }
    return this.skip("!") ? { kind: "NON_NULL", ofType: type } : type;
  }

  fragment() {
    this.next();
    const name = this.name({ in: "nothing" });
    this.wanted("on");
    const on = this.name({ in: "compositeType" });
    const type = on ? this.schema?.type(on.text) ?? null : null;
    if (on && this.schema && !type) this.problem(on, `There is no type ${on.text}`);
    if (name) this.found.fragments.push({ name: name.text, on: on?.text ?? null });
    this.directives();
    this.selections(type, true);
  }

  directives() {
    while (this.skip("@")) {
      const name = this.name({ in: "directive" });
      const directive = this.schema?.directives.find((each) => each.name === name?.text);
      if (name && this.schema && !directive) this.problem(name, `There is no directive @${name.text}`);
      if (this.skip("(")) this.arguments(directive?.args ?? null);
    }
  }

  selections(type, needed) {
    if (!this.at("{")) {
      if (needed) this.wanted("{");
      return;
    }
    const opening = this.next();
    let some = false;
    while (this.token && !this.at("}")) {
      some = true;
      if (this.skip("...")) this.spread(type);
      else if (this.token.kind === "name") this.field(type);
      else this.problem(this.next(), `${this.tokens[this.place - 1].text} cannot stand here`);
    }
    this.expect({ in: "field", type });
    if (!some && this.token) this.problem(opening, "Nothing is selected");
    this.wanted("}");
  }

  spread(type) {
    this.expect({ in: "spread", type });
    if (this.skip("on")) {
      const on = this.name({ in: "typeCondition", type });
      const known = on ? this.schema?.type(on.text) ?? null : null;
      if (on && this.schema && !known) this.problem(on, `There is no type ${on.text}`);
      this.directives();
      this.selections(known, true);
      return;
    }
    const name = this.name();
    if (name) this.spreads.push({ token: name, name: name.text });
    this.directives();
    if (!name) this.selections(type, true);
  }

  field(type) {
    let name = this.next();
    if (this.skip(":")) {
      name = this.name({ in: "field", type });
      if (!name) {
        this.problem(this.token, "Expected a field after its alias");
        return;
      }
    }
    const field = this.schema?.field(type, name.text) ?? null;
    if (type && !field) this.problem(name, `${type.name} has no field ${name.text}`);
    if (field) this.mark(name, { field, parent: type });
    const given = this.skip("(") ? this.arguments(field?.args ?? null) : [];
    this.checkRequired(name, field?.args ?? [], given);
    this.directives();
    const inner = field ? this.schema.named(field.type) : null;
    const leaf = inner && ["SCALAR", "ENUM"].includes(inner.kind);
    if (leaf && this.at("{")) this.problem(this.token, `${name.text} has no fields: it is of type ${inner.name}`);
    if (inner && !leaf && !this.at("{")) {
      this.problem(name, `Select fields of ${name.text}: it is of type ${inner.name}`);
    }
    this.selections(inner, false);
  }

  checkRequired(token, args, given) {
    const missing = args.filter(
      (arg) => arg.type.kind === "NON_NULL" && arg.defaultValue === null && !given.includes(arg.name),
    );
    if (missing.length) this.problem(token, `${token.text} needs ${missing.map((arg) => arg.name).join(", ")}`);
  }

  arguments(args) {
    const given = this.members(args, ")", "argument");
    this.wanted(")");
    return given;
  }

  members(defined, closing, what) {
    const given = [];
    while (this.token && !this.at(closing)) {
      const name = this.name();
      if (!name) {
        this.problem(this.next(), `Expected an ${what} here`);
        continue;
      }
      const member = defined?.find((each) => each.name === name.text) ?? null;
      if (defined && !member) this.problem(name, `There is no ${what} ${name.text}`);
      if (member) this.mark(name, { argument: member });
      given.push(name.text);
      if (this.wanted(":")) this.value(member?.type ?? null);
    }
    this.expect({ in: "argument", args: defined, given });
    return given;
  }

  value(type) {
    const bare = type?.kind === "NON_NULL" ? type.ofType : type;
    this.expect({ in: "value", type: bare });
    const token = this.token;
    if (!token) {
      this.problem(token, "Expected a value at the end");
      return;
    }
    if (this.skip("$")) {
      const name = this.name({ in: "variable", type: bare });
      if (name && this.operation) this.operation.used.push({ token: name, name: name.text });
    } else if (this.skip("[")) {
      const inner = bare?.kind === "LIST" ? bare.ofType : null;
      while (this.token && !this.at("]")) this.value(inner);
      this.expect({ in: "value", type: inner?.kind === "NON_NULL" ? inner.ofType : inner });
      this.wanted("]");
    } else if (this.skip("{")) {
      const input = bare ? this.schema?.named(bare) : null;
      const fields = input?.kind === "INPUT_OBJECT" ? input.inputFields : null;
      const given = this.members(fields, "}", "input field");
      this.checkRequired(token, fields ?? [], given);
      this.wanted("}");
    } else if (["string", "number", "name"].includes(token.kind)) {
      this.next();
      this.checkEnum(token, bare);
    } else {
      this.problem(this.next(), "Expected a value here");
    }
  }

  checkEnum(token, type) {
    const named = type ? this.schema?.named(type) : null;
    if (named?.kind !== "ENUM" || token.text === "null") return;
    const value = named.enumValues.find((each) => each.name === token.text);
    if (value) this.mark(token, { value, parent: named });
    else this.problem(token, `${named.name} has no value ${token.text}`);
  }
}
