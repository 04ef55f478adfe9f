"""A message template's parts: every mistake found, then ready to be built for each recipient. Pure."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from app.errors import AppError, Invalid, InvalidInput, LimitExceeded
from app.messages.builders import (
    Build,
    Constant,
    RenderedText,
    computed_value,
    has_nul,
    json_text,
    spelled,
    unstorable,
)
from app.messages.templating.program import Program, compile_program
from app.messages.templating.source import TemplateMistake
from app.messages.templating.values import to_json

MAX_TEXT = 5_000
MAX_TEXT_SOURCE = 20_000
MAX_ATTACHMENTS = 30
MAX_JSON = 5 * 1024
MAX_JSON_SOURCE = 20_000
MAX_JSON_DEPTH = 50
MAX_PROGRAMS = 200
MAX_POLL_ID = 255

_JINJA = re.compile(r"\{[{%#]")


class Compilation:
    """The mistakes and programs found while one message template is compiled."""

    def __init__(self, root: str, variables: Sequence[str]) -> None:
        self.errors: list[AppError] = []
        self.programs: list[Program] = []
        self._root = root
        self._variables = variables

    def finish(self) -> None:
        """Raises Invalid if there were mistakes."""
        if self.errors:
            raise Invalid(self.errors)

    def invalid(self, message: str, *path: str | int, **details: Any) -> None:
        """Remembers a mistake."""
        self.errors.append(InvalidInput(message, path=(self._root, *path), details=details or None))

    def over(self, what: str, limit: int, given: int, *path: str | int) -> None:
        """Remembers that a limit is exceeded."""
        self.errors.append(
            LimitExceeded(
                f"{what}: at most {limit:,}, given {given:,}",
                path=(self._root, *path),
                details={"limit": limit, "given": given},
            )
        )

    def program(self, text: str, path: Sequence[str | int], *, keeps_type: bool) -> Program | None:
        """The program of a text; None where it is not one, the mistake being remembered."""
        try:
            program = compile_program(text, self._variables, keeps_type=keeps_type)
        except TemplateMistake as mistake:
            self.invalid(
                f"{spelled(path)}, line {mistake.line}, column {mistake.column}: {mistake.message}",
                *path,
                line=mistake.line,
                column=mistake.column,
            )
            return None
        self.programs.append(program)
        return program

    def text(self, value: Any, *path: str) -> Build:
        """Builds a text."""
        if not isinstance(value, str):
            self.invalid(f"{path[-1]} must be text", *path)
            return Constant("")
        if len(value) > MAX_TEXT_SOURCE:
            self.over(f"characters of {path[-1]}", MAX_TEXT_SOURCE, len(value), *path)
            return Constant("")
        if flaw := unstorable(value):
            self.invalid(f"{path[-1]} has {flaw}", *path)
            return Constant("")
        if not _JINJA.search(value):
            if len(value) > MAX_TEXT:
                self.over(f"characters of {path[-1]}", MAX_TEXT, len(value), *path)
            return Constant(value)
        program = self.program(value, path, keeps_type=False)
        return RenderedText(program, spelled(path)) if program else Constant("")

    def attachments(self, value: Any) -> Build:
        """Builds the attachments: a list of objects."""
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            self.invalid("attachments must be a list of objects", "attachments")
        elif len(value) > MAX_ATTACHMENTS:
            self.over("attachments", MAX_ATTACHMENTS, len(value), "attachments")
        else:
            return self.json(value, {}, "attachments")
        return Constant("")

    def custom(self, value: Any, extra: Mapping[str, Any]) -> Build:
        """Builds custom: an object, with `extra` on top, which the limit does not count."""
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            self.invalid("custom must be an object", "custom")
            return Constant("")
        return self.json(value, extra, "custom")

    def poll_id(self, value: Any) -> str | None:
        """The poll's id, copied unchanged."""
        if value is None:
            return None
        if not isinstance(value, str) or not value or len(value) > MAX_POLL_ID or unstorable(value):
            self.invalid(f"pollId must be text of 1 to {MAX_POLL_ID} characters", "pollId")
            return None
        return value

    def json(self, value: Any, extra: Mapping[str, Any], name: str) -> Build:
        """Builds a JSON text: `value` rendered, under what `extra` adds."""
        if not self._is_json(value, name):
            return Constant("")
        before, known_errors = len(self.programs), len(self.errors)
        build = self._json_builder(value, (name,), 0)
        if len(self.programs) > MAX_PROGRAMS:
            self.over("templates in one message", MAX_PROGRAMS, len(self.programs), name)
        if len(self.errors) > known_errors:
            return Constant("")
        if len(self.programs) > before:
            return partial(json_text, build, extra, MAX_JSON, name)
        if (size := len(to_json(value))) > MAX_JSON:
            self.over(f"bytes of {name}", MAX_JSON, size, name)
        return Constant(to_json({**value, **extra} if extra else value).decode())

    def _is_json(self, value: Any, name: str) -> bool:
        try:
            source = to_json(value)
        except TypeError as error:
            self.invalid(f"{name} is no valid JSON: {error}", name)
            return False
        if len(source) > MAX_JSON_SOURCE:
            self.over(f"bytes of {name}", MAX_JSON_SOURCE, len(source), name)
            return False
        if has_nul(source):
            self.invalid(f"{name} has a NUL character", name)
            return False
        return True

    def _json_builder(self, value: Any, path: Sequence[str | int], depth: int) -> Build:
        if depth > MAX_JSON_DEPTH:
            self.over("levels of nesting", MAX_JSON_DEPTH, depth, *path)
        elif isinstance(value, str) and _JINJA.search(value):
            return self._string_builder(value, path)
        elif isinstance(value, Mapping):
            parts = {k: self._json_builder(item, (*path, k), depth + 1) for k, item in value.items()}
            return lambda context: {key: build(context) for key, build in parts.items()}
        elif isinstance(value, list):
            items = [self._json_builder(item, (*path, i), depth + 1) for i, item in enumerate(value)]
            return lambda context: [build(context) for build in items]
        return Constant(value)

    def _string_builder(self, value: str, path: Sequence[str | int]) -> Build:
        if len(self.programs) > MAX_PROGRAMS:
            return Constant("")
        program = self.program(value, path, keeps_type=True)
        if program is None:
            return Constant("")
        if program.is_expression:
            return partial(computed_value, program, spelled(path))
        return RenderedText(program, spelled(path))

    def defaults(self, value: Any) -> dict[str, Any]:
        """Defaults by path; those of an object's fields are found by their own path too."""
        found: dict[str, Any] = {}
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            self.invalid("defaults must be an object", "defaults")
            return found
        if not self._is_json(value, "defaults"):
            return found
        for name, default in value.items():
            root, _, rest = name.partition(".")
            root = "receiver" if root == "user" else root
            if root not in self._variables or not rest:
                self.invalid(
                    f"'{name}' is no variable: defaults are named like receiver.name", "defaults", name
                )
            else:
                _flatten(f"{root}.{rest}", default, found)
        return found


def _flatten(path: str, value: Any, into: dict[str, Any]) -> None:
    into[path] = value
    if isinstance(value, Mapping):
        for name, item in value.items():
            _flatten(f"{path}.{name}", item, into)
