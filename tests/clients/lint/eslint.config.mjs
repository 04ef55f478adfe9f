// The rules of graphql-eslint that schema.graphql keeps, and those that the operations of the tests' clients keep.
import graphql from '@graphql-eslint/eslint-plugin';

const {
  'flat/schema-recommended': recommended,
  'flat/schema-relay': relay,
  'flat/operations-recommended': operations,
} = graphql.configs;
const common = {
  languageOptions: { parser: graphql.parser, parserOptions: { graphQLConfig: { schema: 'schema.graphql', documents: 'operations.graphql' } } },
  plugins: { '@graphql-eslint': graphql },
};
const everythingIsDescribed = {
  types: true,
  rootField: true,
  FieldDefinition: true,
  InputValueDefinition: true,
  EnumValueDefinition: true,
  DirectiveDefinition: true,
};

export default [
  {
    ...common,
    files: ['schema.graphql'],
    rules: {
      ...recommended.rules,
      ...relay.rules,
      '@graphql-eslint/require-description': ['error', everythingIsDescribed],
      '@graphql-eslint/require-deprecation-date': 'error',
      '@graphql-eslint/no-scalar-result-type-on-mutation': 'error',
      '@graphql-eslint/input-name': ['error', { checkInputType: true, caseSensitiveInputType: false }],
      // Values, such as a message's template, have no id; an id that a client gives carries its type's name.
      '@graphql-eslint/strict-id-in-types': 'off',
      '@graphql-eslint/no-typename-prefix': 'off',
      // Some items of a connection are no nodes, and a payload may hold a plain list.
      '@graphql-eslint/relay-edge-types': [
        'error',
        { withEdgeSuffix: true, shouldImplementNode: false, listTypeCanWrapOnlyEdgeType: false },
      ],
    },
  },
  { ...common, files: ['operations.graphql'], rules: operations.rules },
];
