"""`$autocomplete`: text at the beginning of any word, ignoring case, the same way in both databases.

Neither database folds case alike beyond ASCII, so each character of the search becomes the set of its
cases: a GLOB pattern for SQLite, a regular expression of `\\u` escapes for PostgreSQL.
"""

# A word begins at the start, or behind white space, punctuation or a symbol: these, and what lies between the
# two of a pair. "]" stands first and "-" last, as GLOB wants it.
SINGLE = (
    "] \t\n\r\v\f.,;:!?'\"()[{}<>/\\|@#&*+=_~`^%$"
    "\u00b4\u00b6\u00b7\u00b8\u00bb\u00bf\u00d7\u00f7\u060c\u061b\u061f\u0964"
)
PAIRS = (
    ("\u00a0", "\u00a9"), ("\u00ab", "\u00b1"),  # Latin
    ("\u2000", "\u206f"), ("\u2190", "\u245f"), ("\u2500", "\u2775"), ("\u2794", "\u2bff"),  # symbols
    ("\u3000", "\u3003"), ("\u3008", "\u3020"), ("\u30fb", "\u30fb"),  # Chinese and Japanese
    ("\ufe00", "\ufe0f"),  # what makes a symbol an emoji
    ("\uff01", "\uff0f"), ("\uff1a", "\uff20"), ("\uff3b", "\uff40"), ("\uff5b", "\uff65"),  # full width
    ("\U0001f000", "\U0001f0ff"), ("\U0001f10d", "\U0001faff"),  # emoji
)  # fmt: skip


def cases(character: str) -> list[str]:
    """The character in all its cases, where these are single characters too."""
    found = {character}
    while True:
        more = {form for one in found for form in (one.lower(), one.upper(), one.title()) if len(form) == 1}
        if more <= found:
            return sorted(found)
        found |= more


def glob_patterns(search: str) -> tuple[str, str]:
    """SQLite's GLOB patterns: the search at the very beginning, and behind a separator."""
    body = "".join(_glob(character) for character in search)
    ranges = "".join(f"{first}-{last}" for first, last in PAIRS)
    return f"{body}*", f"*[{SINGLE}{ranges}-]{body}*"


def _glob(character: str) -> str:
    forms = cases(character)
    return f"[{''.join(forms)}]" if len(forms) > 1 or character in "*?[" else character


def regular_expression(search: str) -> str:
    """PostgreSQL's regular expression for both."""
    body = "".join(f"[{_escaped(cases(character))}]" for character in search)
    ranges = "".join(f"{_escaped(first)}-{_escaped(last)}" for first, last in PAIRS)
    return f"(^|[{_escaped(SINGLE)}{ranges}{_escaped('-')}]){body}"


def _escaped(characters: str | list[str]) -> str:
    return "".join(f"\\U{ord(character):08x}" for character in characters)


def begins_a_word(search: str, value: str) -> bool:
    """The same question in Python."""
    wanted = [cases(character) for character in search]
    return any(
        (start == 0 or _separates(value[start - 1]))
        and all(found in forms for found, forms in zip(value[start:], wanted, strict=False))
        for start in range(len(value) - len(search) + 1)
    )


def _separates(character: str) -> bool:
    return character in SINGLE or character == "-" or any(first <= character <= last for first, last in PAIRS)
