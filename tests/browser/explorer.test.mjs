// The explorer in a real browser, against a running server.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { KEY, SERVER, ask, browser, visiting } from "./page.mjs";

const HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>';

before(async () => {
  const people = Array.from({ length: 40 }, (_, place) => ({ userId: `u${place}`, name: `Reader ${place}` }));
  await ask("mutation($input: UpsertUsersInput!) { upsertUsers(input: $input) { errors { message } } }", {
    input: { users: [{ userId: "shop", name: HOSTILE }, ...people] },
  });
  for (const [campaignId, pace] of [["fast", null], ["slow", 1]]) {
    await ask("mutation($input: CreateCampaignInput!) { createCampaign(input: $input) { errors { message } } }", {
      input: {
        campaignId, name: HOSTILE, senderId: "shop", userIds: people.map((each) => each.userId), createChannels: true,
        channelTemplate: { type: "messaging" }, messageTemplate: { text: "Hello" }, maxMessagesPerSecond: pace,
      },
    });
  }
  await ask('mutation { startCampaign(input: { campaignId: "slow" }) { errors { message } } }');
});

after(() => browser.close());

test("a query is written with suggestions, run by the keyboard, and answered", () => visiting({}, async (visit) => {
  const { page, query, offers } = visit;
  await query.fill("");
  await query.pressSequentially("{ camp");
  assert.match(await offers.first().innerText(), /^campaign\s/);
  await query.press("ArrowDown");
  assert.match(await page.locator('[role="option"][aria-selected="true"]').innerText(), /^campaigns\s/);
  await query.press("Enter");
  await query.pressSequentially("tot");
  await query.press("Tab");
  assert.equal(await query.inputValue(), "{ campaigns {\n  totalCount\n}");
  await query.fill("{ campaigns { totalCount } }");
  await query.press("Control+Enter");
  await page.locator("#status.good").waitFor();
  assert.deepEqual(JSON.parse(await visit.result.innerText()), { data: { campaigns: { totalCount: 2 } } });
}));

test("suggestions know arguments, enum values, input fields, variables and fragments", () => visiting({}, async (visit) => {
  const { query, offers, page } = visit;
  const offered = async (text) => {
    await query.fill(text);
    await query.press("Control+End");
    await query.press("Control+ ");
    const found = await offers.evaluateAll((all) => all.map((each) => each.querySelector("b").textContent));
    await query.press("Escape");
    return found;
  };
  assert.deepEqual((await offered("{ campaigns(")).toSorted(), ["after", "before", "filter", "first", "last", "sort"]);
  assert.deepEqual(await offered("{ campaigns(filter: {status: {eq: PA"), ["PAUSED"]);
  assert.ok((await offered("{ campaigns(filter: {")).includes("senderId"));
  assert.deepEqual(await offered("query ($who: String!) { user(userId: $"), ["who"]);
  assert.ok((await offered("query ($input: CreateC")).includes("CreateCampaignInput"));
  assert.deepEqual(await offered("fragment F on User { id } { viewer { ...F"), []); // it stands there already
  assert.ok((await offered('{ node(id: "") { ...on ')).includes("Campaign"));
  assert.deepEqual(await offered('{ user(userId: "'), []);
  await query.fill("mutation ($input: StartCampaignInput!) { startCampaign(input: $input) { errors { code } } }");
  await visit.variables.fill('{"input": {"c');
  await visit.variables.press("Control+ ");
  assert.match(await offers.first().innerText(), /^campaignId\s/);
  await visit.variables.press("Enter");
  assert.equal(await visit.variables.inputValue(), '{"input": {"campaignId": ');
  assert.equal(await page.getByRole("listbox").count(), 0);
}));

test("refusals of a mutation are shown with code, sentence, path and details", () => visiting({}, async (visit) => {
  const mutation = "mutation ($input: CreateCampaignInput!) { createCampaign(input: $input) { errors { code message path details } } }";
  const input = { senderId: "shop", messageTemplate: { text: "Hello {{ reciever }}" } };
  await visit.run(mutation, JSON.stringify({ input }));
  const error = visit.page.getByRole("list", { name: "Errors" }).getByRole("listitem");
  assert.match(await error.innerText(), /INVALID_INPUT .*'reciever' is unknown/);
  assert.match(await error.innerText(), /createCampaign › input › messageTemplate › text/);
  await error.getByText("Details", { exact: true }).click();
  assert.match(await error.innerText(), /"column": 10/);
}));

