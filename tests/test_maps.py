"""Attention maps are shares: of one model at one moment they sum to 1, and they change with what changes the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import TinyModel
from expunge import Edit, ExpungeError, Settings
from expunge.attention import attends, layers, tokens, watched
from expunge.maps import compared, draw, looked, together
from expunge.model import Model
from test_families import opened
from tiny import FAMILIES

SETTINGS = Settings(steps=2, cfg=3.0)
PROMPT = "a red car in a room"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_shows_where_it_looks(family: str) -> None:
    """Shares of all tokens and, in joint attention, of all places sum to 1; a word has some, and a square."""
    model = opened(family)
    text = model.positions
    with watched(model, layers(model, attends), text, torch.clone) as seen, torch.no_grad():
        model.predict(model.noise(1, torch.Generator()), torch.tensor(500), model.encode(["a red car"]))
    assert seen and all(torch.allclose(m.sum(-1), torch.ones(()), atol=1e-2) for m in seen)
    assert all(m.shape[-1] == text + (m.shape[-2] if model.layout.joint else 0) for m in seen)
    maps = looked(model, "a red car", ["car"], SETTINGS, 0)
    side = maps.cross["car"].shape[0]
    assert maps.cross["car"].shape == (side, side) and 0 < float(maps.cross["car"].mean()) < 1
    assert maps.through["car"].shape == maps.cross["car"].shape


def test_words_share_what_there_is(world: Model) -> None:
    """A prompt's words have what its parts have; no two words have a token in common."""
    marks = [tokens(world, PROMPT, *span) for span in ((0, 1), (2, 5), (6, 9), (10, 12), (13, 14), (15, 19))]
    assert torch.equal(torch.stack(marks).sum(0), tokens(world, PROMPT).long())
    maps = looked(world, PROMPT, ["red", "car", "red car"], SETTINGS, 0)
    torch.testing.assert_close(maps.cross["red"] + maps.cross["car"], maps.cross["red car"])


def test_an_edit_moves_the_maps_and_its_end_brings_them_back(world: Model, tmp_path: Path) -> None:
    name = next(n for n in world.parameters() if "attn2.to_k" in n)
    edit = Edit({name: torch.ones_like(world.parameters()[name])}, {"base": world.identity(())}, "moved")
    base, moved = compared(world, PROMPT, ["car"], SETTINGS, 0, [(edit, 1.0)])
    assert moved.model == "moved" and not torch.equal(base.cross["car"], moved.cross["car"])
    again = looked(world, PROMPT, ["car"], SETTINGS, 0)
    assert torch.equal(base.cross["car"], again.cross["car"]) and torch.equal(base.through["car"], again.through["car"])
    draw([base, moved], tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 5000
    assert not any(m._forward_hooks for m in world.denoiser.modules())


def test_maps_of_several_sizes_meet_at_the_finest() -> None:
    flat = together({4: torch.full((4,), 0.2), 16: torch.full((16,), 0.4)})
    torch.testing.assert_close(flat, torch.full((4, 4), 0.3))


def test_a_word_that_is_not_said_is_told(tiny: TinyModel) -> None:
    with pytest.raises(ExpungeError, match="does not say 'boat'"):
        looked(tiny(), PROMPT, ["boat"], SETTINGS, 0)
