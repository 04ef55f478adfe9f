"""SEMANTICS, "Message template": text of every plane comes through as it is."""

import json
import unicodedata
from typing import Any

import pytest

from app.messages.rendering import RenderError, Variables
from tests.semantics.test_templates import ANNA, mistakes, person, rendered

SCRIPTS = {
    "combining, decomposed": "e\u0301o\u0308 Z\u0351\u036b\u0343",
    "composed": "éö",
    "right to left": "שלום، مرحبا \u202eabc\u202c \u2067x\u2069",
    "emoji with joiners": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇵🇱 1️⃣",
    "astral letters": "𝒜𝔘𐍈𠜎",
    "private use": "\ue000\U000f0000\U0010fffd",
    "noncharacters": "\ufffe\uffff\U0001fffe\U0010ffff",
    "line separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "zero width": "\u200b\u200d\ufeff\u00ad",
    "Thai and Devanagari": "สวัสดี नमस्ते क्ष",
    "Jinja's own signs": "{{ }} {% %} {# #} {{ receiver",
    "controls": "\x01\x1f\x7f\t",
} | {f"plane {plane}": "".join(chr(plane * 0x10000 + low) for low in (0x21, 0x1000, 0xD7FF, 0xE000, 0xFFFD))
     for plane in range(17)}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_unicode_of_every_plane_comes_through_as_it_is(script: str) -> None:
    name = SCRIPTS[script]
    to = Variables(ANNA, person("rex", name, {"motto": {name: [name]}}))
    outside = name if "{{" not in name else ""
    message = rendered(
        f"{outside}{{{{ receiver.name }}}}{outside}",
        to,
        custom={outside: f"{outside}{{{{ receiver.name }}}}", "m": "{{ receiver.motto }}"},
        attachments=[{"t": "{{ receiver.name ~ '' }}"}],
    )
    assert message.text == f"{outside}{name}{outside}"
    assert json.loads(message.custom) == {outside: f"{outside}{name}", "m": {name: [name]}}
    assert json.loads(message.attachments) == [{"t": name}]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_no_normal_form_is_forced_on_anything(form: Any) -> None:
    name = unicodedata.normalize(form, "Ångström é")
    to = Variables(ANNA, person("rex", name, {name: "x"}))
    assert (
        rendered(f"{name} {{{{ receiver.name }}}} {{{{ receiver['{name}'] }}}}", to).text
        == f"{name} {name} x"
    )


def test_text_that_no_database_holds_fails_with_a_sentence() -> None:
    with pytest.raises(RenderError, match="half a surrogate pair"):
        rendered("{{ '\\ud83d' ~ '\\ude00' }}")
    with pytest.raises(RenderError, match="NUL"):
        rendered("{{ '\\x00' }}")
    assert [error.code for error in mistakes(text="\ud800{{ 1 }}")] == ["INVALID_INPUT"]
    assert [error.code for error in mistakes(text="\0{{ 1 }}")] == ["INVALID_INPUT"]
