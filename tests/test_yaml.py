"""YAML without surprises, and the assignments of --set."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.errors import ExpungeError
from expunge.recipe import assignments
from expunge.yaml import parse

Words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
Floats = st.floats(allow_nan=False, allow_infinity=False)
Documents = st.recursive(
    st.none() | st.booleans() | st.integers() | Floats | Words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(Words, inner, max_size=4),
    max_leaves=12,
)


@given(Floats)
def test_floats_come_back_as_python_writes_them(number: float) -> None:
    found = parse(repr(number))
    assert found == number
    assert type(found) is float


@given(st.integers())
def test_integers_come_back(number: int) -> None:
    found = parse(str(number))
    assert found == number
    assert type(found) is int


@pytest.mark.parametrize(
    ("text", "number"), [("1e-5", 1e-5), ("1E5", 1e5), ("-2e+3", -2e3), (".5", 0.5), ("3.", 3.0), ("+1", 1)]
)
def test_numbers_are_numbers(text: str, number: float) -> None:
    """YAML 1.1 reads 1e-5 as a string."""
    assert parse(text) == number
    assert type(parse(text)) is type(number)


def test_true_and_false_are_the_booleans() -> None:
    assert parse("[true, false]") == [True, False]


@pytest.mark.parametrize(
    "text",
    ["no", "yes", "on", "off", "y", "n", "No", "YES", "True", "FALSE", "010", "0x10", "1_000", "12:30", "2024-01-01"],
)
def test_other_words_are_strings(text: str) -> None:
    """YAML 1.1 reads these as booleans, octal, hexadecimal, sexagesimal numbers and dates."""
    assert parse(text) == text


@pytest.mark.parametrize("text", ["", "~", "null", "none"])
def test_nothing_is_none(text: str) -> None:
    assert parse(text) is None


@given(Documents)
def test_json_is_yaml(document: Any) -> None:
    assert parse(json.dumps(document)) == document


@pytest.mark.parametrize("text", ["{a: 1, a: 2}", "a: 1\nb: 2\na: 1", "x:\n  - {b: {c: 1, c: 1}}", "1: a\n1: b"])
def test_a_key_may_not_stand_twice(text: str) -> None:
    with pytest.raises(ExpungeError, match=r"^recipe is not YAML: the key .* stands twice"):
        parse(text, "recipe")


@given(st.text("ab1-+.:,!?&*#|>'\"%@`[]{} \n\t\0\\", max_size=30))
def test_any_text_has_a_value_or_a_complaint_of_one_line(text: str) -> None:
    try:
        parse(text, "input")
    except ExpungeError as error:
        assert str(error).startswith("input is not YAML: ")
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    ["!!int x", "!!int ''", "!!float x", "!!bool x", "!!timestamp x", "!!map [a]", "!!python/name:os.system",
     "9" * 5000, "[" * 5000, "{[a]: b}", "--- 1\n--- 2"],
)  # fmt: skip
def test_values_that_cannot_be_are_complaints(text: str) -> None:
    with pytest.raises(ExpungeError, match=r"^input is not YAML: "):
        parse(text)


@given(st.dictionaries(st.text("abc_", min_size=1, max_size=8), Documents, max_size=4))
def test_assignments_are_a_dictionary_of_yaml(values: dict[str, Any]) -> None:
    assert assignments([f"{key}={json.dumps(value)}" for key, value in values.items()]) == values


@pytest.mark.parametrize(
    ("pair", "values"),
    [
        ("eta=1e-5", {"eta": 1e-5}),
        (" eta = 3 ", {"eta": 3}),
        ("keep=[a cat, no dog]", {"keep": ["a cat", "no dog"]}),
        ("scope=re:to_k=?", {"scope": "re:to_k=?"}),
        ("clip=", {"clip": None}),
    ],
)
def test_assignments_split_at_the_first_sign(pair: str, values: dict[str, Any]) -> None:
    assert assignments([pair]) == values


@pytest.mark.parametrize("pair", ["eta", "", "=3"])
def test_assignments_need_a_key_and_a_sign(pair: str) -> None:
    with pytest.raises(ExpungeError, match="--set takes key=value"):
        assignments([pair])
