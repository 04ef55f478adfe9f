"""What documents cost that are refused: the processor's time until the answer is known."""

import time
from dataclasses import dataclass

from graphql import get_introspection_query

from app.graphql.documents import Documents
from app.graphql.failures import Refused
from app.schema import schema
from app.settings import Settings
from scripts.benchmarks.hostile import REFUSED

TARGET_MS = 50.0


@dataclass(frozen=True)
class Refusal:
    """One document: how long it is, the least of so many times, in milliseconds, and the answer."""

    name: str
    characters: int
    milliseconds: float
    answer: str


def measure(repeat: int) -> list[Refusal]:
    """Every hostile document, the slowest first, and for comparison the question that every tool asks."""
    documents = {**REFUSED, "(for comparison: introspection by tools)": get_introspection_query()}
    found = [_refusal(name, document, repeat) for name, document in documents.items()]
    return sorted(found, key=lambda refusal: -refusal.milliseconds)


def _refusal(name: str, document: str, repeat: int) -> Refusal:
    least, answer = float("inf"), "admitted"
    for _ in range(repeat):
        documents = Documents(schema, Settings())
        begun = time.process_time()
        try:
            documents.admit(document)
        except Refused as refused:
            answer = str(refused)
        least = min(least, time.process_time() - begun)
    return Refusal(name, len(document), least * 1_000, answer)
