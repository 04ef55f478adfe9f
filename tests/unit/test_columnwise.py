"""Lists executed by columns: whatever is asked, the answer is graphql-core's own."""

from typing import Any

from graphql import parse, validate
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.graphql.columnwise import Understood
from tests.unit import zoo

SEEDS = st.integers(0, 2**64)


async def answered(document: str, variables: dict[str, Any], understood: Understood | None) -> Any:
    result = await zoo.schema.execute(document, variables, context_value=zoo.context(understood))
    errors = [(error.path, error.message, error.locations, error.extensions) for error in result.errors or ()]
    return result.data, sorted(map(repr, errors))


@settings(max_examples=200, deadline=None)
@given(SEEDS, SEEDS, st.sampled_from([0.0, 0.03, 0.3]), st.booleans(), st.booleans())
async def test_answers_and_errors_are_those_of_stock_execution(
    asked: int, seed: int, wrong: float, on: bool, off: bool
) -> None:
    document = zoo.Questions(asked).document()
    assume(not validate(zoo.GRAPHQL, parse(document)))
    variables = {"on": on, "off": off, "n": 1}
    understood = Understood()
    answers = []
    for how in (None, understood, understood):
        zoo.world = zoo.World(seed, wrong)
        answers.append(await answered(document, variables, how))
    assert answers[0] == answers[1] == answers[2]
