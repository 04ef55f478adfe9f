// The audits of GraphQL over HTTP: one line of JSON for each, with what was wrong or "".
import { serverAudits } from "graphql-http";

const { CARILLON, KEY } = process.env;
const fetchFn = (url, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set("authorization", `Bearer ${KEY}`);
  return fetch(url, { ...init, headers, signal: AbortSignal.timeout(15_000) });
};

for (const { name, fn } of serverAudits({ url: `${CARILLON}/graphql`, fetchFn })) {
  const { status, reason } = await fn();
  console.log(JSON.stringify([name, status === "ok" ? "" : String(reason)]));
}
