"""Documents that would cost much if they were not refused, or that are as much work as the limits allow."""

from collections.abc import Mapping


def _numbered(pattern: str, number: int) -> str:
    return " ".join(pattern.replace("%", str(each)) for each in range(number))


FRAGMENT = "fragment f% on Query { viewer { name } }"

REFUSED: Mapping[str, str] = {
    "tokens": "{ " + "a " * 49_000 + "}",
    "braces": "{" * 99_000,
    "brackets of a value": "{ a(b: " + "[" * 99_000,
    "a string without an end": '{ a(b: "' + "\\" * 99_000,
    "dots": "{ " + "." * 99_000 + " }",
    "digits": "{ a(b: " + "9" * 99_000 + ") }",
    "levels": "{ a" * 1_900 + " }" * 1_900,
    "aliases": "{ " + _numbered("a%: viewer { name }", 400) + " }",
    "the same field": "{ " + "viewer { name } " * 240 + "}",
    "fields that differ": "{ " + _numbered('segment(segmentId: "%") { name }', 240) + " }",
    "fragments": "{ " + _numbered("...f%", 190) + " } " + _numbered(FRAGMENT, 190),
    "fragments in fragments": "{ ...f0 } "
    + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(190))
    + " fragment f190 on Query { __typename }",
    "fragments in circles": "{ viewer { ...f0 } } "
    + " ".join(f"fragment f{n} on Viewer {{ {_numbered('...f%', 60)} }}" for n in range(60)),
    "unknown fragments": "{ " + _numbered("...f%", 1_900) + " }",
    "unused fragments": "{ viewer { name } } " + _numbered("fragment f% on Viewer { name }", 190),
    "inline fragments": "{ viewer { " + "... { name } " * 450 + "} }",
    "inline fragments, nested": "{ viewer { " + "... { name " * 160 + "}" * 160 + " } }",
    "directives": "{ viewer { name" + " @skip(if: false)" * 600 + " } }",
    "operations": _numbered("query q% { viewer { name } }", 400),
    "variables": "query (" + _numbered("$v%: Int", 800) + ") { viewer { name } }",
    "unknown fields": "{ " + _numbered("nothing%", 499) + " }",
    "unknown arguments": "{ viewer(" + _numbered("a%: 1", 1_200) + ") { name } }",
    "unknown values": "{ campaigns(filter: {and: [" + "{status: {eq: NOPE}} " * 400 + "]}) { totalCount } }",
    "a long name": "{ " + "a" * 99_000 + " }",
    "pages of pages": "{ users(first: 1000) { nodes { channels(first: 1000) { nodes { cid } } } } }",
    "counts": "{ " + _numbered("a%: users(first: 1) { totalCount }", 25) + " }",
    "previews": "{ " + _numbered('a%: campaign(campaignId: "c") { preview { text } }', 25) + " }",
    "introspection": "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }",
}
