"""Random questions about the zoo."""

import random
from typing import Any

from graphql import GraphQLObjectType, get_named_type, is_abstract_type, is_composite_type

from tests.unit.zoo import GRAPHQL


class Questions:
    """Random documents about the zoo, valid by the way they are made."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._fragments: dict[str, str] = {}

    def document(self) -> str:
        used = "__typename @include(if: $on) @skip(if: $off) used: animals(first: $n) { __typename }"
        body = f"{{ {used} ... {self._selection('Query', 0)} }}"
        operation = f"query ($on: Boolean!, $off: Boolean = false, $n: Int) {body}"
        return "\n".join([operation, *(text for text in self._fragments.values() if text)])

    def _selection(self, type_name: str, depth: int) -> str:
        count = self._chance.randint(1, 4 if depth < 3 else 2)
        return "{ __typename " + " ".join(self._part(type_name, depth) for _ in range(count)) + " }"

    def _part(self, type_name: str, depth: int) -> str:
        if depth > 5:
            return "__typename"
        way = self._chance.randint(0, 9)
        if way == 0 and type_name != "Query":
            return f"... {self._directive()} {self._selection(type_name, depth + 1)}"
        if way == 1 and type_name != "Query":
            of = self._chance.choice(self._conditions(type_name))
            return f"... on {of} {self._directive()} {self._selection(of, depth + 1)}"
        if way == 2 and depth < 4:
            return f"...{self._fragment(type_name, depth)} {self._directive()}"
        return self._field(type_name, depth)

    def _conditions(self, type_name: str) -> list[str]:
        kind: Any = GRAPHQL.type_map[type_name]
        if is_abstract_type(kind):
            return [type_name, *(each.name for each in GRAPHQL.get_possible_types(kind))]
        return [type_name, *(each.name for each in kind.interfaces)]

    def _fragment(self, type_name: str, depth: int) -> str:
        name = f"Of{type_name}{depth}"
        if name not in self._fragments:
            self._fragments[name] = ""
            self._fragments[name] = f"fragment {name} on {type_name} {self._selection(type_name, depth + 1)}"
        return name if self._fragments[name] else "Nothing" + self._nothing(type_name)

    def _nothing(self, type_name: str) -> str:
        self._fragments[f"Nothing{type_name}"] = (
            f"fragment Nothing{type_name} on {type_name} {{ __typename }}"
        )
        return type_name

    def _directive(self) -> str:
        return self._chance.choice(DIRECTIVES)

    def _field(self, type_name: str, depth: int) -> str:
        kind: Any = GRAPHQL.type_map[type_name]
        name, declared = self._chance.choice(list(kind.fields.items()))
        inner = get_named_type(declared.type)
        alias = self._chance.choice(["", "one", "two"])
        arguments = ARGUMENTS.get(alias, {}).get("first" if "first" in declared.args else name, "")
        selected = self._selection(inner.name, depth + 1) if is_composite_type(inner) else ""
        # Types of one name but different shapes may stand side by side: their fields get names of their own.
        key = f"{alias}{type_name}{name}: " if isinstance(kind, GraphQLObjectType) and alias else ""
        return f"{key}{name}{arguments if key else ''} {self._directive()} {selected}"


DIRECTIVES = ["", "", "", "@include(if: $on)", "@skip(if: $off)", "@skip(if: $on) @include(if: true)"]
ARGUMENTS = {
    "one": {"first": "(first: 2)", "plus": "(number: 2)"},
    "two": {"first": "(first: $n)", "plus": "(number: $n)"},
}
