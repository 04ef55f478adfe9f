// Reads a JSON list of documents, and with an introspected schema beside it what is wrong with each; writes
// for each document [how it is laid out, how that is laid out again, what is wrong with it].

import { pathToFileURL } from "node:url";
import { text } from "node:stream/consumers";

const from = (name) => import(pathToFileURL(`${process.argv[2]}/${name}`));
const [{ read }, { prettified }, { Schema }] = await Promise.all(["language.js", "pretty.js", "schema.js"].map(from));
const { schema, documents } = JSON.parse(await text(process.stdin));
const known = new Schema(schema);
process.stdout.write(JSON.stringify(documents.map((document) => {
  const once = prettified(document);
  return [once, prettified(once), read(document, known).problems.map((problem) => problem.message)];
})));
