"""Instances for tests: made on demand, and killed at the end of the test that made them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.acceptance.instances import Carillon

Instances = Callable[..., Carillon]


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[Instances]:
    """Makes instances, each in a directory of its own; whatever still runs at the end is killed.

    Give `database_url`, and what else stands in the environment by `environment`.
    """
    made: list[Carillon] = []

    def make(*, database_url: str | None = None, environment: Mapping[str, str] | None = None) -> Carillon:
        made.append(
            Carillon(tmp_path / f"data-{len(made)}", database_url=database_url, environment=environment)
        )
        return made[-1]

    yield make
    for instance in made:
        instance.kill_everything()


@pytest.fixture
def server(instances: Instances) -> Carillon:
    """An instance on SQLite, not started."""
    return instances()


@pytest.fixture
def server_on_both(database_url: str, instances: Instances) -> Carillon:
    """An instance that is not started; the test runs once on SQLite and once on PostgreSQL."""
    return instances(database_url=database_url)
