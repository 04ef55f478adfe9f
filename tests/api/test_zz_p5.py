import time
from tests.api.test_statement_counts import *
from tests.api.test_statement_counts import settings
async def test_dbg(client, database):
    world = World(database, size=100)
    await world.build()
    for q in ("{ campaigns(first: 100) { nodes { campaignId status segments { segmentId } sender { name } stats { sent } recipients(first: 10) { nodes { targetId status } } } } }",
              "{ campaigns(first: 100) { totalCount nodes { campaignId recipients(first: 10) { totalCount nodes { targetId status user { name } message { text } } } } } }",
              "{ channels(first: 100) { nodes { cid members(first: 10) { nodes { userId user { name } unreadCount } } messages(first: 10) { totalCount nodes { text } } } } }",
              '{ segments(first: 100) { nodes { segmentId targets(first: 10, senderId: "u00") { totalCount nodes { targetId } } campaigns(first: 3) { nodes { campaignId } } } } }',
              "{ users(first: 100) { nodes { userId channels(first: 10) { nodes { cid } } } } }"):
        for _ in range(2):
            with statements() as asked:
                t=time.perf_counter(); await client.data(q); t=time.perf_counter()-t
        print(database.dialect, len(asked), f"{t*1000:.0f} ms", q[:60])
