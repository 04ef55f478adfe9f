"""What is done for each recipient: programs run, their results checked and serialised. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from app.messages.templating.plain import PlainText
from app.messages.templating.program import Program
from app.messages.templating.sandbox import Exceeded, RenderContext, shown
from app.messages.templating.values import Unfit, plain, to_json

_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Build = Callable[[RenderContext], Any]


MAX_SENTENCE = 500  # it is stored with each recipient, and may quote names and values of any length


class RenderError(Exception):
    """This recipient's message cannot be made; the sentence says where and why."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[: MAX_SENTENCE - 1]}…")


@dataclass(frozen=True, slots=True)
class Constant:
    """Builds what is the same for everyone."""

    value: Any

    def __call__(self, _: RenderContext) -> Any:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class RenderedText:
    """Builds what the program writes. `where` is the part of the message, as people spell it."""

    program: Program
    where: str

    def __call__(self, context: RenderContext) -> str:
        """The text. Raises RenderError."""
        try:
            text = self.program.text(context)
        except Exception as error:
            raise _render_error(self.program, self.where, error) from None
        if flaw := unstorable(text):
            raise RenderError(f"{self.where}: the rendered text has {flaw}")
        return text


def plain_text(build: Build, defaults: Mapping[str, Any], longest: int) -> PlainText | None:
    """The same for many receivers at once, where that is possible."""
    match build:
        case Constant(value=str(text)):
            return PlainText.of((text,), defaults, longest)
        case RenderedText(program=Program(plain=tuple(parts))):
            return PlainText.of(parts, defaults, longest)
    return None


def computed_value(program: Program, where: str, context: RenderContext) -> Any:
    """The JSON value that a single expression computes. Raises RenderError."""
    try:
        value = program.value(context)
        context.note(value)
        return plain(context.weigh(shown(value)))
    except Exception as error:
        raise _render_error(program, where, error) from None


def json_text(build: Build, extra: Mapping[str, Any], limit: int, where: str, context: RenderContext) -> str:
    """JSON text of at most `limit` bytes, `extra` not counted. Raises RenderError."""
    value = build(context)
    try:
        text = to_json({**value, **extra} if extra else value)
    except (TypeError, RecursionError) as error:
        raise RenderError(f"{where}: this is no valid JSON ({error})") from None
    if len(text) > limit and (own := len(to_json(value))) > limit:
        raise RenderError(f"{where}: at most {limit:,} bytes of JSON, it has {own:,}")
    if has_nul(text):
        raise RenderError(f"{where}: the rendered JSON has a NUL character")
    return text.decode()


def has_nul(text: bytes) -> bool:
    """Whether a JSON text has a NUL character, which PostgreSQL cannot store."""
    return _ESCAPED_NUL.search(text) is not None


def unstorable(value: Any) -> str | None:
    """What keeps a text from being stored in a database or sent as JSON."""
    if not isinstance(value, str):
        return None
    if "\0" in value:
        return "a NUL character"
    if value.isascii():
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return "half a surrogate pair"
    return None


def _render_error(program: Program, where: str, error: Exception) -> RenderError:
    return RenderError(f"{where}, line {_line(program, error)}: {_reason(error)}")


def _line(program: Program, error: Exception) -> int:
    line, traceback = 1, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = program.line_of(traceback.tb_lineno)
        traceback = traceback.tb_next
    return line


def _reason(error: Exception) -> str:
    match error:
        case Exceeded() | Unfit():
            return str(error)
        case ZeroDivisionError():
            return "division by zero"
        case RecursionError() | MemoryError():
            return "the template is nested too deeply"
        case OverflowError():
            return "a number is too large"
        case TemplateError():
            return error.message or "it cannot be computed"
        case _:
            return "values that do not fit together here, or wrong arguments"


def spelled(path: Sequence[str | int]) -> str:
    """A path as people write it: attachments[2].title."""
    spelled = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return spelled.removeprefix(".")