test("digits of variables and answers stay as they are written", () => visiting({}, async (visit) => {
  const upsert = "mutation ($custom: JSON) { upsertUsers(input: {users: [{userId: \"u1\", custom: $custom}]}) { users { custom } errors { message } } }";
  const custom = '{"whole": 9007199254740993, "large": 9223372036854775807, "part": 1.0, "small": 1e-7, "text": "{\\"a\\": [1,2]}"}';
  const shown = async () => (await visit.result.locator("pre.json").last().textContent()).replaceAll(/\s/g, "");
  await visit.run(upsert, `{"custom": ${custom}}`);
  assert.match(visit.requests.at(-1).postData(), /"variables":\{"custom": \{"whole": 9007199254740993, .*"small": 1e-7,/);
  for (const digits of ["9007199254740993", "9223372036854775807", '"part":1.0,']) assert.ok((await shown()).includes(digits), await shown());
  await visit.page.locator("#copy-answer").click();
  await visit.page.getByText("Copied the answer.").first().waitFor();
  assert.match(await visit.page.evaluate(() => navigator.clipboard.readText()), /\n {12}"whole": 9007199254740993,\n/);

  await visit.variables.fill('{"custom": {"a": 9007199254740993, "b": [], "c": {}, "d": [1.50, {"e": -0}]}}');
  await visit.page.getByRole("button", { name: "Prettify" }).click();
  const laidOut = '{\n  "custom": {\n    "a": 9007199254740993,\n    "b": [],\n    "c": {},\n    "d": [\n      1.50,\n      {\n        "e": -0\n      }\n    ]\n  }\n}\n';
  assert.equal(await visit.variables.inputValue(), laidOut);
  await visit.query.fill("query ($custom: JSON, $id: String!) { users(filter: $custom) { totalCount } user(userId: $id) { name } }");
  await visit.page.getByRole("button", { name: "Fill in" }).click();
  assert.equal(await visit.variables.inputValue(), laidOut.replace(/\n}\n$/, ',\n  "id": ""\n}\n'));

  const body = await visit.run(upsert, '{"custom": {"a": 1e400}}');
  assert.match(body.errors[0].message, /finite/);
  assert.match(visit.requests.at(-1).postData(), /1e400/);
}));

test("digits of variables and events of a subscription stay as they are written", () => visiting({}, async (visit) => {
  const sent = [];
  visit.page.on("websocket", (socket) => socket.on("framesent", (frame) => sent.push(frame.payload)));
  await visit.run("mutation ($custom: JSON) { createCampaign(input: {campaignId: \"digits\", senderId: \"shop\", messageTemplate: {text: \"x\", custom: $custom}}) { errors { message } } }",
    '{"custom": {"whole": 9007199254740993}}');
  await visit.query.fill('subscription ($id: String!) { campaignUpdated(campaignId: $id) { messageTemplate { custom } } }');
  await visit.variables.fill('{"id": "digits", "more": 9007199254740993}');
  await visit.query.press("Control+Enter");
  const event = visit.page.getByRole("list", { name: "Events, the newest first" }).locator("pre.json").first();
  await event.waitFor();
  assert.match(await event.textContent(), /\{\n {2}"data": \{\n[^]*"whole": 9007199254740993\n/);
  assert.match(sent[1], /"more": 9007199254740993\}/);
  await ask('mutation { deleteCampaign(input: { campaignId: "digits" }) { errors { message } } }');
}));

test("a field that is called errors is no refusal", () => visiting({}, async (visit) => {
  await visit.run('{ me: viewer { errors: name } campaign(campaignId: "slow") { errors: allowedActions } }');
  assert.equal(await visit.page.getByRole("list", { name: "Errors" }).count(), 0);
  assert.match(await visit.page.locator("#status").getAttribute("class"), /good/);
}));

test("a key that no header can hold is said to be wrong before it is sent", () => visiting({ key: "" }, async (visit) => {
  await visit.page.getByLabel("API key").fill("car_…abc");
  const said = visit.page.locator("#viewer.bad");
  await said.waitFor();
  assert.equal(await said.textContent(), "This is no key: its character 5 is “…” (U+2026). Copy it again.");
  await visit.query.fill("{ viewer { role } }");
  await visit.query.press("Control+Enter");
  await visit.page.getByRole("list", { name: "Errors" }).getByText("This is no key").waitFor();
  assert.ok(visit.requests.every((request) => request.method() === "GET"));
}));

test("whatever is stored, the page starts", () => visiting({}, async (visit) => {
  const odd = ["5", "null", "[]", "{", '"x"', '{"query":"{ viewer { name } }"}', '{"query":"{ viewer { name } }","variables":5}', '{"a":1}', "[null,5,{}]"];
  for (const text of odd) {
    await visit.page.evaluate((value) => {
      for (const name of ["operation", "history", "theme", "split-side", "split-answer", "split-variables"]) localStorage.setItem(`carillon.${name}`, value);
    }, text);
    await visit.page.reload();
    await visit.page.locator("#viewer.good").waitFor();
    assert.match(await visit.query.inputValue(), /query Newest/, text);
  }
  await visit.run("{ viewer { role } }");
  await visit.page.getByRole("tab", { name: "History" }).click();
  assert.equal(await visit.page.getByRole("tabpanel", { name: "History" }).getByRole("listitem").count(), 1);
}));

test("a mistake is underlined before it is sent, and an error leads to its line", () => visiting({}, async (visit) => {
  await visit.query.fill("{\n  viewer {\n    nome\n  }\n}");
  assert.equal(await visit.page.locator("#query-editor .copy .wrong").innerText(), "nome");
  assert.equal(await visit.query.evaluate((area) => document.getElementById(area.getAttribute("aria-describedby")).textContent),
    "Line 3: Viewer has no field nome.");
  await visit.query.press("Control+Enter");
  await visit.page.getByRole("button", { name: "line 3, column 5" }).click();
  assert.equal(await visit.query.evaluate((area) => area === document.activeElement && area.selectionStart), 17);
  assert.match(await visit.page.locator("#hint").innerText(), /Viewer has no field nome/);
}));

test("a subscription shows each event until it is stopped, with the key in connection_init", () => visiting({}, async (visit) => {
  const frames = [];
  visit.page.on("websocket", (socket) => socket.on("framesent", (frame) => frames.push(JSON.parse(frame.payload))));
  await visit.query.fill('subscription { campaignUpdated(campaignId: "slow") { stats { sent pending } } }');
  await visit.query.press("Control+Enter");
  const events = visit.page.getByRole("list", { name: "Events, the newest first" }).locator(":scope > li");
  await events.nth(2).waitFor();
  const sent = await visit.result.locator("pre.json").evaluateAll((all) => all.map((each) => JSON.parse(each.textContent).data.campaignUpdated.stats.sent));
  assert.deepEqual(sent, sent.toSorted((one, other) => other - one));
  await visit.page.getByRole("button", { name: "Stop", exact: true }).click();
  await visit.page.getByText(/Stopped · \d+ events/).waitFor();
  assert.deepEqual(frames[0], { type: "connection_init", payload: { Authorization: `Bearer ${KEY}` } });
  assert.equal(frames[1].type, "subscribe");
}));

test("a subscription that ends by itself, or is refused, says so", () => visiting({}, async (visit) => {
  await ask('mutation { startCampaign(input: { campaignId: "fast" }) { errors { message } } }');
  await visit.query.fill('subscription { campaignUpdated(campaignId: "fast") { status } }');
  await visit.query.press("Control+Enter");
  await visit.page.getByText(/Completed by the server · /).waitFor();
  assert.match(await visit.result.locator("pre.json").first().textContent(), /COMPLETED/);
  await visit.query.fill('subscription { campaignUpdated(campaignId: "nope") { status } }');
  await visit.query.press("Control+Enter");
  await visit.page.getByText("There is no campaign nope.").waitFor();
  assert.match(await visit.result.innerText(), /NOT_FOUND/);
}));

test("the key stays in this tab: in no address, no lasting store, no link, and not in the next tab", () => visiting({}, async (visit) => {
  await visit.run("{ viewer { role } }");
  await visit.page.getByRole("button", { name: "Copy link" }).click();
  await visit.page.getByText("Copied a link").first().waitFor();
  const link = await visit.page.evaluate(() => navigator.clipboard.readText());
  const lasting = await visit.page.evaluate(() => JSON.stringify({ ...localStorage }) + document.cookie + location.href);
  assert.ok(!link.includes(KEY) && !lasting.includes(KEY));
  assert.ok(visit.requests.every((request) => !request.url().includes(KEY)));
  await visit.page.reload();
  await visit.page.locator("#viewer.good").waitFor();
  await visit.open(SERVER, link.slice(link.indexOf("#")));
  assert.equal(await visit.page.getByLabel("API key").inputValue(), "");
  assert.equal(await visit.query.inputValue(), "{ viewer { role } }");
}));

test("a wrong key is said to be wrong, and a removed one is forgotten", () => visiting({ key: "" }, async (visit) => {
  assert.ok(visit.requests.every((request) => request.method() === "GET"));
  const key = visit.page.getByLabel("API key");
  await key.fill("car_wrong");
  await visit.page.locator("#viewer.bad").waitFor();
  assert.match(await visit.page.locator("#docs").innerText(), /not valid/);
  await key.fill("");
  await visit.page.getByText("Enter an API key above").waitFor();
  assert.equal(await visit.page.evaluate(() => sessionStorage.getItem("carillon.key")), null);
  const body = await visit.run("{ viewer { role } }");
  assert.equal(body.errors[0].extensions.code, "UNAUTHENTICATED");
}));

test("nothing is asked of anybody else, and the policy forbids it", () => visiting({}, async (visit) => {
  await visit.run("{ viewer { role } }");
  const origins = new Set(visit.requests.map((request) => new URL(request.url()).host));
  assert.deepEqual([...origins], [new URL(SERVER).host]);
  const refused = await visit.page.evaluate(async () => {
    const found = [];
    const violated = new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", (event) => {
        if (event.effectiveDirective === "connect-src") resolve("connect-src");
      });
    });
    const script = document.createElement("script");
    try { script.textContent = "document.title = 'inline'"; } catch { found.push("trusted types"); }
    document.head.append(script);
    try { document.body.innerHTML = "<b>x</b>"; } catch { found.push("trusted types"); }
    await fetch("http://127.0.0.2:1/").catch(() => found.push("fetch"));
    return [...found, await violated];
  });
  assert.deepEqual(refused, ["trusted types", "trusted types", "fetch", "connect-src"]);
  assert.notEqual(await visit.page.title(), "inline");
  visit.complaints.length = 0; // each of these was complained of, as it should be
}));

