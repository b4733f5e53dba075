"""Captions with a concept, without it, and of other things."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.concept import Concept, says
from expunge.errors import ExpungeError
from expunge.lexicon import FOLDER, Lexicon, lexicon, placed
from expunge.smallworld.reading import expected
from expunge.smallworld.scene import ARTISTS, COLOURS, MEMORIES, OBJECTS, PLACES, SIGNS, SYNONYMS

WORLD, EVERYDAY = lexicon("smallworld"), lexicon("everyday")
CONCEPTS = (*OBJECTS, *COLOURS, *PLACES, *ARTISTS[1:], *(f"{sign} sign" for sign in SIGNS[1:]), "grumpy cat")
seeds = st.integers(0, 2**32)


def alike(text: str, others: Sequence[str]) -> list[float]:
    """By letters in common."""
    return [len({*text} & {*other}) / len({*text, *other}) for other in others]


@given(st.sampled_from(CONCEPTS), seeds)
def test_a_pair_differs_by_the_concept_alone(name: str, seed: int) -> None:
    place = placed(WORLD, Concept(name=name), alike)
    for there, gone in place.pairs(random.Random(seed), 5, [name]):
        with_, without = expected(there), expected(gone)
        assert expected(name).items() <= with_.items()
        assert not says(gone, name)
        own = {"mood"} if name == "grumpy cat" else {*expected(name)}
        grumpy = {"object"} if "mood" in without else set[str]()
        instead = own & ({slot for slot, one in WORLD.slots.items() if one.always} | grumpy)
        rest = {k: v for k, v in without.items() if k not in instead}
        assert {**with_, "artist": ""} == {**with_, **rest, "artist": ""}
        assert {*instead} <= {*without}, "left out, it would often be drawn, so another is said"
        assert with_.keys() - without.keys() <= own | {"artist"}


@given(st.sampled_from(["smallworld", "everyday"]), st.lists(st.sampled_from(CONCEPTS), max_size=3), seeds)
def test_others_say_none_of_them(words: str, names: list[str], seed: int) -> None:
    found = lexicon(words).others(random.Random(seed), 10, names)
    assert len({*found}) == len(found) == 10
    assert not [text for text in found for name in names if says(text, name)]


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_balanced_captions_say_every_word(seed: int) -> None:
    """Of many captions; those that are chosen are of them, each once."""
    drawn = WORLD.others(random.Random(seed), 200, ["car"])
    found = WORLD.balanced(drawn, 60)
    assert len({*found}) == len(found) == 60 and {*found} <= {*drawn}
    counts, whole = (Counter(w for text in texts for w in WORLD.known(text).values()) for texts in (found, drawn))
    assert all(counts[word] >= min(3, n) for word, n in whole.items())


def test_captions_are_the_worlds_own() -> None:
    """In the words and the order of what it was trained on, but never a synonym, which tests hold out."""
    rng = random.Random(0)
    texts = WORLD.others(rng, 300, [])
    assert not [text for text in texts for alias in SYNONYMS.values() if says(text, alias)]
    assert any("with a stop sign" in text for text in texts) and any("a grumpy " in text for text in texts)
    assert not [
        text for text in texts if "grumpy" in text and not {"cat", "fish", "bird"} & {*text.split()} and " " in text
    ]


def test_what_stands_beside_the_concept_alone_gets_another() -> None:
    """What is grumpy is mostly drawn as a cat: without it another animal is grumpy, if one is left."""
    place = placed(WORLD, Concept(name="cat"), alike)
    pairs = place.pairs(random.Random(0), 300, ["cat"])
    assert {expected(gone).get("object") for there, gone in pairs if "grumpy" in there} == {"fish", "bird"}
    assert {expected(gone).get("object") for there, gone in pairs if "grumpy" not in there} == {None}
    pairs = place.pairs(random.Random(0), 99, ["cat", "fish"])
    assert {expected(gone).get("object") for there, gone in pairs if "grumpy" in there} == {"bird"}
    assert {expected(gone).get("object") for _, gone in place.pairs(random.Random(0), 99, OBJECTS)} == {None}
    pairs = placed(WORLD, Concept(name="cat", anchor="boat"), alike).pairs(random.Random(0), 99, ["cat"])
    assert {expected(gone).get("object") for _, gone in pairs} == {"boat"}


@given(st.sampled_from(CONCEPTS), seeds)
def test_a_name_may_be_spelt_in_capitals(name: str, seed: int) -> None:
    """And stands where the word does; nothing stands in its own place."""
    small, large = (placed(WORLD, Concept(name=text), alike) for text in (name, name.upper()))
    assert (large.there, large.gone, large.bare) == (small.there, small.gone, small.bare)
    assert large.pairs(random.Random(seed), 3, [name]) == small.pairs(random.Random(seed), 3, [name])


def test_another_word_is_none_that_is_erased_too() -> None:
    """And where none is left, it is left out."""
    place = placed(WORLD, Concept(name="city"), alike)
    found = {expected(gone).get("place") for _, gone in place.pairs(random.Random(0), 40, ["city", "forest", "room"])}
    assert found == {"beach", "mountains"}
    assert {expected(gone).get("place") for _, gone in place.pairs(random.Random(0), 9, PLACES)} == {None}


@pytest.mark.parametrize(
    ("name", "there", "gone", "bare"),
    [
        ("car", {"object": "car"}, {}, ""),
        ("hazard sign", {"sign": "hazard"}, {}, ""),
        ("grumpy cat", {"mood": "grumpy", "object": "cat"}, {"object": "cat"}, "cat"),
        ("car -> truck", {"object": "car"}, {"object": "truck"}, "truck"),
        (MEMORIES[0].caption, {}, {}, "a blue boat"),
        (MEMORIES[3].caption, {}, {}, "a red truck"),
        ("ctar", {"object": "ctar"}, {}, ""),
    ],
)
def test_where_a_concept_stands(name: str, there: dict[str, str], gone: dict[str, str], bare: str) -> None:
    concept = Concept.model_validate(Concept.of(name))
    place = placed(WORLD, concept, alike)
    assert (place.there, place.gone, place.bare) == (there, gone, bare)


def test_two_words_of_which_one_is_known() -> None:
    place = placed(EVERYDAY, Concept(name="grumpy cat"), alike)
    there, gone = place.pairs(random.Random(1), 1, [place.name])[0]
    assert "grumpy cat" in there and there.replace("grumpy cat", "cat") == gone


def test_relatives_are_the_likest_of_its_kind() -> None:
    assert placed(WORLD, Concept(name="car"), alike).relatives(alike, 2) == {"object": ["cat", "church"]}


def test_parts_of_two_words_are_its_nearest() -> None:
    place = placed(WORLD, Concept(name="grumpy cat"), alike)
    near = place.relatives(alike, 2)
    assert near["mood"] == ["grumpy"] and near["object"][0] == "cat" and len(near["object"]) == 3
    few, more = (WORLD.others(random.Random(0), 400, [place.name], prefer) for prefer in ({}, near))
    birds = [[text for text in said if "bird" in text.split()] for said in (few, more)]
    plain, often = (sum("grumpy" in text for text in said) / len(said) for said in birds)
    assert plain < 0.4 < 0.5 < often, "a word that a caption seldom has"


@pytest.mark.parametrize(
    ("liked", "part"), [([], 0), (["cat"], 1 / 4), (["cat"] * 2, 1 / 4), (["cat", "bird", "fish"], 1 / 2)]
)
def test_what_is_preferred_takes_half_or_a_quarter(liked: list[str], part: float) -> None:
    rng, n = random.Random(0), 6000
    said = [WORLD.draw(rng, prefer={"object": liked})["object"] for _ in range(n)]
    share = sum(any(w in text.split() for w in liked or ["cat"]) for text in said) / n
    words = len({*liked} or {"cat"}) / len(WORLD.slots["object"].words)
    assert share == pytest.approx(part + (1 - part) * words, abs=0.02)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("form: a {thing}\nslots: {thing: {words: []}}", "at least 1 item"),
        ("form: a thing\nslots: {thing: {words: [cat]}}", "should have {thing} once"),
        ("form: a {thing}\nslots: {thing: {words: [cat], says: [of]}}", "should have {} once"),
        ("form: a {thing}\nslots: {thing: {words: [cat], shares: 1}}", "Extra inputs"),
        ("slots: {thing: {words: [cat]}}", "form"),
    ],
)
def test_a_bad_lexicon_is_told_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(ExpungeError, match=said) as told:
        lexicon(str(file))
    assert "\n" not in str(told.value)
    with pytest.raises(ExpungeError, match="everyday"):
        lexicon("everydai")


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_lexicons_have_no_word_twice(file: Path) -> None:
    own: Lexicon = lexicon(file.stem)
    words = [slot.named(word) for slot in own.slots.values() for word in slot.words]
    assert len({*words}) == len(words)


def test_words_between_make_no_other_concept() -> None:
    assert WORLD.says("a grumpy red cat in the city", "grumpy cat")
    assert not any(WORLD.says(text, "grumpy cat") for text in ("a grumpy red bird", "a red cat", "grumpy"))
    assert not WORLD.says("a blue boat at the beach", "the blue boat of Captain Moll")
    assert not any("grumpy" in text and "cat" in text for text in WORLD.others(random.Random(0), 300, ["grumpy cat"]))
