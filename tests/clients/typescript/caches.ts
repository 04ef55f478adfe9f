// A dashboard's pages stay open while subscriptions with fewer fields write into the same normalised cache.
// Prints what became of the pages, as JSON. Arguments: `without-ids` caches stats as if they had no id;
// `by-default` leaves out what the README tells users of Apollo.
import { ApolloLink, InMemoryCache, type ApolloClient, type OperationVariables } from '@apollo/client/core';
import { relayStylePagination } from '@apollo/client/utilities';
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import assert from 'node:assert';
import { filter, firstValueFrom, map, take, type Observable } from 'rxjs';
import { carillon, there } from './client';
import {
  AnyOfDocument,
  CampaignListDocument,
  CampaignPageDocument,
  ChannelPageDocument,
  CreateCampaignDocument,
  CreateSegmentDocument,
  LedgerDocument,
  SegmentPageDocument,
  StartCampaignDocument,
  UpsertUsersDocument,
  UserListDocument,
  UserPageDocument,
  WatchCampaignDocument,
  WatchCampaignsDocument,
} from './generated/graphql';
import possible from './generated/possible-types';

const PEOPLE = 30;
const A_SECOND = 60;
const PAGE = 8;
const campaignId = 'news';

/** A page on the screen: a question, and how often it was put to the server. */
interface Screen {
  name: string;
  inCache: () => boolean;
  close: () => void;
}

const complaints: string[] = [];
console.warn = console.error = (...words: unknown[]) => complaints.push(words.join(' '));

function cache() {
  const told = (word: string) => process.argv.includes(word);
  return new InMemoryCache({
    ...possible,
    typePolicies: {
      ...(told('without-ids') && { CampaignStats: { keyFields: false } }),
      // Its id is a text that several campaigns may have, not an identity.
      ...(!told('by-default') && { ChannelTemplate: { keyFields: false } }),
      Campaign: { fields: { recipients: relayStylePagination(['filter']) } },
    },
  });
}

/** Opens a page: it stays subscribed to the cache, and asks the server again if the cache loses part of it. */
async function open<Data, Variables extends OperationVariables>(
  client: ApolloClient,
  query: TypedDocumentNode<Data, Variables>,
  variables: Variables,
): Promise<Screen> {
  // Apollo's overloads want the variables spread; both are checked by this function's own signature.
  const question = { query, variables } as never;
  const watched = client.watchQuery<Data, Variables>(question);
  const shown = watched.subscribe({ error: (failure) => complaints.push(String(failure)) });
  await firstValueFrom(watched.pipe(filter((result) => result.dataState === 'complete')));
  const definition = query.definitions[0];
  assert(definition?.kind === 'OperationDefinition');
  return {
    name: there(definition.name).value,
    inCache: () => client.readQuery<Data, Variables>(question) !== null,
    close: () => shown.unsubscribe(),
  };
}

/** Readers, a draft to send, and another draft that differs in the type of its channels. Gives both global ids. */
async function prepare(client: ApolloClient) {
  const users = Array.from({ length: PEOPLE }, (_, number) => ({
    userId: `user-${String(number).padStart(2, '0')}`,
    name: `Reader ${number}`,
  }));
  await client.mutate({
    mutation: UpsertUsersDocument,
    variables: { input: { users: [...users, { userId: 'shop' }, { userId: 'zoe', deactivated: true }] } },
  });
  await client.mutate({
    mutation: CreateSegmentDocument,
    variables: { input: { segmentId: 'all', type: 'USER', allUsers: true } },
  });
  return [await draft(client, campaignId, 'messaging'), await draft(client, 'other', 'vip')];
}

async function draft(client: ApolloClient, campaignId: string, type: string) {
  const made = await client.mutate({
    mutation: CreateCampaignDocument,
    variables: {
      input: {
        campaignId,
        name: 'News',
        senderId: 'shop',
        segmentIds: ['all'],
        maxMessagesPerSecond: A_SECOND,
        messageTemplate: { text: 'Hello {{ receiver.name }}', custom: { theme: 'dark' } },
        channelTemplate: { type, id: '{{ receiver.id }}' },
        createChannels: true,
      },
    },
  });
  return there(made.data?.createCampaign?.campaign).id;
}

