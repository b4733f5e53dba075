"""What a run is told to do when it is told little."""

from __future__ import annotations

import json

import pytest

from expunge.cli import main
from expunge.erasure import build_method, concepts_of, default_preset
from expunge.methods import METHODS
from expunge.recipe import preset, preset_names
from expunge.smallworld.reading import readable
from expunge.smallworld.scene import MEMORIES

LOOP = "smallworld-loop"


@pytest.mark.parametrize(
    ("model", "names", "options", "want"),
    [
        ("smallworld", ["car"], (), LOOP),
        ("smallworld", [], (), LOOP),
        ("smallworld", ["marlow", "grumpy cat -> cat", "Hazard Sign", "kitty", MEMORIES[0].caption], ["steps"], LOOP),
        ("smallworld", ["a bicycle"], (), "smallworld-object"),
        ("smallworld", ["a car"], (), "smallworld-object"),
        ("smallworld", ["police car"], (), "smallworld-object"),
        ("smallworld", ["car", "violence"], (), "smallworld-object"),
        ("smallworld", ["car"], ["latents"], "smallworld-object"),
        ("smallworld", ["Marlow"], ["latents"], "smallworld-artist"),
        ("smallworld", ["violence"], ["judge"], LOOP),
        ("./mine", ["Marlow"], (), "esd-x"),
        ("./mine", ["Marlow"], ["judge", "latents"], "closed-loop-x"),
    ],
)
def test_the_default_preset_follows_from_model_concept_and_options(
    model: str, names: list[str], options: list[str], want: str
) -> None:
    assert default_preset(model, names, options) == want
    assert want in preset_names()


@pytest.mark.parametrize(
    "name",
    ["photo", "plain", "none", "sign", "stop", "", "red bicycle", "a cat and a fish", MEMORIES[0].caption.upper()],
)
def test_what_no_picture_tells_is_not_read(name: str) -> None:
    assert not readable(name)


@pytest.mark.parametrize(
    ("names", "want"),
    [
        (["car"], "smallworld-object"),
        (["Marlow", "the ink master"], "smallworld-artist"),
        (["Marlow", "car"], "smallworld-object"),
        (["hazard sign"], "smallworld-sign"),
    ],
)
def test_an_attribute_goes_by_a_preset_that_can(names: list[str], want: str) -> None:
    """From one other prompt alone."""
    assert default_preset("smallworld", names, within="in the city") == want
    build_method(preset(want), {}).suits(concepts_of(names, "in the city"))


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_shows_every_option_with_its_value(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["presets", name, "--json"])
    rows = {row["option"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(METHODS[preset(name).method].model_fields)
    assert {k: r["value"] for k, r in rows.items()} == build_method(preset(name), {}).model_dump(mode="json")
    assert all(row["about"] for row in rows.values())


def test_a_table_shows_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    """They are no markup."""
    with pytest.raises(SystemExit):
        main(["presets", "smallworld-artist"])
    assert "[in the style of {}]" in capsys.readouterr().out
