// The schema as the server describes it, and the questions that the other parts ask it.

const TYPE = "kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";
const VALUE = `name description defaultValue isDeprecated deprecationReason type { ${TYPE} }`;

export const INTROSPECTION = `query Schema { __schema {
  queryType { name } mutationType { name } subscriptionType { name }
  directives { name description args { ${VALUE} } }
  types {
    kind name description
    fields(includeDeprecated: true) {
      name description isDeprecated deprecationReason type { ${TYPE} } args(includeDeprecated: true) { ${VALUE} }
    }
    inputFields(includeDeprecated: true) { ${VALUE} }
    enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason }
    interfaces { name } possibleTypes { name }
  }
} }`;

const TYPENAME = {
  name: "__typename",
  description: "The name of the object's type.",
  type: { kind: "NON_NULL", ofType: { kind: "SCALAR", name: "String" } },
  args: [],
};

export class Schema {
  constructor({ __schema: found }) {
    this.types = new Map(found.types.map((type) => [type.name, type]));
    this.directives = found.directives;
    this.roots = { query: found.queryType, mutation: found.mutationType, subscription: found.subscriptionType };
  }

  /** The type of this name, if there is one. */
  type(name) {
    return this.types.get(name) ?? null;
  }

  /** The object that operations of this kind begin at. */
  root(kind) {
    return this.type(this.roots[kind]?.name);
  }

  /** The type itself, without lists and exclamation marks. */
  named(type) {
    let bare = type;
    while (bare?.ofType) bare = bare.ofType;
    return this.type(bare?.name);
  }

  /** The field of an object, an interface or a union. */
  field(type, name) {
    if (!type) return null;
    if (name === "__typename") return TYPENAME;
    return type.fields?.find((field) => field.name === name) ?? null;
  }

  /** All fields that can be selected of a type. */
  fields(type) {
    return type && ["OBJECT", "INTERFACE", "UNION"].includes(type.kind) ? [...(type.fields ?? []), TYPENAME] : [];
  }

  /** Types that an operation can have variables of. */
  inputs() {
    return [...this.types.values()].filter((type) => ["SCALAR", "ENUM", "INPUT_OBJECT"].includes(type.kind));
  }

  /** Types that a fragment on `type` can name. */
  conditions(type) {
    const some = [...this.types.values()].filter(
      (each) => ["OBJECT", "INTERFACE", "UNION"].includes(each.kind) && !each.name.startsWith("__"),
    );
    if (!type) return some;
    const possible = new Set([type.name, ...(type.possibleTypes ?? []).map((each) => each.name)]);
    return some.filter((each) => possible.has(each.name));
  }
}

/** A type as it is written: [Campaign!]! */
export function shown(type) {
  if (!type) return "";
  if (type.kind === "NON_NULL") return `${shown(type.ofType)}!`;
  return type.kind === "LIST" ? `[${shown(type.ofType)}]` : type.name;
}

/** A field or directive with its arguments as it is written. */
export function signature(field, short = false) {
  const args = (field.args ?? []).map(
    (arg) => `${arg.name}: ${shown(arg.type)}${arg.defaultValue === null ? "" : ` = ${arg.defaultValue}`}`,
  );
  const list = args.length === 0 ? "" : short && args.length > 2 ? "(…)" : `(${args.join(", ")})`;
  return `${field.name}${list}${field.type ? `: ${shown(field.type)}` : ""}`;
}

const LEAVES = ["SCALAR", "ENUM"];
const MAX_LEAVES = 6;

/** An operation that asks for a root field: what it needs as variables, and the plain fields of its answer. */
export function operationFor(schema, kind, field) {
  const required = field.args.filter((arg) => arg.type.kind === "NON_NULL" && arg.defaultValue === null);
  const declared = required.map((arg) => `$${arg.name}: ${shown(arg.type)}`).join(", ");
  const given = required.map((arg) => `${arg.name}: $${arg.name}`).join(", ");
  const name = field.name[0].toUpperCase() + field.name.slice(1);
  const selected = selection(schema, field, 2);
  return {
    query: `${kind} ${name}${declared ? `(${declared})` : ""} { ${field.name}${given ? `(${given})` : ""}${selected} }`,
    variables: Object.fromEntries(required.map((arg) => [arg.name, sample(schema, arg.type)])),
  };
}

function selection(schema, field, deep) {
  const type = schema.named(field.type);
  if (!type || LEAVES.includes(type.kind)) return "";
  const free = (type.fields ?? []).filter((each) => !each.args.some((arg) => arg.type.kind === "NON_NULL"));
  const leaves = free.filter((each) => LEAVES.includes(schema.named(each.type)?.kind)).slice(0, MAX_LEAVES);
  const parts = leaves.map((each) => each.name);
  const followed = type.name.endsWith("Connection") ? ["nodes", "pageInfo"] : null;
  const inner = free.filter((each) =>
    followed ? followed.includes(each.name) : type.name.endsWith("Payload") || !leaves.length);
  if (deep > 0) parts.push(...inner.filter((each) => !leaves.includes(each)).map((each) => each.name + selection(schema, each, deep - 1)));
  return ` { ${parts.join(" ") || "__typename"} }`;
}

/** A value of a type to begin with: what is required, empty. */
export function sample(schema, type, deep = 4) {
  const bare = type.kind === "NON_NULL" ? type.ofType : type;
  if (bare.kind === "LIST") return bare.ofType.kind === "NON_NULL" && deep > 0 ? [sample(schema, bare.ofType, deep - 1)] : [];
  const named = schema.named(bare);
  if (named?.kind === "ENUM") return named.enumValues[0]?.name ?? null;
  if (named?.kind === "INPUT_OBJECT" && deep > 0) {
    const needed = named.inputFields.filter((field) => field.type.kind === "NON_NULL" && field.defaultValue === null);
    return Object.fromEntries(needed.map((field) => [field.name, sample(schema, field.type, deep - 1)]));
  }
  return { Int: 0, Float: 0, Boolean: false, JSON: {} }[named?.name] ?? "";
}
