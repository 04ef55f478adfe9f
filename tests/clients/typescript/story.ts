// A campaign from its users to its last ledger row, by the generated documents; prints what it met, as JSON.
import { CombinedGraphQLErrors, type ApolloClient } from '@apollo/client/core';
import assert from 'node:assert';
import { isDeepStrictEqual } from 'node:util';
import { carillon, there } from './client';
import {
  CampaignListDocument,
  CampaignPageDocument,
  CreateCampaignDocument,
  CreateSegmentDocument,
  ExplainDocument,
  LedgerDocument,
  PreviewDocument,
  StartCampaignDocument,
  UpsertUsersDocument,
  UserListDocument,
  WatchCampaignDocument,
  type LedgerQueryVariables,
  type LedgerRowFragment,
  type ProblemFragment,
  type UserInput,
} from './generated/graphql';

const PEOPLE = 23;
const PAGE = 7;

/** What is answered to mistakes. */
async function refused(client: ApolloClient) {
  const users = await client.mutate({
    mutation: UpsertUsersDocument,
    variables: { input: { users: [{ userId: 'fine' }, { userId: 'two words' }] } },
  });
  const template = await client.mutate({
    mutation: CreateCampaignDocument,
    variables: { input: { senderId: 'shop', messageTemplate: { text: '{{ reciever }}' } } },
  });
  assert.equal(there(template.data?.createCampaign).campaign, null);
  const start = await client.mutate({
    mutation: StartCampaignDocument,
    variables: { input: { campaignId: 'nobody' } },
  });
  return {
    users: there(users.data?.upsertUsers).errors.map(problem),
    template: there(template.data?.createCampaign).errors.map(problem),
    start: there(start.data?.startCampaign).errors.map(problem),
    page: await tooLargeAPage(client),
  };
}

const problem = ({ code, path, details }: ProblemFragment) => [code, path, details];

/** The code of an error of a query. */
async function tooLargeAPage(client: ApolloClient) {
  const failure = await client.query({ query: CampaignListDocument, variables: { first: 101 } }).then(
    () => assert.fail('101 campaigns in one page'),
    (error: unknown) => error,
  );
  assert(CombinedGraphQLErrors.is(failure));
  return failure.errors[0]?.extensions?.['code'];
}

/** The shop, its readers, one who is deactivated, and a draft for all of them. */
async function prepare(client: ApolloClient) {
  const people: UserInput[] = Array.from({ length: PEOPLE }, (_, number) => ({
    userId: `user-${String(number).padStart(2, '0')}`,
    name: `Reader ${number}`,
    custom: { plan: 'pro' },
  }));
  people.push({ userId: 'shop', name: 'The Shop' });
  people.push({ userId: 'zoe', deactivated: true, custom: { plan: 'pro' } });
  const stored = await client.mutate({ mutation: UpsertUsersDocument, variables: { input: { users: people } } });
  assert.deepEqual(there(stored.data?.upsertUsers).errors, []);
  const made = await client.mutate({
    mutation: CreateSegmentDocument,
    variables: { input: { segmentId: 'pro', type: 'USER', filter: { plan: { $in: ['pro'] } } } },
  });
  there(made.data?.createSegment?.segment);
  const draft = await client.mutate({
    mutation: CreateCampaignDocument,
    variables: {
      input: {
        campaignId: 'news',
        name: 'News',
        senderId: 'shop',
        segmentIds: ['pro'],
        messageTemplate: { text: 'Hello {{ receiver.name }}', defaults: { 'receiver.name': 'you' } },
        channelTemplate: { type: 'messaging' },
        createChannels: true,
      },
    },
  });
  assert.equal(there(draft.data?.createCampaign?.campaign).status, 'DRAFT');
}

/** Watches from the draft to the end, and starts once the draft has been seen. */
async function startAndWatch(client: ApolloClient) {
  const seen: { status: string; balanced: boolean; sent: number; skipped: number; progress: number }[] = [];
  await new Promise<void>((ended, failed) => {
    client.subscribe({ query: WatchCampaignDocument, variables: { campaignId: 'news' } }).subscribe({
      next: ({ data, error }) => {
        if (error) return failed(error);
        const { status, stats } = there(data?.campaignUpdated);
        const balanced = stats.targets === stats.sent + stats.skipped + stats.failed + stats.pending;
        seen.push({ status, balanced, sent: stats.sent, skipped: stats.skipped, progress: stats.progress });
        if (seen.length === 1) start(client).catch(failed);
      },
      error: failed,
      complete: ended,
    });
  });
  const last = there(seen.at(-1));
  return {
    first: seen[0]?.status,
    last: last.status,
    balanced: seen.every((state) => state.balanced),
    sent: last.sent,
    skipped: last.skipped,
    progress: last.progress,
  };
}

