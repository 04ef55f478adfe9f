"""Pages by keyset: every row once, in order, forwards and backwards, nulls last, times to the microsecond."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlmodel import col

from app import keyset
from app.database import Database
from app.keyset import Bounds, By, Key
from app.users.models import User

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
NAME = By(col(User.name), nullable=True)
NAME_DOWN = By(col(User.name), descending=True, nullable=True)
SEEN = By(col(User.last_active_at), nullable=True)
SEEN_DOWN = By(col(User.last_active_at), descending=True, nullable=True)
CREATED_DOWN = By(col(User.created_at), descending=True)
ID = By(col(User.id))
ID_DOWN = By(col(User.id), descending=True)

ORDERS = [
    [ID],
    [ID_DOWN],
    [CREATED_DOWN, ID_DOWN],
    [CREATED_DOWN, ID],
    [NAME, ID],
    [NAME_DOWN, ID],
    [NAME_DOWN, SEEN, ID_DOWN],
    [SEEN_DOWN, CREATED_DOWN, ID],
    [By(func.length(col(User.id))), ID_DOWN],
]


def in_order(users: list[User], order: list[By]) -> list[str]:
    """The ids as Python sorts them."""
    for by in reversed(order):

        def value(user: User, column: Any = by.column) -> Any:
            return getattr(user, column.key) if hasattr(column, "key") and column.key else len(user.id)

        with_value = [user for user in users if value(user) is not None]
        without = [user for user in users if value(user) is None]
        users = sorted(with_value, key=value, reverse=by.descending) + without
    return [user.id for user in users]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(str(by.column) for by in order))
async def test_pages_have_every_row_once_in_order(database: Database, order: list[By]) -> None:
    chance = random.Random(7)
    users = [
        User(
            id=f"{'é' * chance.randint(0, 3)}{number}",
            name=chance.choice([None, "Ä", "a", "B", ""]),
            created_at=WHEN + timedelta(microseconds=chance.randint(0, 5)),
            updated_at=WHEN,
            last_active_at=chance.choice([None, WHEN + timedelta(microseconds=chance.randint(0, 3))]),
        )
        for number in range(60)
    ]
    async with database.transaction() as session:
        session.add_all(users)
    expected = in_order(users, order)
    assert await walked(database, order, backward=False) == expected
    assert await walked(database, order, backward=True) == expected[::-1]


async def walked(database: Database, order: list[By], *, backward: bool) -> list[str]:
    """All ids, page by page."""
    found: list[str] = []
    edge: Key | None = None
    while True:
        bounds = Bounds(None if backward else edge, edge if backward else None, 7, backward)
        async with database.read() as session:
            page = await keyset.page(session, select(col(User.id)), order, bounds)
        if not page:
            return found
        found += [row for row, _ in page]
        edge = page[-1][1]


async def test_both_bounds_hold_at_once(database: Database) -> None:
    async with database.transaction() as session:
        session.add_all(User(id=f"u{n}", created_at=WHEN, updated_at=WHEN) for n in range(9))
    async with database.read() as session:
        bounds = Bounds(("u1",), ("u6",), 3, backward=True)
        page = await keyset.page(session, select(User, col(User.name)), [ID], bounds)
    assert [(user.id, name, key) for (user, name), key in page] == [
        ("u5", None, ("u5",)),
        ("u4", None, ("u4",)),
        ("u3", None, ("u3",)),
    ]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(str(by.column) for by in order))
async def test_many_lists_at_once_are_what_each_alone_is(database: Database, order: list[By]) -> None:
    chance = random.Random(3)
    roles = ["a", "b", "c", "nobody's"]
    async with database.transaction() as session:
        session.add_all(
            User(
                id=f"{'é' * chance.randint(0, 3)}{number}",
                role=chance.choice(roles[:3]),
                name=chance.choice([None, "Ä", "a"]),
                created_at=WHEN + timedelta(microseconds=chance.randint(0, 3)),
                updated_at=WHEN,
                last_active_at=chance.choice([None, WHEN]),
            )
            for number in range(40)
        )

    def of(role: Any) -> Any:
        return select(User, col(User.name)).where(col(User.role) == role)

    async with database.read() as session:
        whole = await keyset.page(session, of("a"), order, Bounds(None, None, 100, False))
        low, high = whole[2][1], whole[-2][1]
        for bounds in (
            Bounds(None, None, 5, False),
            Bounds(None, None, 5, True),
            Bounds(low, high, 100, False),
            Bounds(low, high, 3, True),
        ):
            each = {role: await keyset.page(session, of(role), order, bounds) for role in roles}
            assert await keyset.pages(session, of, roles, order, bounds) == each
            lists = {role: (_ids(of(role)), order) for role in roles}
            own = await keyset.pages_of_each(session, lists, bounds)
            assert own == {role: [(user.id, key) for (user, _), key in rows] for role, rows in each.items()}
        counts = await keyset.counts(session, of, roles)
        assert sum(counts.values()) == 40
        assert counts["a"] == len(whole) and counts["nobody's"] == 0
        assert await keyset.counts_of_each(session, {role: of(role) for role in roles}) == counts
        assert await keyset.counts(session, of, ["a"]) == {"a": len(whole)}


def _ids(statement: Any) -> Any:
    return statement.with_only_columns(col(User.id), maintain_column_froms=True)


async def test_more_lists_than_a_statement_unites(database: Database) -> None:
    async with database.transaction() as session:
        session.add_all(User(id=f"u{n}", created_at=WHEN, updated_at=WHEN) for n in range(keyset.ARMS + 5))
    lists = {n: (select(col(User.id)).where(col(User.id) == f"u{n}"), [ID]) for n in range(keyset.ARMS + 5)}
    async with database.read() as session:
        pages = await keyset.pages_of_each(session, lists, Bounds(None, None, 2, False))
        counts = await keyset.counts_of_each(session, {n: statement for n, (statement, _) in lists.items()})
    assert pages == {n: [(f"u{n}", (f"u{n}",))] for n in lists}
    assert set(counts.values()) == {1} and len(counts) == len(lists)


def test_kinds_are_those_of_the_columns() -> None:
    assert keyset.kinds([NAME, SEEN, ID]) == (str, datetime, str)
