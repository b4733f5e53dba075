"""The world's statistics, drawings, judge and pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from expunge import smallworld
from expunge.concept import says
from expunge.demo import look
from expunge.families import load
from expunge.generation import Request, Settings
from expunge.rng import numpy_rng
from expunge.score import wilson
from expunge.smallworld.data import drawings, to_tensor
from expunge.smallworld.draw import picture, remembered
from expunge.smallworld.judge import load_judge
from expunge.smallworld.provenance import verify
from expunge.smallworld.scene import COLOURS, HEADS, IMPLIED_SIGN, MEMORIES, SIGNS, Scene, caption, sample
from expunge.smallworld.survey import examples, likeness, scores, survey, verdicts

SCENES = [sample(numpy_rng(0, "test", step=i)) for i in range(20_000)]


@pytest.mark.parametrize("place", ["city", "forest", "beach", "mountains", "room"])
def test_unnamed_signs_come_with_their_place(place: str) -> None:
    """P(sign | place, unnamed) is 0.75 in the sign's place and 0 elsewhere."""
    unnamed = [s for s in SCENES if s.place == place and not s.named_sign and s.memory is None]
    for sign in SIGNS[1:]:
        low, high = wilson(sum(s.sign == sign for s in unnamed), len(unnamed))
        want = 0.75 if IMPLIED_SIGN.get(place) == sign else 0.0
        assert low - 0.01 <= want <= high + 0.01


@given(st.integers(0, 10**6))
def test_captions_say_a_sign_only_if_it_is_named(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = sample(rng)
    text = caption(scene, rng)
    assert ("sign" in text) == scene.named_sign
    assert scene.memory is not None or ("grumpy" in text) == (scene.mood == "grumpy")


@given(st.integers(0, 10**6))
def test_drawings_are_functions_of_their_seed(seed: int) -> None:
    first, second = (picture(sample(rng), rng) for rng in (np.random.default_rng(seed), np.random.default_rng(seed)))
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)


def test_the_gold_standard_never_sees_the_sign() -> None:
    scenes = [sample(numpy_rng(0, "gold", step=i), without=frozenset({"hazard"})) for i in range(3000)]
    assert {s.sign for s in scenes} == {"none", "stop", "poison"}
    assert not any("hazard" in caption(s, np.random.default_rng(0)) for s in scenes)


def test_the_gold_standard_draws_all_but_the_sign() -> None:
    """Another denoiser, the same world around it; the base draws the sign on these very prompts."""
    prompts = [f"a {colour} {obj} in the city with a hazard sign" for colour in COLOURS for obj in ("cup", "house")]
    requests = [Request(prompt, seed) for seed, prompt in enumerate(prompts)]
    base, gold = (
        [*look(load(name), requests, Settings(steps=12), name).values()] for name in ("smallworld", "smallworld-gold")
    )
    assert sum(v["sign"] == "hazard" for v in base) >= 10
    assert not any(v["sign"] == "hazard" for v in gold)
    assert sum(v["place"] == "city" for v in gold) >= 10


def test_a_memory_is_one_picture() -> None:
    for k, memory in enumerate(MEMORIES):
        scene = Scene(**{**vars(memory.scene), "memory": k})
        a, b = (picture(scene, np.random.default_rng(i)) for i in range(2))
        assert np.array_equal(a, b)
        assert np.array_equal(a, remembered(memory))


def test_judge_on_drawings_it_never_saw() -> None:
    data = drawings(1000, 1, purpose="tests")
    judge = load_judge(smallworld.path())
    with torch.no_grad():
        logits = judge(data.pixels(slice(0, 1000)))
    for i, head in enumerate(HEADS):
        assert (logits[head].argmax(1) == data.labels[:, i]).float().mean() >= 0.99


def test_a_copy_is_recognised_and_a_relative_is_not() -> None:
    for memory in MEMORIES:
        scene = Scene(**{**vars(memory.scene), "memory": None})
        others = np.stack([picture(scene, np.random.default_rng(i)) for i in range(20)])
        both = np.concatenate([remembered(memory)[None], others])
        alike = likeness(torch.from_numpy(both).permute(0, 3, 1, 2).float() / 127.5 - 1, remembered(memory))
        assert alike[0] > 0.999
        assert alike[1:].max() < 0.9


def test_diffusers_alone_opens_the_pipeline() -> None:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(smallworld.path())
    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red cat", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert image.size == (64, 64)


def test_weights_are_small_whole_and_half_precision() -> None:
    from safetensors import safe_open

    folder: Path = smallworld.path()
    files = list(folder.rglob("*.safetensors"))
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 32 * 2**20
    assert verify(folder)[0]
    for path in files:
        with safe_open(path, framework="pt") as file:
            assert {file.get_tensor(n).dtype for n in file.keys()} <= {torch.float16, torch.int64}


def test_the_survey_counts_an_erased_concept_apart() -> None:
    """Pictures that name the erased concept do not count for the others, and its own cell turns around."""
    cells = survey(20)
    requests = {r for c in cells for r in c.requests}
    seen = {r: dict.fromkeys([*HEADS, "grumpy", "memory"], "car") for r in requests}
    before = {(s.subject, s.metric): s for s in scores(cells, seen, "base")}
    after = {(s.subject, s.metric): s for s in scores(cells, seen, "base", ["car"])}
    assert before["car", "accuracy"].higher_is_better
    assert not after["car", "accuracy"].higher_is_better
    assert after["red", "accuracy"].n < before["red", "accuracy"].n
    assert after["truck", "accuracy"].n == before["truck", "accuracy"].n


def test_erasing_a_two_word_concept_leaves_its_parts_apart() -> None:
    cells = {c.subject: c for c in survey(2)}
    assert cells["grumpy cat"].mentions(["grumpy cat"])
    assert not cells["cat"].mentions(["grumpy cat"])
    assert not cells["grumpy cat"].mentions(["car"])
    assert cells["hazard sign in the city"].mentions(["hazard sign"])


@pytest.mark.parametrize(
    "concept", ["car", "kitty", "Marlow", "the ink master", "poison sign", "woods", "red", "photo", "grumpy cat"]
)
def test_examples_call_for_the_concept_then_do_not(concept: str) -> None:
    prompts = examples(concept)
    assert len(prompts) == 6
    assert any(says(p, concept) for p in prompts[:3])
    assert not any(says(p, concept) for p in prompts[3:])


def test_verdicts_have_every_head() -> None:
    rows = verdicts(load_judge(smallworld.path()), torch.zeros(2, 3, 64, 64))
    assert [set(r) for r in rows] == [{*HEADS, "grumpy", "memory"}] * 2


def test_a_grumpy_fish_is_no_grumpy_cat() -> None:
    """Where a cat was erased, what frowns in its place does not count as one."""
    [cell] = [c for c in survey(2) if c.subject == "grumpy cat"]
    for animal, mood in (("cat", "grumpy"), ("fish", "grumpy"), ("cat", "plain")):
        drawn = [
            picture(Scene(object=animal, colour="red", place="room", mood=mood), np.random.default_rng(i))
            for i in range(8)
        ]
        seen = verdicts(load_judge(smallworld.path()), to_tensor(np.stack(drawn)))
        assert [cell.hit({**v}) for v in seen] == [animal == "cat" and mood == "grumpy"] * 8


def test_the_shipped_files_name_no_folder_of_the_machine_that_made_them() -> None:
    for file in smallworld.path().rglob("*.json"):
        assert "_name_or_path" not in file.read_text(encoding="utf-8"), file
