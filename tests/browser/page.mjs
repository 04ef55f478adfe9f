// A browser with the explorer in it, and a client that makes what the explorer is to show.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

export const SERVER = process.env.CARILLON;
export const KEY = process.env.KEY;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** One Chromium for all tests. */
export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox"], // tests run as root, too
  env: { ...process.env, LD_LIBRARY_PATH: process.env.CHROMIUM_LIBRARIES },
});

/** The data of an operation, by POST. */
export async function ask(query, variables) {
  const headers = { authorization: `Bearer ${KEY}`, "content-type": "application/json" };
  const answer = await fetch(`${SERVER}/graphql`, { method: "POST", headers, body: JSON.stringify({ query, variables }) });
  const body = await answer.json();
  assert.equal(body.errors, undefined, JSON.stringify(body.errors));
  return body.data;
}

/** A visit to the explorer: its page, and everything that the page asked for or complained of. */
export class Visit {
  static async begin({ key = KEY, server = SERVER, width = 1440, height = 900, colors = "light" } = {}) {
    const visit = new Visit();
    visit.context = await browser.newContext({ viewport: { width, height }, colorScheme: colors, permissions: ["clipboard-read", "clipboard-write"] });
    visit.requests = [];
    visit.complaints = [];
    await visit.open(server);
    if (key) await visit.enter(key);
    return visit;
  }

  async open(server = SERVER, rest = "") {
    this.page = await this.context.newPage();
    this.page.setDefaultTimeout(10_000);
    this.page.on("request", (request) => this.requests.push(request));
    this.page.on("websocket", (socket) => this.requests.push(socket));
    this.page.on("pageerror", (error) => this.complaints.push(error.message));
    this.page.on("console", (message) => {
      const refusal = /Failed to load resource: the server responded with a status of 4\d\d/; // shown in the page
      if (message.type() === "error" && !refusal.test(message.text())) this.complaints.push(message.text());
    });
    await this.page.goto(`${server}/graphql${rest}`);
  }

  async enter(key) {
    await this.page.getByLabel("API key").fill(key);
    await this.page.locator("#viewer:not(:empty)").waitFor();
    await this.page.locator("#docs h2").first().waitFor();
  }

  get query() {
    return this.page.getByLabel("Operation, in GraphQL");
  }

  get variables() {
    return this.page.getByLabel("Variables, as JSON");
  }

  get result() {
    return this.page.getByRole("region", { name: "Answer of the server" });
  }

  get offers() {
    return this.page.locator('.offers [role="option"]');
  }

  /** Puts the caret behind a text. */
  async caretBehind(text) {
    await this.query.evaluate((area, behind) => {
      area.focus();
      const at = area.value.indexOf(behind) + behind.length;
      area.setSelectionRange(at, at);
    }, text);
  }

  /** Writes an operation and runs it; gives the answer that is shown. */
  async run(query, variables = "") {
    await this.query.fill(query);
    await this.variables.fill(variables);
    await this.page.locator("#status").evaluate((status) => { status.className = ""; });
    await this.query.press("Control+Enter");
    await this.page.locator("#status.good, #status.bad").waitFor();
    return JSON.parse(await this.result.locator("pre.json").last().innerText());
  }

  /** What axe-core finds wrong with the page as it is. */
  async judged() {
    await this.page.evaluate(() => undefined);
    const session = await this.context.newCDPSession(this.page);
    await session.send("Runtime.evaluate", { expression: AXE });
    const { result } = await session.send("Runtime.evaluate", {
      expression: `axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] })
        .then((found) => found.violations.map((each) => each.id + ": " + each.nodes.map((node) => node.html + " " + node.any.map((one) => one.message)).join(" | ")))`,
      awaitPromise: true, returnByValue: true,
    });
    return result.value;
  }

  /** Ends the visit. The page must not have complained of anything. */
  async end() {
    await this.context.close();
    assert.deepEqual(this.complaints, []);
  }
}

/** Runs `what` with a visit that is ended whatever happens. */
export async function visiting(options, what) {
  const visit = await Visit.begin(options);
  try {
    await what(visit);
  } catch (failure) {
    await visit.context.close();
    throw failure;
  }
  await visit.end();
}
