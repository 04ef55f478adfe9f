"""A template's source: parsed, and able to show where a mistake stands. Pure."""

from collections.abc import Iterator

from jinja2 import TemplateSyntaxError, nodes
from jinja2.lexer import Token, TokenStream, ignored_tokens
from jinja2.parser import Parser

from app.messages.templating.counted import ENVIRONMENT

_SKIPPED_TOKENS = ignored_tokens | {"raw_begin", "raw_end"}


class TemplateMistake(Exception):
    """A template that cannot be used: a sentence, and where, counted from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class Source:
    """A template's text with the place of every token, so that a mistake can be shown."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n").replace("\r", "\n")
        self._tokens: list[Token] = []
        self._starts: list[int] = []
        self._end = 0

    def parse(self) -> nodes.Template:
        """The syntax tree. Raises TemplateMistake."""
        try:
            self._tokenize()
        except (TemplateSyntaxError, ValueError) as error:
            raise self.mistake(_sentence(error), self._end) from None
        parser = Parser(ENVIRONMENT, self.text)
        parser.stream = TokenStream(iter(self._tokens), None, None)
        try:
            return parser.parse()
        except TemplateSyntaxError as error:
            raise self.mistake(_sentence(error), self._place_of(parser.stream.current)) from None
        except RecursionError:
            raise self.mistake("the template is nested too deeply", 0) from None

    def mistake_at(self, node: nodes.Node, message: str, word: str | None = None) -> TemplateMistake:
        """A mistake in the line of a node, at `word` if that stands there."""
        in_line = [
            (token, start)
            for token, start in zip(self._tokens, self._starts, strict=True)
            if node.lineno in (None, token.lineno)
        ]
        for token, start in in_line:
            if str(token.value) == word:
                return self.mistake(message, start)
        for token, start in in_line:
            if token.type in ("variable_begin", "block_begin"):
                return self.mistake(message, start)
        return TemplateMistake(message, node.lineno or 1, 1)

    def mistake(self, message: str, place: int) -> TemplateMistake:
        """A mistake at an offset into the text."""
        line = self.text.count("\n", 0, place) + 1
        return TemplateMistake(message, line, place - (self.text.rfind("\n", 0, place) + 1) + 1)

    def _tokenize(self) -> None:
        lexer = ENVIRONMENT.lexer

        def located() -> Iterator[tuple[int, str, str]]:
            for line, kind, value in lexer.tokeniter(self.text, None):
                start = max(self.text.find(value, self._end), self._end)
                self._end = start + len(value)
                if kind not in _SKIPPED_TOKENS:
                    self._starts.append(start)
                yield line, kind, value

        self._tokens.extend(lexer.wrap(located()))

    def _place_of(self, current: Token) -> int:
        for token, start in zip(self._tokens, self._starts, strict=True):
            if token is current:
                return start
        return len(self.text)


def _sentence(error: Exception) -> str:
    message = error.message if isinstance(error, TemplateSyntaxError) else "a number has too many digits"
    return (message or "the template is not valid").rstrip(".")
