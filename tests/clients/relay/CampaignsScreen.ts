// All campaigns, paged both ways, kept up to date by a subscription.
import { graphql } from 'react-relay';

export const list = graphql`
  fragment CampaignsScreen_list on Query
  @argumentDefinitions(
    first: { type: "Int" }
    after: { type: "String" }
    last: { type: "Int" }
    before: { type: "String" }
    filter: { type: "CampaignFilter" }
    sort: { type: "[CampaignSort!]" }
  )
  @refetchable(queryName: "CampaignsScreenPage") {
    campaigns(first: $first, after: $after, last: $last, before: $before, filter: $filter, sort: $sort)
      @connection(key: "CampaignsScreen_campaigns") {
      edges {
        node {
          ...CampaignScreen_header
        }
      }
    }
  }
`;

export const page = graphql`
  query CampaignsScreenQuery {
    ...CampaignsScreen_list @arguments(first: 20, sort: [{ field: UPDATED_AT, direction: DESC }])
  }
`;

export const watch = graphql`
  subscription CampaignsScreenSubscription {
    campaignsChanged {
      campaign {
        ...CampaignScreen_progress
      }
      deletedId @deleteRecord
    }
  }
`;

export const create = graphql`
  mutation CampaignsScreenCreateMutation($input: CreateCampaignInput!, $connections: [ID!]!) {
    createCampaign(input: $input) {
      campaign @prependNode(connections: $connections, edgeTypeName: "CampaignEdge") {
        ...CampaignScreen_header
      }
      errors {
        code
        message
        path
        details
      }
    }
  }
`;

export const remove = graphql`
  mutation CampaignsScreenDeleteMutation($campaignId: String!) {
    deleteCampaign(input: { campaignId: $campaignId }) {
      deletedIds @deleteRecord
      errors {
        code
        message
      }
    }
  }
`;
