"""What is wrong with an input is told all at once: its form, what it names, and what is stored."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from app.campaigns import definition
from app.database import Database
from app.settings import Settings, load
from tests.api.campaigns import DRAFT, ERRORS, Campaigns, people
from tests.api.conftest import Client

SEGMENT = "mutation ($i: CreateSegmentInput!) { createSegment(input: $i) { errors { message } } }"
LATER = "2999-01-01T00:00:00Z"
LONG_AGO = "2020-01-01T00:00:00Z"
MISTAKE = {"messageTemplate": {"text": "{{ oops"}}
MISTAKEN = ("INVALID_INPUT", ["messageTemplate", "text"])
Named = list[tuple[str, list[str]]]


@pytest.fixture
async def campaigns(client: Client, database: Database) -> Campaigns:
    """Three users and a sender; segments of users, and of channels."""
    await people(database, 3)
    for segment_id, kind in (("users", "USER"), ("rooms", "CHANNEL")):
        await client.data(SEGMENT, i={"segmentId": segment_id, "type": kind})
    return Campaigns(client)


async def refused(client: Client, mutation: str, **given: Any) -> list[Any]:
    """The errors of any mutation."""
    kind = f"{mutation[0].upper()}{mutation[1:]}Input"
    document = f"mutation ($input: {kind}!) {{ {mutation}(input: $input) {{ {ERRORS} }} }}"
    errors: list[Any] = (await client.data(document, input=given))[mutation]["errors"]
    return errors


def named(errors: list[Any]) -> Named:
    return [(error["code"], error["path"]) for error in errors]


async def test_a_creation_names_its_form_the_taken_id_the_sender_and_every_segment(
    campaigns: Campaigns,
) -> None:
    await campaigns.draft("c")
    given = {"campaignId": "c", "senderId": "nobody", "segmentIds": ["users", "no", "rooms"]}
    everything = [
        MISTAKEN,
        ("ALREADY_EXISTS", ["campaignId"]),
        ("INVALID_INPUT", ["senderId"]),
        ("INVALID_INPUT", ["segmentIds", "1"]),
        ("INVALID_INPUT", ["segmentIds", "2"]),
    ]
    assert await campaigns.refused("create", **given, **MISTAKE) == everything
    given |= {"campaignId": "c c", "senderId": "no body", "segmentIds": ["no", "n o"]}
    assert sorted(await campaigns.refused("create", **{**DRAFT, **given})) == [
        ("INVALID_INPUT", ["campaignId"]),
        ("INVALID_INPUT", ["segmentIds", "1"]),
        ("INVALID_INPUT", ["senderId"]),
    ]


async def test_a_change_names_its_form_what_it_names_and_what_is_stored(campaigns: Campaigns) -> None:
    await campaigns.draft("c", userIds=["u00"])
    given = {"senderId": "nobody", "segmentIds": ["no"], **MISTAKE}
    found = [MISTAKEN, ("INVALID_INPUT", ["senderId"]), ("INVALID_INPUT", ["segmentIds", "0"])]
    exclusive = ("INVALID_INPUT", ["segmentIds"])
    unknown = ("NOT_FOUND", ["campaignId"])
    assert await campaigns.refused("update", campaignId="c", **given) == [*found, exclusive]
    assert await campaigns.refused("update", campaignId="x", **given) == [*found, unknown]


async def test_after_the_end_every_field_that_may_not_change_is_a_conflict(campaigns: Campaigns) -> None:
    await campaigns.draft("c", userIds=["u00"])
    await campaigns.done("start", campaignId="c")
    content = {"showChannels": True, "senderId": "nobody", "segmentIds": ["no"]}
    errors = await campaigns.refused("update", campaignId="c", name="N", stopAt=LONG_AGO, **content)
    stop_at = ("INVALID_INPUT", ["stopAt"])
    assert sorted(errors) == sorted([*(("CONFLICT", [name]) for name in content), stop_at])
    await campaigns.done("stop", campaignId="c")
    given = {"name": "N", "showChannels": True, "maxMessagesPerSecond": 5, "stopAt": LONG_AGO}
    errors = await campaigns.refused("update", campaignId="c", **given)
    assert sorted(errors) == [("CONFLICT", [name]) for name in sorted(given.keys() - {"name"})]
    assert (await campaigns.read("c"))["name"] is None


LACKS: list[tuple[dict[str, Any], Named]] = [
    (
        {"channelTemplate": None, "userIds": None, "senderId": "nope"},
        [
            ("INVALID_INPUT", ["senderId"]),
            ("INVALID_INPUT", ["segmentIds"]),
            ("INVALID_INPUT", ["channelTemplate"]),
        ],
    ),
    (
        {**MISTAKE, "userIds": None, "segmentIds": ["no"], "channelTemplate": None, "stopAt": LONG_AGO},
        [
            MISTAKEN,
            ("INVALID_INPUT", ["segmentIds", "0"]),
            ("INVALID_INPUT", ["stopAt"]),
            ("INVALID_INPUT", ["channelTemplate"]),
        ],
    ),
    (
        {"userIds": ["a b"], "segmentIds": None, "channelTemplate": {"type": "a b"}},
        [("INVALID_INPUT", ["userIds", "0"]), ("INVALID_INPUT", ["channelTemplate", "type"])],
    ),
]


async def test_while_scheduled_a_change_names_all_that_a_start_lacks_once(campaigns: Campaigns) -> None:
    made = {"userIds": ["u00"], "channelTemplate": {"type": "m"}, "createChannels": True}
    await campaigns.draft("c", **made)
    await campaigns.done("start", campaignId="c", scheduledFor=LATER)
    for given, errors in LACKS:
        found = await campaigns.refused("update", campaignId="c", **given)
        assert sorted(found) == sorted(errors), given
    again = await campaigns.read("c")
    assert (again["senderId"], again["targets"]["totalCount"]) == ("sender", 1)


async def test_tests_and_retries_name_the_campaign_and_the_rest(campaigns: Campaigns) -> None:
    unknown = ("NOT_FOUND", ["campaignId"])
    errors = await refused(campaigns.client, "testCampaign", campaignId="x", userIds=["a b", "u00"])
    assert named(errors) == [("INVALID_INPUT", ["userIds", "0"]), unknown]
    errors = await refused(campaigns.client, "retryRecipients", campaignId="x", reasons=["SENDER"])
    assert named(errors) == [("INVALID_INPUT", ["reasons", "0"]), unknown]


class TestCapacity:
    """A month of one message."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """The same with a limit."""
        return load(**{**settings.model_dump(exclude_unset=True), "monthly_messages": 1})

    async def test_a_test_beyond_the_month_has_too_many_users(self, campaigns: Campaigns) -> None:
        await campaigns.draft("c", channelTemplate={"type": "m"}, createChannels=True)
        [error] = await refused(campaigns.client, "testCampaign", campaignId="c", userIds=["u00", "u01"])
        assert (error["code"], error["path"]) == ("QUOTA_EXCEEDED", ["userIds"])
        assert "Name fewer users" in error["message"]


async def test_channels_name_their_form_and_everyone_unknown(campaigns: Campaigns) -> None:
    channels = [
        {"type": "a b", "channelId": "one", "members": ["u00", "no"]},
        {"type": "m", "channelId": "two", "createdById": "nobody", "custom": {"members": 1, "type": 2}},
        {"type": "m", "channelId": "three", "members": ["n o"], "custom": {"cid": 1, "a.b": 2}},
        {"type": "m", "members": ["u01", "gone"]},
        {"type": "m"},
    ]
    errors = await refused(campaigns.client, "upsertChannels", channels=channels)
    assert sorted(named(errors)) == sorted(
        ("INVALID_INPUT", ["channels", *place])
        for place in (
            ["0", "type"],
            ["0", "members", "1"],
            ["1", "createdById"],
            ["1", "custom", "members"],
            ["1", "custom", "type"],
            ["2", "members", "0"],
            ["2", "custom", "cid"],
            ["2", "custom", "a.b"],
            ["3", "members", "1"],
            ["4", "members"],
        )
    )
    assert await campaigns.client.data("{ channels { totalCount } }") == {"channels": {"totalCount": 0}}


async def test_a_segment_in_use_is_named_with_what_helps(campaigns: Campaigns) -> None:
    await campaigns.draft("dr", segmentIds=["users"])
    [error] = await refused(campaigns.client, "deleteSegment", segmentId="users")
    assert (error["code"], error["path"]) == ("CONFLICT", ["segmentId"])
    assert "dr; stop or delete them, or name another segment in them" in error["message"]


async def test_templates_are_compiled_once_and_beside_the_event_loop(
    campaigns: Campaigns, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, compile_template = list[bool](), definition.MessageTemplate.compile

    def compiling(template: Mapping[str, Any]) -> Any:
        compiled.append(threading.current_thread() is threading.main_thread())
        return compile_template(template)

    monkeypatch.setattr(definition.MessageTemplate, "compile", compiling)
    await campaigns.draft("c")
    await campaigns.done("update", campaignId="c", messageTemplate={"text": "Another"})
    assert compiled == [False, False]
