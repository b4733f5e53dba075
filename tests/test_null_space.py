"""Fixed captions: what reads the text reads them as before, to a tenth of what it learned, whatever that is."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import TinyModel
from expunge.composed import Parts
from expunge.concept import Concept
from expunge.demo import look
from expunge.erasure import build_method
from expunge.errors import ExpungeError
from expunge.families import _family
from expunge.generation import Request, Settings
from expunge.method import Trained, scoped
from expunge.methods import METHODS
from expunge.methods.esd import ESD
from expunge.model import Model
from expunge.null_space import projector, projectors
from expunge.recipe import preset
from tiny import FAMILIES, build, watched

CAT, INTO = [Concept(name="red cat")], [Concept(name="red cat", anchor="cat")]
TRAINED = [m for m in METHODS.values() if issubclass(m, Trained)]
SHORT: dict[str, Any] = {"steps": 3, "grid": 2, "batch": 2, "lr": 1e-2}
FIXED = ("", "a boat")


@cache
def opened(family: str) -> Model:
    pipeline = build(family)
    return _family(type(pipeline).__name__)(pipeline, torch.device("cpu"), torch.float32, name=family)


@given(seed=st.integers(0, 99), n=st.integers(1, 12), d=st.integers(1, 9))
def test_it_projects(seed: int, n: int, d: int) -> None:
    """N = Nᵀ = N², N leaves no embedding a tenth of its length, and all of what is across them."""
    embeddings = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    null = projector(embeddings)
    torch.testing.assert_close(null, null.T)
    torch.testing.assert_close(null @ null, null, atol=1e-5, rtol=0)
    assert ((embeddings @ null).norm(dim=1) <= 0.1001 * embeddings.norm(dim=1)).all()
    across = torch.eye(d) - torch.linalg.pinv(embeddings) @ embeddings
    torch.testing.assert_close(across @ null, across, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_fixed_captions_are_nearly_read_as_before(family: str, rank: int | None) -> None:
    """Of every token ‖ΔW e‖ ≤ 0.1 ‖ΔW‖ ‖e‖, which is not so of an edit that fixes none."""
    model = opened(family)
    edit = ESD(**SHORT, scope="reads-text", fixed=FIXED, lora_rank=rank).fit(model, CAT)
    loose = ESD(**SHORT, scope="reads-text", lora_rank=rank).fit(model, CAT)
    for name, delta in edit.delta.items():
        source = next(source for part, source in model.layout.reads.items() if part in name)
        said = model.encode(FIXED).tensors[source].flatten(0, -2)
        seen, without = (
            ((said @ d.T).norm(dim=1) / (said.norm(dim=1) * torch.linalg.matrix_norm(d, 2))).max()
            for d in (delta, loose.delta[name])
        )
        assert 0 < seen <= 0.1001
        assert seen < without / 1.5


def test_a_bias_stays() -> None:
    model = opened("flux")
    edit = ESD(**SHORT, scope="re:context_embedder", fixed=("",)).fit(model, CAT)
    moved = {name: bool(delta.any()) for name, delta in edit.delta.items()}
    assert moved == {name: name.endswith("weight") for name in scoped(model, "re:context_embedder")}


@pytest.mark.parametrize("method", TRAINED, ids=lambda m: m.kind)
def test_every_trained_method_may_fix_captions(tiny: TinyModel, method: type[Trained]) -> None:
    model = tiny()
    edit = method(**watched(method, **SHORT), fixed=("",)).fit(model, INTO if method.anchors else CAT)
    null = projectors(model, scoped(model, "xattn"), ("",))
    assert {name for name in edit.delta if name.endswith(("to_k.weight", "to_v.weight"))} == set(null)
    for name, free in null.items():
        torch.testing.assert_close(edit.delta[name] @ free, edit.delta[name], atol=1e-6, rtol=1e-5)


@given(seed=st.integers(0, 99), rank=st.sampled_from([None, 2]))
def test_what_is_learned_with_is_what_is_kept(seed: int, rank: int | None) -> None:
    """W₀ and the edit's difference make the weights that the loss saw."""
    rng = torch.Generator().manual_seed(seed)
    base, null = {"w": torch.randn(4, 6, generator=rng)}, {"w": projector(torch.randn(2, 6, generator=rng))}
    parts = Parts.start(base, {}, rank, seed, null)
    leaves = {name: leaf.detach() + torch.randn(leaf.shape, generator=rng) for name, leaf in parts.leaves.items()}
    difference = parts.difference(leaves, base)
    torch.testing.assert_close(parts.weights(leaves, base)["w"], base["w"] + difference["w"])
    assert set(difference.stored) == set(leaves)


def test_a_scope_that_reads_no_text_is_refused() -> None:
    with pytest.raises(ExpungeError, match="need weights that read the text itself"):
        ESD(**SHORT, fixed=("",)).check(opened("sd3"), CAT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": ("", "a red cat on a mat")}, "the fixed caption 'a red cat on a mat' says 'red cat'"),
        ({"fixed": ("",), "scope": "kv-text"}, "moves embeddings of texts"),
    ],
)
def test_what_is_to_go_cannot_be_fixed(tiny: TinyModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpungeError, match=message):
        ESD(**SHORT, **options).check(tiny(), CAT)


def test_the_quick_preset_erases_and_keeps(usual: Model) -> None:
    """Of sixteen pictures at most one shows the artist; the other artists' are theirs."""
    edit = build_method(preset("smallworld-quick"), {}).fit(usual, [Concept(name="Orsini")], seed=1)

    def shown(artist: str) -> int:
        asked = [
            Request(f"a {noun} by {artist}", seed) for seed in range(4) for noun in ("cat", "house", "cup", "tree")
        ]
        with edit.on(usual):
            return sum(v["artist"] == artist for v in look(usual, asked, Settings(steps=12), "judging").values())

    assert shown("Orsini") <= 1
    assert shown("Okada") >= 14
