"""`carillon run --demo`: the main job, as a newcomer sees it."""

from tests.acceptance.conftest import Instances
from tests.acceptance.instances import until


async def test_the_demo_sends_to_everybody_and_leaves_the_server_running(instances: Instances) -> None:
    server = instances(environment={"CARILLON_ADMIN_KEY": ""})

    server.launch("run", "--demo")

    until(300, "the end of the demo", lambda: "Ctrl-C stops it.\n" in server.log().partition("4. What")[2])
    assert "60,000 users in" in server.log()
    assert "COMPLETED in" in server.log()
    assert "Carillon to Ελένη" in server.log() or "Γεια σας" in server.log()
    server.admin_key = (server.data_dir / "admin-key").read_text()
    found = await server.graphql("{ campaigns(first: 1) { nodes { stats { targets sent pending } } } }")
    assert found["campaigns"]["nodes"][0]["stats"] == {"targets": 60_000, "sent": 60_000, "pending": 0}
    assert server.stop() == 0
    assert server.processes() == {}
