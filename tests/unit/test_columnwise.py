"""Lists executed by columns: whatever is asked, the answer is graphql-core's own."""

import gc
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from graphql import GraphQLObjectType, parse, validate
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.graphql import keyed
from app.graphql.columnwise import ColumnwiseExecutor, Understood
from app.graphql.limits import DEFINITION
from app.graphql.nodes import Node
from app.graphql.scalars import format_instant, format_instants
from app.schema import schema
from tests.unit import zoo
from tests.unit.questions import Questions

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
SEEDS = st.integers(0, 2**64)
GRAPHQL = schema._schema
TYPES = [kind for kind in GRAPHQL.type_map.values() if isinstance(kind, GraphQLObjectType)]


@pytest.fixture(autouse=True, scope="module")
def what_errors_abandon() -> Iterator[None]:
    """graphql-core leaves coroutines unawaited beside a field whose error makes their object null. They are
    collected here, lest they are found in another test, or in the middle of something that cannot warn."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()
    gc.enable()
    gc.unfreeze()


async def answered(document: str, variables: dict[str, Any], understood: Understood | None) -> Any:
    """The data; every error that made nothing but its own field null; and what else errors made null. Where
    two fields of one object may not be null and fail, which of them is told depends on who fails first."""
    result = await zoo.schema.execute(document, variables, context_value=zoo.context(understood))
    alone, spread = [], set()
    for error in result.errors or ():
        null = nulled(result.data, error.path or [])
        if null == error.path:
            alone.append(repr((error.path, error.message, error.locations, error.extensions)))
        else:
            spread.add(tuple(null))
    return result.data, sorted(alone), spread


def nulled(data: Any, path: list[str | int]) -> list[str | int]:
    """Where on this path the data is null."""
    for depth, step in enumerate(path):
        if data is None:
            return path[:depth]
        data = data[step]
    return path


@settings(max_examples=200, deadline=None)
@given(SEEDS, SEEDS, st.sampled_from([0.0, 0.03, 0.3]), st.booleans(), st.booleans())
async def test_answers_and_errors_are_those_of_stock_execution(
    asked: int, seed: int, wrong: float, on: bool, off: bool
) -> None:
    document = Questions(asked).document()
    assume(not validate(zoo.GRAPHQL, parse(document)))
    variables = {"on": on, "off": off, "n": 1}
    understood = Understood()
    answers = []
    for how in (None, understood, understood):
        zoo.world = zoo.World(seed, wrong)
        answers.append(await answered(document, variables, how))
    assert answers[0] == answers[1] == answers[2]


@given(
    st.lists(
        st.none()
        | st.datetimes(
            timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), ZoneInfo("UTC")])
        )
        | st.datetimes().map(lambda at: at.replace(microsecond=0, tzinfo=UTC))
    )
)
def test_instants_are_written_together_as_each_alone(instants: list[datetime | None]) -> None:
    try:
        alone = [None if instant is None else format_instant(instant) for instant in instants]
    except OverflowError:  # another zone's first day is no day of ours
        return
    assert format_instants(instants) == alone


async def items_left_to_graphql_core(monkeypatch: pytest.MonkeyPatch, document: str, seed: int) -> int:
    left: list[object] = []
    whole = ColumnwiseExecutor.complete_list_item_value

    def noted(self: ColumnwiseExecutor, *arguments: Any) -> bool:
        left.append(arguments[0])
        return whole(self, *arguments)

    monkeypatch.setattr(ColumnwiseExecutor, "complete_list_item_value", noted)
    zoo.world = zoo.World(seed, wrong=0)
    await zoo.schema.execute(document, context_value=zoo.context(Understood()))
    return len(left)


# Connections within items, and what takes arguments, the viewer's role, or a statement that writes.
LEFT = {
    "User.channels",
    "Channel.members",
    "WebhookDelivery.payload",
    "WebhookEndpoint.deliveries",
    "Channel.messages",
    "Campaign.allowedActions",
    "Campaign.segments",
    "Campaign.targets",
    "Campaign.audienceEstimate",
    "Campaign.recipients",
    "Campaign.explain",
    "Campaign.preview",
    "Segment.size",
    "Segment.sizeState",
    "Segment.targets",
    "Segment.targetExists",
    "Segment.campaigns",
}
ALONE = (
    "{ animals { edges { cursor node { id text kind when texts tag { double } keeper { label } count } } } }"
)


async def test_what_is_understood_is_not_executed_item_by_item(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await items_left_to_graphql_core(monkeypatch, ALONE, 1) == 0


async def test_rows_of_which_only_columns_are_selected_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.Track, "of", None)
    zoo.world = zoo.World(1, wrong=0)
    document = "{ tracks { edges { cursor node { id text when kind trail keeper { label } } } } }"
    result = await zoo.schema.execute(document, context_value=zoo.context(Understood()))
    assert result.errors is None and len((result.data or {})["tracks"]["edges"]) == len(zoo.world.animals)


@pytest.mark.parametrize("other", ["slow", "where", "plus", "others { totalCount }"])
async def test_anything_else_is(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    document = ALONE.replace("count", other)
    assert await items_left_to_graphql_core(monkeypatch, document, 1) == len(zoo.world.animals)


async def test_only_the_item_with_something_wrong_is(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = zoo.World._animal

    def animal(self: zoo.World, number: int, others: list[Any]) -> zoo.Animal:
        made = whole(self, number, others)
        made.text = "a" if number != 2 else None  # type: ignore[assignment]
        return made

    monkeypatch.setattr(zoo.World, "_animal", animal)
    document = "{ animals { edges { node { text } } } }"
    assert await items_left_to_graphql_core(monkeypatch, document, 1) == 1


def test_documents_keep_a_bounded_number_of_selections() -> None:
    understood = Understood()
    for number in range(1_000):
        understood.completer((number,), lambda: None)  # type: ignore[arg-type, return-value]
    assert len(understood._completers) <= 100


def test_fields_of_nodes_that_are_columns_have_their_columns_names() -> None:
    """What `columns` calls a column is one of the row's, and every plain field of the type is among them."""
    for kind in TYPES:
        origin = getattr(kind.extensions.get(keyed.DEFINITION), "origin", object)
        columns = origin.columns() if issubclass(origin, Node) else None
        if columns is not None:
            plain = {
                field.extensions[DEFINITION].python_name
                for field in kind.fields.values()
                if field.extensions[keyed.DEFINITION].is_basic_field
            }
            assert plain <= {"id", *columns.shape.sources}, kind.name


def test_every_field_of_many_rows_is_understood_or_known_not_to_be() -> None:
    """A field that is new here makes lists of its type slow: declare it with `@reference` or `@loaded`, or
    add it."""
    left: set[str] = set()
    for kind in TYPES:
        if kind.name in ("Query", "Mutation", "Subscription") or kind.name.startswith("__"):
            continue
        for name, field in kind.fields.items():
            definition = field.extensions[keyed.DEFINITION]
            resolver = definition.base_resolver
            alone = resolver is None or not (resolver.is_async or resolver.info_parameter or field.args)
            if not (alone or keyed.KEYED in definition.metadata or name == "totalCount"):
                left.add(f"{kind.name}.{name}")
    assert left == LEFT, sorted(left)
