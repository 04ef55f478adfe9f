"""`$autocomplete`: text at the beginning of any word, ignoring case, the same way in both databases.

Neither database folds case alike beyond ASCII, so each character of the search becomes the set of its
cases: a GLOB pattern for SQLite, a regular expression of `\\u` escapes for PostgreSQL.
"""

# A word begins at the start, or behind one of these. "]" stands first and "-" last, as GLOB wants it.
SEPARATORS = (
    "] \t\n\r\v\f.,;:!?'\"()[{}<>/\\|@#&*+=_~`^%$\u00a0\u00ab\u00b7\u00bb\u2009\u200b\u2010\u2011\u2012"
    "\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u202f\u3000\u3001\u3002\u30fb\uff0c-"
)


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
    return f"{body}*", f"*[{SEPARATORS}]{body}*"


def _glob(character: str) -> str:
    forms = cases(character)
    return f"[{''.join(forms)}]" if len(forms) > 1 or character in "*?[" else character


def regular_expression(search: str) -> str:
    """PostgreSQL's regular expression for both."""
    body = "".join(f"[{_escaped(cases(character))}]" for character in search)
    return f"(^|[{_escaped(SEPARATORS)}]){body}"


def _escaped(characters: str | list[str]) -> str:
    return "".join(f"\\U{ord(character):08x}" for character in characters)


def begins_a_word(search: str, value: str) -> bool:
    """The same question in Python."""
    wanted = [cases(character) for character in search]
    return any(
        (start == 0 or value[start - 1] in SEPARATORS)
        and all(found in forms for found, forms in zip(value[start:], wanted, strict=False))
        for start in range(len(value) - len(search) + 1)
    )
