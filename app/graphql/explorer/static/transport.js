// How operations reach the server: by POST, and subscriptions by a WebSocket that has the key in its first message.

import { part } from "./json.js";

const URL_HERE = new URL(location.pathname, location.href);
const UNREACHABLE = "The server cannot be reached. Is it running?";

/** What is asked, as JSON. The variables are their text, and stay it: their numbers may be any. */
function asked({ query, variables, operationName }) {
  const members = [`"query":${JSON.stringify(query)}`];
  if (variables) members.push(`"variables":${variables}`);
  if (operationName) members.push(`"operationName":${JSON.stringify(operationName)}`);
  return `{${members.join(",")}}`;
}

/** What keeps a key from being one: its first character that no key has, and no header may hold. */
function wrongIn(key) {
  const wrong = /[^\x21-\x7e]/u.exec(key ?? "");
  if (!wrong) return null;
  const code = wrong[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return `This is no key: its character ${[...key.slice(0, wrong.index)].length + 1} is “${wrong[0]}” (U+${code}). Copy it again.`;
}

/**
 * Sends a query or mutation, whose variables are JSON text: { status, milliseconds, text, body }. Throws an
 * Error with a sentence.
 */
export async function send(request, signal) {
  const { key } = request;
  const wrong = wrongIn(key);
  if (wrong) throw new Error(wrong);
  const began = performance.now();
  const headers = { "content-type": "application/json", accept: "application/graphql-response+json, application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const body = asked(request);
  let answer;
  let text;
  try {
    answer = await fetch(URL_HERE, { method: "POST", headers, body, signal, cache: "no-store", credentials: "omit" });
    text = await answer.text();
  } catch (fault) {
    throw fault.name === "AbortError" ? fault : new Error(UNREACHABLE);
  }
  const milliseconds = performance.now() - began;
  try {
    return { status: answer.status, milliseconds, text, body: JSON.parse(text) };
  } catch {
    throw new Error(`The answer is no JSON (HTTP ${answer.status}). Is there a proxy in between?`);
  }
}

const CLOSED = {
  4401: "The server wants a key.",
  4403: "The server does not accept this key, or it was revoked.",
  4408: "The server did not get the key in time.",
  4429: "This key has too many open connections.",
  1012: "The server stops or restarts. Run the subscription again.",
};

/**
 * Subscribes, as `send` does. `heard` has connected(), next(result), failed(errors), both JSON texts, and
 * ended(sentence, whether it ended well), which is called once. Returns a function that stops it.
 */
export function subscribe(request, heard) {
  const { key } = request;
  const address = new URL(URL_HERE);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address, "graphql-transport-ws");
  let over = false;
  const say = (message) => socket.send(JSON.stringify(message));
  const end = (sentence, well) => {
    if (over) return;
    over = true;
    socket.close(1000);
    heard.ended(sentence, well);
  };
  const kinds = {
    connection_ack() {
      heard.connected();
      socket.send(`{"id":"1","type":"subscribe","payload":${asked(request)}}`);
    },
    ping: ({ payload }) => say({ type: "pong", payload }),
    next: (_, text) => heard.next(part(text, "payload")),
    error(_, text) {
      heard.failed(part(text, "payload"));
      end("Refused", false);
    },
    complete: () => end("Completed by the server", true),
  };
  socket.addEventListener("open", () =>
    say({ type: "connection_init", payload: key ? { Authorization: `Bearer ${key}` } : {} }));
  socket.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (!over) kinds[message.type]?.(message, event.data);
  });
  socket.addEventListener("close", (event) => end(CLOSED[event.code] ?? (event.reason || "The connection was lost."), false));
  return () => end("Stopped", true);
}
