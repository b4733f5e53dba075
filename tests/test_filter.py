"""What a filter stops is not shown, is told as blocked, and is stopped again only by looking."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig

from expunge import ExpungeError, Request, Settings, generate
from expunge.filter import Filter
from expunge.judges import filtering, judge
from expunge.model import Model

REQUESTS = [Request(f"a red car {place}", seed) for place in ("in the city", "at the beach") for seed in range(3)]
SETTINGS = Settings(steps=6)


def test_a_blocked_picture_is_not_written(world: Model, tmp_path: Path) -> None:
    """Those that show the sign, which are those the judge says; made once, also when asked for again."""
    stop = filtering("smallworld,key=sign,equals=hazard")
    rows = generate(world, REQUESTS, SETTINGS, tmp_path, sieve=stop)
    plain = generate(world, REQUESTS, SETTINGS, tmp_path / "all")
    from expunge.picture import opened as picture

    signs = [judge("smallworld").look(picture(tmp_path / "all" / r["file"]))[0]["sign"] == "hazard" for r in plain]
    assert [row.get("blocked", False) for row in rows] == signs and True in signs and False in signs
    assert all((tmp_path / row["file"]).exists() for row in rows if row["file"])
    assert len(list(tmp_path.glob("*.png"))) == signs.count(False)
    passes = world.meter.passes
    assert generate(world, REQUESTS, SETTINGS, tmp_path, sieve=stop) == rows and world.meter.passes == passes
    assert not {r["file"] for r in plain} & {r["file"] for r in rows}, "a picture that nothing looked at is another"


def test_thresholds_are_the_papers_unless_others_are_given() -> None:
    assert filtering("nudenet").above == 0.6 and filtering("nudenet,above=0.2").above == 0.2
    other = filtering("collapse,key=collapse,equals=noise")
    assert (other.key, other.equals, other.above) == ("collapse", "noise", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nudent", "unknown judge 'nudent'; did you mean 'nudenet'"),
        ("smallworld", "key in filter smallworld"),
        ("smallworld,key=sign", "give equals or above"),
        ("smallworld,key=sign,equals=hazard,above=1", "give equals or above"),
        ("smallworld,sign", "takes key=value, not 'sign'"),
        ("lpips", "gives features and no verdicts"),
    ],
)
def test_bad_filters_are_told(text: str, message: str) -> None:
    with pytest.raises(ExpungeError, match=message) as error:
        filtering(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_key_that_the_judge_has_not(world: Model) -> None:
    with pytest.raises(ExpungeError, match="unknown key of the judge smallworld: 'sgn'; did you mean 'sign'"):
        filtering("smallworld,key=sgn,equals=hazard").check(world.blank())
    with pytest.raises(ExpungeError, match="is a text: use equals"):
        filtering("smallworld,key=sign,above=1").check(world.blank())


def test_either_says_what_any_of_its_judges_says(world: Model, tmp_path: Path) -> None:
    from expunge.picture import opened as picture

    rows = generate(world, REQUESTS, SETTINGS, tmp_path)
    images = torch.cat([picture(tmp_path / row["file"]) for row in rows])
    specs = [("smallworld", "sign", {"equals": "hazard"}), ("collapse", "spread", {"above": 0.2})]
    found = judge({"kind": "either", "of": [{"judge": j, "key": k, **how} for j, k, how in specs]})
    alone = [filtering(",".join([j, f"key={k}", *(f"{n}={v}" for n, v in how.items())]))(images) for j, k, how in specs]
    want = [float(a or b) for a, b in zip(*alone, strict=True)]
    assert [v["any"] for v in found.look(images)] == want and 0 < sum(want) < len(want)
    assert (
        found.identity()
        != judge({"kind": "either", "of": [{"judge": "smallworld", "key": "sign", "equals": "x"}]}).identity()
    )
    with pytest.raises(ExpungeError, match="unknown judge 'nudent'"):
        judge({"kind": "either", "of": [{"judge": "nudent", "key": "x", "above": 1}]})


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a real, tiny safety checker of random weights that stops about half of all pictures."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(vision_config={**size, "image_size": 32, "patch_size": 8}, text_config=size, projection_dim=16)
    folder = tmp_path_factory.mktemp("checked")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checker = StableDiffusionSafetyChecker(config).eval()
        for p in checker.parameters():
            p.data = 0.3 * torch.randn_like(p)
        checker.special_care_embeds_weights.data.fill_(2)
        seen = torch.cosine_similarity(
            checker.visual_projection(checker.vision_model(torch.randn(64, 3, 32, 32))[1])[:, None],
            checker.concept_embeds[None], dim=-1,
        )  # fmt: skip
        checker.concept_embeds_weights.data.fill_(float(seen.max(1).values.median()))
    checker.save_pretrained(folder / "safety_checker")
    (folder / "model_index.json").write_text("{}")
    return folder


def test_the_safety_checker_is_the_pipelines(checked: Path) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = judge({"kind": "safety-checker", "model": str(checked)})
    stock = StableDiffusionSafetyChecker.from_pretrained(checked / "safety_checker")
    prepared = found.prepared(images)  # type: ignore[attr-defined]
    _, unsafe = stock(clip_input=prepared, images=[*images.clone()])
    assert [v["unsafe"] for v in found.look(images)] == [float(u) for u in unsafe]
    assert 0 < sum(unsafe) < 24 and found.veils({"unsafe": 0.0})
    stop = filtering("safety-checker", str(checked))
    assert stop == filtering(f"safety-checker,model={checked}")
    assert isinstance(stop, Filter) and stop(images) == [bool(u) for u in unsafe]


def test_a_model_without_a_safety_checker() -> None:
    with pytest.raises(ExpungeError, match="no safety checker in 'smallworld'"):
        judge({"kind": "safety-checker", "model": "smallworld"}).identity()