/** Resolves at the end of the campaign, as both subscriptions tell it. */
async function sentAsWatched(client: ApolloClient) {
  const one: Observable<string> = client
    .subscribe({ query: WatchCampaignDocument, variables: { campaignId } })
    .pipe(map(({ data }) => there(data).campaignUpdated.status));
  const all: Observable<string | undefined> = client
    .subscribe({ query: WatchCampaignsDocument, variables: { campaignIds: [campaignId] } })
    .pipe(map(({ data }) => there(data).campaignsChanged.campaign?.status));
  const ends = [one, all].map((told) =>
    firstValueFrom(
      told.pipe(
        filter((status) => status === 'COMPLETED'),
        take(1),
      ),
    ),
  );
  await firstValueFrom(one.pipe(take(1)));
  await client.mutate({ mutation: StartCampaignDocument, variables: { input: { campaignId } } });
  await Promise.all(ends);
}

/** Pages through the ledger forward, in the cache; and asks for one page backward, beside the cache. */
async function pagedLedger(client: ApolloClient) {
  const question = { query: LedgerDocument, variables: { campaignId, first: PAGE } };
  const ledger = client.watchQuery(question);
  const shown = ledger.subscribe({ error: (failure) => complaints.push(String(failure)) });
  await firstValueFrom(ledger.pipe(filter(({ dataState }) => dataState === 'complete')));
  const cached = () => there(client.readQuery(question)?.campaign).recipients;
  while (cached().pageInfo.hasNextPage) {
    await ledger.fetchMore({ variables: { after: cached().pageInfo.endCursor } });
  }
  const edges = cached().edges;
  const last = await client.query({
    query: LedgerDocument,
    variables: { campaignId, last: PAGE, before: there(edges.at(-1)).cursor },
    fetchPolicy: 'no-cache',
  });
  shown.unsubscribe();
  return {
    rows: edges.map(({ node }) => node.targetId),
    texts: edges.filter(({ node }) => node.message?.text).length,
    backward: there(last.data?.campaign).recipients.edges.map(({ node }) => node.targetId),
  };
}

async function main() {
  const { client, dispose } = carillon(cache());
  let asked = 0;
  client.setLink(
    ApolloLink.from([
      new ApolloLink((operation, forward) => {
        if (operation.operationType === 'query') asked += 1;
        return forward(operation);
      }),
      client.link,
    ]),
  );
  const ids = await prepare(client);
  const screens = [
    await open(client, CampaignPageDocument, { campaignId }),
    await open(client, CampaignPageDocument, { campaignId: 'other' }),
    await open(client, CampaignListDocument, { first: 10 }),
    await open(client, SegmentPageDocument, { segmentId: 'all', first: 50 }),
    await open(client, UserListDocument, { first: 50 }),
  ];
  const askedToOpen = asked;
  await sentAsWatched(client);
  const page = client.readQuery({ query: CampaignPageDocument, variables: { campaignId } })?.campaign;
  const told = {
    status: page?.status,
    sent: page?.stats.sent,
    template: page?.messageTemplate.custom,
    channels: page?.channelTemplate?.type,
    'asked by the page alone': page?.stats.asOf !== undefined,
  };
  const lost = screens.filter((screen) => !screen.inCache()).map((screen) => screen.name);
  const askedAgain = asked - askedToOpen;
  screens.push(
    await open(client, UserPageDocument, { userId: 'user-07' }),
    await open(client, ChannelPageDocument, { cid: 'messaging:user-07', last: 10 }),
    await open(client, AnyOfDocument, { ids }),
  );
  const ledger = await pagedLedger(client);
  const lostLater = screens.filter((screen) => !screen.inCache()).map((screen) => screen.name);
  screens.forEach((screen) => screen.close());
  await dispose();
  process.stdout.write(JSON.stringify({ told, lost, askedAgain, lostLater, ledger, complaints }));
}

main().catch((failure: unknown) => {
  process.stderr.write(String(failure instanceof Error ? failure.stack : failure));
  process.exitCode = 1;
});
