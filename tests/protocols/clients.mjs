// The reference clients of graphql-ws and graphql-sse go through the same scenes; one line of JSON for each.
import assert from "node:assert/strict";
import * as sse from "graphql-sse";
import * as ws from "graphql-ws";

const { CARILLON, KEY } = process.env;
const address = `${CARILLON}/graphql`;
const CHANGES = "mutation ($id: String!) { startCampaign(input: {campaignId: $id}) { errors { message } } }";
const WATCH = "subscription ($id: String!) { campaignUpdated(campaignId: $id) { status stats { sent } } }";
const NEXT = "subscription ($id: String!) { campaignUpdated(campaignId: $id, follow: true) { name } }";

export const makers = {
  ws: (options = {}) =>
    ws.createClient({ url: address, connectionParams: { Authorization: `Bearer ${KEY}` }, ...options }),
  sse: (options = {}) =>
    sse.createClient({ url: address, headers: { Authorization: `Bearer ${KEY}` }, ...options }),
};

async function all(client, query, variables) {
  const found = [];
  for await (const result of client.iterate({ query, variables })) found.push(result);
  return found;
}

// What a client reports as an error: its code, wherever the protocol puts it.
async function code(client, query, variables) {
  try {
    const [{ errors }] = await all(client, query, variables);
    return errors[0].extensions.code;
  } catch (errors) {
    assert.ok(Array.isArray(errors), String(errors));
    return errors[0].extensions.code;
  }
}

const scenes = {
  async query(client) {
    assert.deepEqual(await all(client, "{ __typename }"), [{ data: { __typename: "Query" } }]);
  },
  async mutation(client, kind) {
    const query = `mutation { upsertUsers(input: {users: [{userId: "${kind}"}, {userId: "${kind}-sender"}]}) {
      errors { message } } }`;
    assert.deepEqual(await all(client, query), [{ data: { upsertUsers: { errors: [] } } }]);
  },
  async "subscription to the end"(client, kind) {
    const id = `news-${kind}`;
    const create = `mutation { createCampaign(input: {campaignId: "${id}", senderId: "${kind}-sender",
      userIds: ["${kind}"], messageTemplate: {text: "Hi"}, createChannels: true,
      channelTemplate: {type: "messaging"}}) { errors { message } } }`;
    assert.deepEqual((await all(client, create))[0].data.createCampaign.errors, []);
    const states = [];
    for await (const { data } of client.iterate({ query: WATCH, variables: { id } })) {
      if (!states.length)
        assert.deepEqual((await all(client, CHANGES, { id }))[0].data.startCampaign.errors, []);
      states.push(data.campaignUpdated);
    }
    assert.equal(states[0].status, "DRAFT");
    assert.deepEqual(states.at(-1), { status: "COMPLETED", stats: { sent: 1 } });
  },
  async errors(client) {
    assert.equal(await code(client, "{"), "INVALID_INPUT");
    assert.equal(await code(client, "{ nothing }"), "INVALID_INPUT");
    assert.equal(await code(client, WATCH, { id: "nobody" }), "NOT_FOUND");
    assert.equal(await code(client, WATCH, { id: 1 }), "INVALID_INPUT");
  },
  async abandon(client, kind) {
    for (let turn = 0; turn < 20; turn++) {
      const waiting = client.iterate({ query: NEXT, variables: { id: `news-${kind}` } });
      assert.equal((await waiting.next()).done, false);
      assert.equal((await waiting.return()).done, true);
    }
    assert.equal((await all(client, "{ __typename }")).length, 1);
  },
};

// Says "first" once a subscription runs, then waits for its next result, of whatever connection.
async function reconnect(kind, id) {
  const client = makers[kind]({ retryAttempts: 20, retryWait: () => new Promise((go) => setTimeout(go, 300)),
    shouldRetry: () => true, retry: () => true });
  let results = 0;
  for await (const { data } of client.iterate({ query: NEXT, variables: { id } })) {
    assert.equal(data.campaignUpdated.name, "waits");
    console.log(["first", "again"][results++]);
    if (results === 2) break;
  }
  await client.dispose();
}

const [kind, id] = process.argv.slice(2);
if (id !== undefined) {
  await reconnect(kind, id);
} else {
  const client = makers[kind]();
  for (const [name, scene] of Object.entries(scenes)) {
    const wrong = await scene(client, kind).then(() => "", (error) => error?.stack ?? JSON.stringify(error));
    console.log(JSON.stringify([name, wrong]));
  }
  await client.dispose();
}