async function start(client: ApolloClient) {
  const started = await client.mutate({
    mutation: StartCampaignDocument,
    variables: { input: { campaignId: 'news' } },
  });
  assert.deepEqual(there(started.data?.startCampaign).errors, []);
}

/** One page of the ledger. */
async function recipients(client: ApolloClient, place: Omit<LedgerQueryVariables, 'campaignId'>) {
  const page = await client.query({ query: LedgerDocument, variables: { campaignId: 'news', ...place } });
  return there(page.data?.campaign).recipients;
}

/** The whole ledger, from its beginning. */
async function forward(client: ApolloClient) {
  const rows: LedgerRowFragment[] = [];
  let after: string | null = null;
  for (;;) {
    const { edges, pageInfo, totalCount }: Awaited<ReturnType<typeof recipients>> = await recipients(client, {
      first: PAGE,
      after,
    });
    rows.push(...edges.map((edge) => edge.node));
    after = pageInfo.endCursor;
    if (pageInfo.hasNextPage) continue;
    assert.equal(totalCount, rows.length);
    return rows;
  }
}

/** The whole ledger, from its end. */
async function backward(client: ApolloClient) {
  const rows: LedgerRowFragment[] = [];
  let before: string | null = null;
  for (;;) {
    const { edges, pageInfo }: Awaited<ReturnType<typeof recipients>> = await recipients(client, {
      last: PAGE,
      before,
    });
    rows.unshift(...edges.map((edge) => edge.node));
    before = pageInfo.startCursor;
    if (!pageInfo.hasPreviousPage) return rows;
  }
}

/** Who was skipped, asked by a filter. */
async function leftOut(client: ApolloClient) {
  const { edges } = await recipients(client, { filter: { status: { in: ['SKIPPED', 'FAILED'] } } });
  return edges.map(({ node }) => `${node.targetId} ${node.reason}`);
}

/** The pages of a dashboard about it. */
async function lookedAt(client: ApolloClient) {
  const campaignId = 'news';
  const page = await client.query({ query: CampaignPageDocument, variables: { campaignId } });
  const explained = await client.query({ query: ExplainDocument, variables: { campaignId, targetId: 'zoe' } });
  const shown = await client.query({
    query: PreviewDocument,
    variables: { campaignId, receiverIds: ['user-00'], count: 1 },
  });
  const listed = await client.query({
    query: CampaignListDocument,
    variables: {
      filter: { status: { eq: 'COMPLETED' } },
      sort: [{ field: 'CREATED_AT', direction: 'DESC' }],
      last: 10,
    },
  });
  const everybody = await client.query({
    query: UserListDocument,
    variables: { filter: { plan: 'pro' }, first: 1 },
  });
  const { messageTemplate, stats } = there(page.data?.campaign);
  const { inAudience, reason } = there(explained.data?.campaign?.explain);
  return {
    template: messageTemplate.text,
    'duration known': stats.startedAt !== null && stats.completedAt !== null,
    reasons: stats.reasons.map((skipped) => [skipped.reason, skipped.count]),
    explained: [inAudience, reason],
    preview: there(shown.data?.campaign?.preview).map((message) => message.text),
    listed: there(listed.data).campaigns.nodes.map((campaign) => campaign.campaignId),
    'on the pro plan': there(everybody.data).users.totalCount,
  };
}

async function main() {
  const { client, dispose } = carillon();
  const met: Record<string, unknown> = { refused: await refused(client) };
  await prepare(client);
  met['watched'] = await startAndWatch(client);
  const rows = await forward(client);
  met['ledger'] = rows.map((row) => [row.targetId, row.status, row.message && row.message.text]);
  met['the same backward'] = isDeepStrictEqual(await backward(client), rows);
  met['left out'] = await leftOut(client);
  met['looked at'] = await lookedAt(client);
  await dispose();
  process.stdout.write(JSON.stringify(met));
}

main().catch((failure: unknown) => {
  console.error(failure);
  process.exitCode = 1;
});
