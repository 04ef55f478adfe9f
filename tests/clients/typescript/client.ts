// Apollo Client as a dashboard would set it up: HTTP for queries and mutations, a WebSocket for subscriptions.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache } from '@apollo/client/core';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { OperationTypeNode } from 'graphql';
import { createClient } from 'graphql-ws';

const address = process.env['CARILLON'] ?? '';
const key = { Authorization: `Bearer ${process.env['KEY']}` };

/** A client with the admin key and a cache of its own; `dispose` closes its socket. */
export function carillon(cache = new InMemoryCache()): { client: ApolloClient; dispose: () => Promise<void> } {
  const socket = createClient({ url: `${address.replace('http', 'ws')}/graphql`, connectionParams: key });
  const link = ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
    new GraphQLWsLink(socket),
    new HttpLink({ uri: `${address}/graphql`, headers: key }),
  );
  return { client: new ApolloClient({ link, cache }), dispose: async () => socket.dispose() };
}

/** What is there; throws where it is absent. */
export function there<T>(value: T | null | undefined): T {
  if (value === null || value === undefined) throw new Error('the server answered null');
  return value;
}
