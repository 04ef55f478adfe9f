"""smoke"""
from app.sending.engine import Engine
from app.progress import Publisher
from tests.api.conftest import Client
from app.users.service import upsert_users

STATS = "id status stats { id asOf startedAt completedAt planned progress targets pending sent skipped failed messagesSent channelsCreated usersSent reasons { reason count sampleTargetIds } messagesPerSecond estimatedCompletionAt }"

async def test_smoke(client: Client, database, valkey_url) -> None:
    async with database.transaction() as session:
        await upsert_users(session, [{"user_id": f"u{n:03}", "name": f"N{n}"} for n in range(50)])
    made = await client.data("mutation($i: CreateCampaignInput!){createCampaign(input:$i){campaign{id campaignId %s} errors{code message path details}}}" % STATS,
      i={"userIds":["u001","nobody","u000","u002"],"senderId":"u000","messageTemplate":{"text":"Hi {{receiver.name}}"},"channelTemplate":{"type":"messaging"},"createChannels":True, "campaignId":"c"})
    print(made)
    started = await client.data("mutation{startCampaign(input:{campaignId:\"c\"}){campaign{ allowedActions %s} errors{code message path details}}}" % STATS)
    print(started)
    publisher = Publisher(valkey_url)
    engine = Engine(database, publisher)
    async with client.subscribed("subscription{campaignUpdated(campaignId:\"c\"){%s}}" % STATS) as sub:
        print(await sub.next())
        for _ in range(5):
            await engine.turn()
        while (m := await sub.message())["type"] == "next":
            print(m)
        print(m)
    await publisher.close()
    print(await client.data("{campaign(campaignId:\"c\"){%s audienceEstimate sender{name} targets{nodes{id targetId user{name}}} recipients{totalCount nodes{id targetId status reason detail messageId cid sentAt user{name} channel{cid} message{text campaign{campaignId stats{sent}}} campaign{campaignId stats{sent}}}}}}" % STATS))
