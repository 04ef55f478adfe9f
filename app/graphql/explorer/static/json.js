// JSON as the text that it is. Parsed and written again, a number that JavaScript cannot hold would be another.

const PIECE = /"(?:\\.|[^"\\])*"|[{}[\],:]|[^\s{}[\],:"]+/g;
const OPENING = new Set(["{", "["]);
const CLOSING = new Set(["}", "]"]);

/** A JSON text with two spaces a level and every value as it was written. */
export function laidOut(text) {
  const written = [];
  let depth = 0;
  let before = "";
  for (const [piece] of text.matchAll(PIECE)) {
    if (CLOSING.has(piece)) depth -= 1;
    const begins = CLOSING.has(piece) ? !OPENING.has(before) : OPENING.has(before) || before === ",";
    if (begins) written.push("\n", "  ".repeat(depth));
    written.push(piece === ":" ? ": " : piece);
    if (OPENING.has(piece)) depth += 1;
    before = piece;
  }
  return written.join("");
}

/** The text of the value that names and positions lead to within a JSON text; null where there is none. */
export function part(text, ...path) {
  return path.reduce((whole, step) => (whole === null ? null : new Map(members(whole)).get(step) ?? null), text);
}

/** The members of an object, or the items of a list: [name or position, text]. */
function* members(text) {
  let depth = 0;
  let name = null;
  let from = null;
  let position = 0;
  for (const { 0: piece, index } of text.matchAll(PIECE)) {
    const outermost = depth === 1;
    if (CLOSING.has(piece)) depth -= 1;
    if (OPENING.has(piece)) depth += 1;
    if (!outermost) continue;
    if (piece === ":") {
      name = JSON.parse(text.slice(from, index));
      from = null;
    } else if (piece !== "," && !CLOSING.has(piece)) {
      from ??= index;
    } else if (from !== null) {
      yield [name ?? position, text.slice(from, index).trim()];
      name = from = null;
      position += 1;
    }
  }
}

/** The text of an object, or nothing, with more members behind its own, laid out. */
export function extended(text, more) {
  const own = text.trim().replace(/^\{|\}$/g, "").trim();
  const added = Object.entries(more).map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  return laidOut(`{${[own, ...added].filter(Boolean).join(",")}}`);
}
