"""What the protocols' own authors check: the audits of GraphQL over HTTP, and the reference clients of
graphql-transport-ws and graphql-sse (its mode of distinct connections), against a running Carillon."""

import asyncio
import os
import signal
import subprocess
from collections import Counter

import pytest

from tests import npm
from tests.acceptance.instances import PATIENCE, until
from tests.protocols.conftest import Judges

CREATE = """mutation ($id: String!) {
  upsertUsers(input: {users: [{userId: "s"}]}) { errors { message } }
  createCampaign(input: {campaignId: $id, name: "waits", senderId: "s", messageTemplate: {text: "Hi"}}) {
    errors { message } } }"""
SCENES = ["query", "mutation", "subscription to the end", "errors", "abandon"]


def test_every_audit_passes_even_what_servers_may_leave_out(judges: Judges) -> None:
    found = judges.found("audit.mjs")
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert Counter(name.split()[0] for name in found) == {"MUST": 13, "SHOULD": 23, "MAY": 25}


@pytest.mark.parametrize("protocol", ["ws", "sse"])
def test_the_reference_client_understands_us(judges: Judges, protocol: str) -> None:
    assert judges.found("clients.mjs", protocol) == dict.fromkeys(SCENES, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("protocol", ["ws", "sse"])
def test_the_reference_client_comes_back(judges: Judges, protocol: str, number: signal.Signals) -> None:
    server, name = judges.server, f"waits-{protocol}-{number.name}"
    asyncio.run(server.graphql(CREATE, {"id": name}))
    with subprocess.Popen(
        judges.command("clients.mjs", protocol, name),
        env={"PATH": str(npm.NODE.parent), **judges.environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "first\n"
            api = server.pid_of("app.child api")
            assert api is not None
            os.kill(api, number)
            assert client.stdout.readline() == "again\n"
            assert client.wait(10) == 0
        finally:
            client.kill()
    until(PATIENCE, "ready again", server.is_ready)