test("what others wrote is text and nothing else", () => visiting({}, async (visit) => {
  const title = await visit.page.title();
  const body = await visit.run("{ campaigns { nodes { name } } }");
  assert.equal(body.data.campaigns.nodes[0].name, HOSTILE);
  await visit.open(SERVER, `#query=${encodeURIComponent(HOSTILE)}`);
  assert.equal(await visit.query.inputValue(), HOSTILE);
  assert.equal(await visit.page.title(), title);
  assert.equal(await visit.page.locator("#query-editor img, #result img").count(), 0);
}));

test("the documentation is searched, followed, and put to use", () => visiting({}, async (visit) => {
  const docs = visit.page.getByRole("tabpanel", { name: "Docs" });
  await docs.getByLabel("Search the documentation").fill("usersread");
  await docs.getByRole("button", { name: "CampaignStats" }).click();
  assert.match(await docs.innerText(), /At every instant targets = sent \+ skipped \+ failed \+ pending/);
  await docs.getByRole("button", { name: "Schema" }).click();
  await docs.getByRole("button", { name: "Use startCampaign in the editor" }).click();
  assert.match(await visit.query.inputValue(), /^mutation StartCampaign\(\$input: StartCampaignInput!\) \{\n {2}startCampaign\(input: \$input\) \{/);
  assert.deepEqual(JSON.parse(await visit.variables.inputValue()), { input: { campaignId: "" } });
  assert.equal(await visit.page.locator("#query-editor .wrong").count(), 0);
}));

test("every root field can be written into the editor, and is valid then", () => visiting({}, async (visit) => {
  const uses = visit.page.getByRole("button", { name: /^Use \w+ in the editor$/ });
  const count = await uses.count();
  assert.ok(count > 30);
  for (let place = 0; place < count; place += 1) {
    await uses.nth(place).click();
    assert.equal(await visit.page.locator("#query-editor .wrong").count(), 0, await visit.query.inputValue());
  }
}));

test("history brings back what was run, without answers", () => visiting({}, async (visit) => {
  await visit.run("query First { viewer { role } }");
  await visit.run("query Second($id: String!) { user(userId: $id) { name } }", '{"id": "u1"}');
  await visit.page.getByRole("tab", { name: "History" }).click();
  const history = visit.page.getByRole("tabpanel", { name: "History" });
  await history.getByRole("button", { name: /^Second/ }).click();
  assert.match(await visit.query.inputValue(), /^query Second/);
  assert.deepEqual(JSON.parse(await visit.variables.inputValue()), { id: "u1" });
  await history.getByRole("button", { name: "Forget First" }).click();
  assert.equal(await history.getByRole("listitem").count(), 1);
  await history.getByRole("button", { name: "Clear the history" }).click();
  assert.deepEqual(await visit.page.evaluate(() => JSON.parse(localStorage.getItem("carillon.history"))), []);
}));

test("of several operations the one under the caret runs", () => visiting({}, async (visit) => {
  await visit.query.fill("query Role { viewer { role } }\nquery Name { viewer { name } }");
  await visit.caretBehind("query Name");
  await visit.query.press("Control+Enter");
  await visit.page.locator("#status.good").waitFor();
  assert.deepEqual(Object.keys(JSON.parse(await visit.result.innerText()).data.viewer), ["name"]);
  await visit.page.getByLabel("Operation to run").selectOption("Role");
  await visit.page.getByRole("button", { name: "Run" }).click();
  await visit.page.getByText('"role"').waitFor();
}));

test("laying out, filling in and undoing", () => visiting({}, async (visit) => {
  await visit.query.fill("mutation($input:StartCampaignInput!){startCampaign(input:$input){errors{code}}}");
  await visit.page.getByRole("button", { name: "Fill in" }).click();
  assert.deepEqual(JSON.parse(await visit.variables.inputValue()), { input: { campaignId: "" } });
  await visit.query.press("Shift+Alt+F");
  const laidOut = await visit.query.inputValue();
  assert.match(laidOut, /^mutation \(\$input: StartCampaignInput!\) \{\n {2}startCampaign\(input: \$input\) \{\n {4}errors \{\n {6}code\n/);
  await visit.query.press("Control+z");
  assert.match(await visit.query.inputValue(), /^mutation\(\$input:/);
  await visit.query.fill("{ viewer {");
  await visit.page.getByRole("button", { name: "Prettify" }).click();
  await visit.page.getByText(/Not laid out/).first().waitFor();
  assert.equal(await visit.query.inputValue(), "{ viewer {");
}));

test("everything is reached by the keyboard, and nothing keeps it", () => visiting({}, async (visit) => {
  const reached = new Set();
  await visit.page.locator(".skip").focus();
  for (let id = ""; id !== "BODY"; reached.add(id)) {
    await visit.page.keyboard.press("Tab");
    id = await visit.page.evaluate(() => document.activeElement.id || document.activeElement.tagName);
  }
  for (const id of ["key", "key-show", "theme", "tab-docs", "docs", "split-side", "run", "prettify", "query", "variables", "fill", "result"]) {
    assert.ok(reached.has(id), `${id} is not reached by Tab`);
  }
  const splitter = visit.page.getByRole("separator", { name: "Width of the documentation" });
  await splitter.focus();
  await splitter.press("ArrowRight");
  assert.equal(await splitter.getAttribute("aria-valuenow"), "26");
  await visit.page.getByRole("tab", { name: "Docs" }).focus();
  await visit.page.keyboard.press("ArrowRight");
  assert.equal(await visit.page.getByRole("tab", { name: "History" }).getAttribute("aria-selected"), "true");
}));

for (const colors of ["light", "dark"]) {
  for (const width of [1440, 480]) {
    test(`axe-core finds nothing: ${colors}, ${width} pixels`, () => visiting({ colors, width }, async (visit) => {
      assert.deepEqual(await visit.judged(), []);
      await visit.run("{ campaigns(first: 101) { totalCount } }");
      await visit.page.getByText("Details", { exact: true }).click();
      assert.deepEqual(await visit.judged(), []);
      await visit.query.fill("{ campaigns { nodes { ");
      await visit.query.press("Control+ ");
      assert.deepEqual(await visit.judged(), []);
      await visit.query.press("Escape");
      await visit.query.fill('subscription { campaignsChanged(campaignIds: ["slow"]) { campaign { status } } }');
      await visit.query.press("Control+Enter");
      await visit.page.getByText(/Listening · /).waitFor();
      await visit.page.getByRole("tab", { name: "History" }).click();
      assert.deepEqual(await visit.judged(), []);
    }));
  }
}

test("without introspection it says why there is no documentation, and works", () =>
  visiting({ key: "", server: process.env.CLOSED }, async (visit) => {
    await visit.page.getByLabel("API key").fill(KEY);
    await visit.page.getByText("CARILLON_INTROSPECTION=false").waitFor();
    const body = await visit.run("{ viewer { __typename } }");
    assert.deepEqual(body, { data: { viewer: { __typename: "Viewer" } } });
  }));
