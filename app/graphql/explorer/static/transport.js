// How operations reach the server: by POST, and subscriptions by a WebSocket that has the key in its first message.

const URL_HERE = new URL(location.pathname, location.href);
const UNREACHABLE = "The server cannot be reached. Is it running?";

/** Sends a query or mutation: { status, milliseconds, bytes, body, repeated }. Throws an Error with a sentence. */
export async function send({ key, query, variables, operationName }, signal) {
  const began = performance.now();
  const headers = { "content-type": "application/json", accept: "application/graphql-response+json, application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const body = JSON.stringify({ query, variables, operationName: operationName || undefined });
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
    return { status: answer.status, milliseconds, bytes: text.length, body: JSON.parse(text) };
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
 * Subscribes. `heard` has connected(), next(result), failed(errors) and ended(sentence, whether it ended well);
 * the last is called once. Returns a function that stops it.
 */
export function subscribe({ key, query, variables, operationName }, heard) {
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
      say({ id: "1", type: "subscribe", payload: { query, variables, operationName: operationName || undefined } });
    },
    ping: ({ payload }) => say({ type: "pong", payload }),
    next: ({ payload }) => heard.next(payload),
    error({ payload }) {
      heard.failed(payload);
      end("Refused", false);
    },
    complete: () => end("Completed by the server", true),
  };
  socket.addEventListener("open", () =>
    say({ type: "connection_init", payload: key ? { Authorization: `Bearer ${key}` } : {} }));
  socket.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    if (!over) kinds[message.type]?.(message);
  });
  socket.addEventListener("close", (event) => end(CLOSED[event.code] ?? (event.reason || "The connection was lost."), false));
  return () => end("Stopped", true);
}
