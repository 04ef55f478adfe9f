// The fragments of a dashboard on Relay: each part asks for what it shows, and the page puts them together.
import { graphql } from 'react-relay';

export const progress = graphql`
  fragment CampaignScreen_progress on Campaign {
    status
    stats {
      targets
      sent
      skipped
      failed
      pending
      progress
    }
  }
`;

export const header = graphql`
  fragment CampaignScreen_header on Campaign @refetchable(queryName: "CampaignScreenHeaderRefetch") {
    campaignId
    name
    allowedActions
    sender {
      name
    }
    segments {
      segmentId
      size
    }
    ...CampaignScreen_progress
  }
`;

export const ledger = graphql`
  fragment CampaignScreen_ledger on Campaign
  @argumentDefinitions(
    first: { type: "Int", defaultValue: 50 }
    after: { type: "String" }
    filter: { type: "RecipientFilter" }
  )
  @refetchable(queryName: "CampaignScreenLedgerPage") {
    recipients(first: $first, after: $after, filter: $filter)
      @connection(key: "CampaignScreen_recipients", filters: ["filter"]) {
      edges {
        node {
          targetId
          status
          reason
          user {
            name
          }
          message {
            text
          }
        }
      }
    }
  }
`;

export const page = graphql`
  query CampaignScreenQuery($campaignId: String!, $filter: RecipientFilter) {
    campaign(campaignId: $campaignId) {
      id
      ...CampaignScreen_header
      ...CampaignScreen_ledger @arguments(filter: $filter)
    }
  }
`;

export const watch = graphql`
  subscription CampaignScreenSubscription($campaignId: String!) {
    campaignUpdated(campaignId: $campaignId) {
      ...CampaignScreen_progress
    }
  }
`;

export const pause = graphql`
  mutation CampaignScreenPauseMutation($campaignId: String!) {
    pauseCampaign(input: { campaignId: $campaignId }) {
      campaign {
        ...CampaignScreen_header
      }
      errors {
        code
        message
        path
      }
    }
  }
`;
