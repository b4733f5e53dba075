"""What every trained method may keep: a user's captions, near words, and Gaussian neighbours."""

from __future__ import annotations

import pytest
import torch

from conftest import TinyModel
from expunge.concept import Concept
from expunge.method import Trained
from expunge.methods import METHODS
from expunge.model import Model
from expunge.objective import around

CAT, INTO = [Concept(name="grumpy cat")], [Concept(name="grumpy cat", anchor="cat")]
TRAINED = [m for m in METHODS.values() if issubclass(m, Trained) and m.kind != "closed-loop"]  # it finds its own


@pytest.mark.parametrize("method", TRAINED, ids=lambda m: m.kind)
def test_every_trained_method_keeps(tiny: TinyModel, method: type[Trained]) -> None:
    """The term is there, costs what is announced, and starts at nothing: the student is still the model."""
    model = tiny()
    keep = {"keep": ("a boat",), "keep_neighbours": 2, "keep_gaussian": 3, "keep_grid": 2, "keep_batch": 2}
    chosen = method(steps=2, grid=2, lr=1e-3, batch=2, **keep)  # type: ignore[arg-type, call-arg]
    concepts = INTO if method.anchors else CAT
    chosen.fit(model, concepts)
    assert model.meter.passes == chosen.passes(concepts)
    parts = chosen.preserved(model, concepts, seed=0)
    assert len(parts["keep"][1].route.roles.conditions["sample"]) == 1 + 2 + 3  # type: ignore[attr-defined]
    rows = parts["keep"][1].rows(0)
    torch.testing.assert_close(model.predict(rows.x_t, rows.t, rows.prompts), rows.target)


def test_neighbours_are_near_words_and_not_the_concepts_own(world: Model) -> None:
    """Nearest first, by the cosine of token embeddings."""
    words = world.neighbours("grumpy cat", 5)
    assert len(set(words)) == 5
    assert not {"grumpy", "cat"} & set(words)
    tokenizer, table = world.vocabulary()
    own = table[tokenizer("grumpy cat", add_special_tokens=False).input_ids].mean(0)
    near = [torch.cosine_similarity(table[tokenizer.convert_tokens_to_ids(f"{w}</w>")], own, 0).item() for w in words]
    assert near == sorted(near, reverse=True)


def test_gaussian_neighbours_lie_as_far_as_told(world: Model) -> None:
    condition = world.encode(["a cat"])
    text, found = condition.tensors["text"], around(condition, 400, 0.5, seed=1).tensors["text"]
    assert found.shape == (400, *text.shape[1:])
    assert (found - text).std() / text.std() == pytest.approx(0.5, rel=0.01)
    assert torch.equal(found, around(condition, 400, 0.5, seed=1).tensors["text"])
