"""Claims of idempotency keys, and changes that commit together with their outcome."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col

from app.database import Database, after_commit, now
from app.errors import Conflict
from app.idempotency import attempts, service
from app.idempotency.attempts import Attempt, HeldDatabase
from app.idempotency.models import IdempotencyKey
from app.idempotency.sealing import Broken, Part, Seal, SealedRow
from app.idempotency.service import Answered, Busy, Claimed, ClaimLost
from app.users.models import User
from app.users.service import upsert_users

SEAL = Seal("car_secret", "key")


async def claim(database: Database, name: str = SEAL.name, request: str = "r") -> Claimed | Answered | Busy:
    async with database.transaction() as session:
        return await service.claim(session, name, request)


async def attempt(database: Database) -> Attempt:
    verdict = await claim(database)
    assert isinstance(verdict, Claimed)
    return Attempt(database, SEAL.row("r"), verdict)


async def age(database: Database, **changes: timedelta) -> None:
    """Moves times of all keys into the past."""
    async with database.transaction() as session:
        at = await now(session)
        await session.execute(update(IdempotencyKey).values({name: at - by for name, by in changes.items()}))


async def let_leases_run_out(database: Database) -> None:
    await age(database, leased_until=timedelta(seconds=1))


async def add(database: Database, user_id: str) -> None:
    async with database.transaction() as session:
        await upsert_users(session, [{"user_id": user_id}])


async def count(database: Database, model: Any = User) -> int:
    async with database.read() as session:
        return (await session.execute(select(func.count()).select_from(model))).scalar_one()


async def test_one_of_many_claims_a_key(database: Database) -> None:
    verdicts = await asyncio.gather(*(claim(database) for _ in range(10)))
    assert sorted(type(verdict).__name__ for verdict in verdicts) == ["Busy"] * 9 + ["Claimed"]


async def test_one_of_many_takes_a_claim_over(database: Database) -> None:
    await claim(database)
    await let_leases_run_out(database)
    verdicts = await asyncio.gather(*(claim(database) for _ in range(10)))
    assert sorted(type(verdict).__name__ for verdict in verdicts) == ["Busy"] * 9 + ["Claimed"]


async def test_another_request_is_a_conflict_also_while_the_first_is_under_way(database: Database) -> None:
    first = await attempt(database)
    with pytest.raises(Conflict, match="was used for another request"):
        await claim(database, request="other")
    await first.answer(b"{}")
    with pytest.raises(Conflict, match="was used for another request"):
        await claim(database, request="other")


async def test_an_answer_is_found_again(database: Database) -> None:
    await (await attempt(database)).answer(b'{"data": 1}')
    verdict = await claim(database)
    assert isinstance(verdict, Answered) and opened(SEAL.row("r"), verdict.response) == b'{"data": 1}'


async def test_a_change_commits_with_its_outcome(database: Database) -> None:
    first = await attempt(database)
    held = HeldDatabase(database, first)
    await add(held, "u")
    assert await count(database) == 0
    await held.settle("field", {"users": ["u"]}, refused=False)
    assert await count(database) == 1
    await let_leases_run_out(database)
    second = await attempt(database)
    assert second.outcome("field") == {"users": ["u"]}
    assert second.outcome("other") is None


async def test_a_refusal_takes_its_change_back_and_is_noted_with_the_next_one(database: Database) -> None:
    first = await attempt(database)
    refused, done = HeldDatabase(database, first), HeldDatabase(database, first)
    await add(refused, "u")
    await refused.settle("a", {"errors": ["no"]}, refused=True)
    assert await count(database) == 0
    await add(done, "v")
    await done.settle("b", {"errors": []}, refused=False)
    await let_leases_run_out(database)
    second = await attempt(database)
    assert (second.outcome("a"), second.outcome("b")) == ({"errors": ["no"]}, {"errors": []})


async def test_what_is_not_settled_is_rolled_back(database: Database) -> None:
    held = HeldDatabase(database, await attempt(database))
    await add(held, "u")
    await held.close()
    with pytest.raises(ZeroDivisionError):
        async with held.transaction() as session:
            await upsert_users(session, [{"user_id": "v"}])
            raise ZeroDivisionError
    await held.close()
    assert await count(database) == 0
    await add(database, "w")  # no lock is left


async def test_of_several_transactions_each_commits_and_the_last_with_the_outcome(database: Database) -> None:
    first = await attempt(database)
    held = HeldDatabase(database, first)
    await add(held, "u")
    await add(held, "v")
    assert await count(database) == 1
    await held.settle("field", 1, refused=False)
    await add(held, "w")  # what follows is an ordinary transaction
    assert await count(database) == 3


async def test_hooks_run_after_the_commit_that_was_held(database: Database) -> None:
    rung = list[int]()
    held = HeldDatabase(database, await attempt(database))

    async def ring() -> None:
        rung.append(await count(held))
        await add(held, "later")

    async with held.transaction() as session:
        await upsert_users(session, [{"user_id": "u"}])
        after_commit(session, ring)
    assert rung == []
    await held.settle("field", 1, refused=False)
    assert rung == [1]
    assert await count(database) == 2


async def test_who_lost_the_claim_commits_nothing(database: Database) -> None:
    slow = await attempt(database)
    await let_leases_run_out(database)
    second = await attempt(database)
    held = HeldDatabase(database, slow)
    await add(held, "u")
    with pytest.raises(ClaimLost, match="a repeat took it over"):
        await held.settle("field", 1, refused=False)
    for late in (partial(slow.answer, b"{}"), slow.release, slow.forget):
        with pytest.raises(ClaimLost):
            await late()
    assert await count(database) == 0
    await second.answer(b"{}")


async def test_nor_the_first_of_several_transactions(database: Database) -> None:
    held = HeldDatabase(database, await attempt(database))
    await let_leases_run_out(database)
    await attempt(database)
    await add(held, "u")
    with pytest.raises(ClaimLost):
        await add(held, "v")
    assert await count(database) == 0


async def test_who_takes_over_waits_for_a_commit_that_is_under_way(database: Database) -> None:
    """The lease runs out between the last statement and the commit: the outcome is seen all the same."""
    slow = await attempt(database)
    await let_leases_run_out(database)
    async with database.opened() as session:
        await upsert_users(session, [{"user_id": "u"}])
        await slow._note(session, {"field": "done"})
        overtaking = asyncio.create_task(attempt(database))
        done, _ = await asyncio.wait([overtaking], timeout=0.2)
        assert not done
        await session.commit()
    assert (await overtaking).outcome("field") == "done"


async def test_an_outcome_whose_commit_failed_is_not_written_with_the_next(database: Database) -> None:
    first = await attempt(database)
    failing, going_on = HeldDatabase(database, first), HeldDatabase(database, first)
    async with failing.transaction() as session:
        session.add(User(id="u"))  # without its times: this cannot be written
    with pytest.raises(IntegrityError):
        await failing.settle("a", 1, refused=False)
    await add(going_on, "v")
    await going_on.settle("b", 2, refused=False)
    await let_leases_run_out(database)
    second = await attempt(database)
    assert (second.outcome("a"), second.outcome("b")) == (None, 2)


async def test_who_takes_long_keeps_the_claim(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is renewed again and again, each time before it can run out."""
    assert timedelta(seconds=2 * attempts.SECONDS_BETWEEN_RENEWALS) < service.LEASE
    monkeypatch.setattr(service, "LEASE", timedelta(hours=1))
    monkeypatch.setattr(attempts, "SECONDS_BETWEEN_RENEWALS", 0.05)
    slow = await attempt(database)
    async with slow.alive(), asyncio.timeout(60):
        for _ in range(3):
            before = await leased_until(database)
            while await leased_until(database) == before:
                assert isinstance(await claim(database), Busy)
                await asyncio.sleep(0.01)
            assert await leased_until(database) > before
    await slow.answer(b"{}")


