// For `node --test --test-reporter`: one line of JSON for each test, [name, how it failed or ""].

import { stripVTControlCharacters } from "node:util";

export default async function* report(events) {
  for await (const { type, data } of events) {
    if (!["test:pass", "test:fail"].includes(type) || data.details?.type === "suite") continue;
    const error = data.details.error;
    const cause = error?.cause ?? error;
    yield `${JSON.stringify([data.name, error ? stripVTControlCharacters(String(cause.stack ?? cause)) : ""])}\n`;
  }
}
