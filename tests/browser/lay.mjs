// Reads a JSON list of [text, path]; writes for each how the explorer lays out the text, and the part at the path.

import { pathToFileURL } from "node:url";
import { text } from "node:stream/consumers";

const { laidOut, part } = await import(pathToFileURL(`${process.argv[2]}/json.js`));
const given = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(given.map(([json, path]) => [laidOut(json), part(json, ...path)])));
