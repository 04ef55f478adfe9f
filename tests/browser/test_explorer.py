"""The explorer in a real browser. Each test of explorer.test.mjs is one here."""

import re
from collections.abc import Iterator

import pytest

from tests.acceptance.instances import Carillon
from tests.browser.tools import HERE, installed

PROGRAM = "explorer.test.mjs"
TITLE = re.compile(r'^\s*test\(["`]([^"`]+)["`]', re.MULTILINE)
SHAPES = {"${colors}": ("light", "dark"), "${width}": ("1440", "480")}


def titles() -> Iterator[str]:
    """The name of every test in the program."""
    for title in TITLE.findall((HERE / PROGRAM).read_text()):
        told = [title]
        for hole, values in SHAPES.items():
            told = [each.replace(hole, value) for each in told for value in values]
        yield from dict.fromkeys(told)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What each test found, by its name."""
    place = tmp_path_factory.mktemp("browser")
    server = Carillon(place / "open")
    closed = Carillon(place / "closed", environment={"CARILLON_INTROSPECTION": "false"})
    try:
        for each in (server, closed):
            each.start()
        environment = {"CARILLON": server.url, "KEY": server.admin_key, "CLOSED": closed.url}
        directory = place / "tests"
        directory.mkdir()
        yield installed().run_tests(directory, PROGRAM, environment)
    finally:
        for each in (server, closed):
            each.kill_everything()


@pytest.mark.parametrize("title", list(titles()))
def test_in_the_browser(title: str, found: dict[str, str]) -> None:
    assert title in found, sorted(found)
    assert not found[title], found[title]


def test_every_test_of_the_program_is_told(found: dict[str, str]) -> None:
    assert sorted(found) == sorted(titles())