async def leased_until(database: Database) -> Any:
    async with database.read() as session:
        return (await session.execute(select(col(IdempotencyKey.leased_until)))).scalar_one()


@pytest.mark.parametrize("finish", [lambda first: first.answer(b"{}"), lambda first: first.release()])
async def test_after_a_day_a_key_is_free(database: Database, finish: Callable[[Attempt], Any]) -> None:
    first = await attempt(database)
    first.refuse("field", 1)
    await finish(first)
    await age(database, created_at=service.KEPT - timedelta(seconds=5))
    with pytest.raises(Conflict):
        await claim(database, request="other")
    await age(database, created_at=service.KEPT)
    second = await claim(database, request="other")
    assert isinstance(second, Claimed) and second.outcomes == ""
    assert isinstance(await claim(database, request="other"), Busy)


async def test_a_key_that_is_held_is_never_too_old(database: Database) -> None:
    await claim(database)
    await age(database, created_at=service.KEPT * 2)
    assert isinstance(await claim(database), Busy)
    await service.prune(database)
    assert await count(database, IdempotencyKey) == 1


async def test_old_keys_are_pruned_in_chunks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PRUNED_AT_ONCE", 3)
    for number in range(7):
        await claim(database, f"old-{number}")
    await age(database, created_at=service.KEPT, leased_until=timedelta(0))
    await claim(database, "young")
    await service.prune(database)
    async with database.read() as session:
        assert (await session.execute(select(col(IdempotencyKey.name)))).scalars().all() == ["young"]


async def test_pruning_spares_a_key_that_is_used_anew_this_moment(database: Database) -> None:
    await claim(database)
    await age(database, created_at=service.KEPT, leased_until=timedelta(0))
    async with database.transaction() as session:
        again = await service.claim(session, SEAL.name, "r")
        pruning = asyncio.create_task(service.prune(database))
        done, _ = await asyncio.wait([pruning], timeout=0.2)
        assert not done  # it found the row, which is locked
    await pruning
    assert isinstance(again, Claimed)
    assert await count(database, IdempotencyKey) == 1


CONTENT = bytes(range(256)) * 3


def opened(row: SealedRow, sealed: bytes, part: Part = Part.ANSWER) -> bytes | None:
    """What a row finds in sealed content; None if that is not its own."""
    try:
        return row.open(sealed, part)
    except Broken:
        return None


def test_what_is_sealed_is_found_again_and_looks_different_each_time() -> None:
    row = SEAL.row("r")
    sealed = [row.close(CONTENT, Part.ANSWER) for _ in range(100)]
    assert len(set(sealed)) == 100
    assert not any(CONTENT[:16] in each for each in sealed)
    again = Seal("car_secret", "key").row("r")
    assert all(again.open(each, Part.ANSWER) == CONTENT for each in sealed)
    assert again.open(row.close(b"", Part.OUTCOME), Part.OUTCOME) == b""


def test_every_change_to_what_is_sealed_is_noticed() -> None:
    row = SEAL.row("r")
    sealed = row.close(b"an answer", Part.ANSWER)
    for place in range(len(sealed)):
        for bit in range(8):
            flipped = bytes([sealed[place] ^ 1 << bit])
            assert opened(row, sealed[:place] + flipped + sealed[place + 1 :]) is None
        assert opened(row, sealed[:place]) is None
    assert opened(row, sealed + b"x") is None


def test_only_the_same_key_request_and_part_open_it() -> None:
    sealed = SEAL.row("r").close(CONTENT, Part.ANSWER)
    others = [Seal("car_secret", "key2"), Seal("car_other", "key"), Seal("car_secretk", "ey")]
    assert len({seal.name for seal in (SEAL, *others)}) == 4
    assert len({seal.digest(b"x") for seal in (SEAL, *others)}) == 4
    assert all(opened(seal.row("r"), sealed) is None for seal in others)
    assert opened(SEAL.row("another request"), sealed) is None
    assert opened(SEAL.row("r"), sealed, Part.OUTCOME) is None
    assert opened(SEAL.row("r"), sealed) == CONTENT
