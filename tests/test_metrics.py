"""Each metric equals an independent implementation or a closed form, and tells an undamaged model from a broken one."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from expunge import Edit, ExpungeError, Request, Settings, generate
from expunge.gallery import Gallery, Store
from expunge.judges import eye, judge
from expunge.metrics import METRICS, metric
from expunge.metrics.frechet import frechet, gaussian, square_root
from expunge.metrics.kernel import cubic, discrepancy
from expunge.model import Model

PROMPTS = [
    f"a {c} {o} {p}" for c in ("red", "blue") for o in ("car", "cat", "boat") for p in ("in the city", "at the beach")
]
REQUESTS = [Request(p, seed) for p in PROMPTS for seed in range(2)]
SETTINGS = Settings(steps=8)


@pytest.fixture(scope="module")
def world(usual: Model) -> Model:
    return usual


def gallery(world: Model, folder: Path, name: str, edit: Edit | None = None) -> Gallery:
    rows = generate(world, REQUESTS, SETTINGS, folder / "images", [(edit, 1.0)] if edit else [])
    return Gallery(name, folder / "images", REQUESTS, [row["file"] for row in rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("galleries")


@pytest.fixture(scope="module")
def base(world: Model, folder: Path) -> Gallery:
    return gallery(world, folder, "base")


def disturbed(world: Model, size: float) -> Edit:
    """Noise of `size` standard deviations on every weight matrix of the last blocks."""
    rng = torch.Generator().manual_seed(0)
    chosen = {n: p for n, p in world.parameters().items() if "up_blocks" in n and p.ndim > 1}
    delta = {n: size * p.std() * torch.randn(p.shape, generator=rng) for n, p in chosen.items()}
    return Edit(delta, {"base": {"name": world.name, "hash": world.hash}}, f"noise {size}")


@pytest.fixture(scope="module")
def broken(world: Model, folder: Path) -> Gallery:
    return gallery(world, folder, "broken", disturbed(world, 1.0))


@pytest.fixture(scope="module")
def touched(world: Model, folder: Path) -> Gallery:
    return gallery(world, folder, "touched", disturbed(world, 0.02))


SPECS = {
    "fid": {"eye": "smallworld"},
    "kid": {"eye": "smallworld"},
    "perceptual": {"eye": "smallworld"},
    "clip-score": {"eye": "clip"},
    "lost": {"eye": "clip"},
    "clip-accuracy": {"eye": "clip", "target": "car", "anchor": "boat"},
    "mean": {"judge": "collapse", "key": "spread"},
}


def test_every_metric_is_tried() -> None:
    assert set(SPECS) == set(METRICS)


@pytest.mark.parametrize("kind", [k for k in SPECS if k not in ("clip-accuracy", "mean")])
def test_a_metric_tells_models_apart(kind: str, base: Gallery, touched: Gallery, broken: Gallery) -> None:
    """The undamaged, the slightly touched and the broken one, in this order."""
    found = metric({"kind": kind, "on": "all", **SPECS[kind]})
    scores = [found.score(g, base) for g in (base, touched, broken)]
    values = [s.value if found.higher_is_better else -s.value for s in scores]
    assert values[0] >= values[1] - 0.05 * (kind == "lost") and values[1] > values[2], [str(s) for s in scores]
    assert all(s.low <= s.value <= s.high and s.n == len(REQUESTS) for s in scores)
    assert (scores[2].low > scores[0].high) or (scores[2].high < scores[0].low), "not by chance"


def test_broken_pictures_are_lost(base: Gallery, broken: Gallery) -> None:
    lost = metric({"kind": "lost", **SPECS["lost"]})
    assert lost.score(base, base).value <= 0.05
    assert lost.score(broken, base).value >= 0.9


def test_clip_accuracy_follows_the_pictures(base: Gallery) -> None:
    found = metric({"kind": "clip-accuracy", **SPECS["clip-accuracy"]})
    cars, boats = (base.only(lambda r, word=word: word in r.prompt) for word in ("car ", "boat"))
    assert found.score(cars, cars).value > 0.8 > 0.2 > found.score(boats, boats).value


def test_a_mean_is_of_what_the_judge_says(base: Gallery, broken: Gallery) -> None:
    found = metric({"kind": "mean", **SPECS["mean"]})
    values = [[float(v["spread"]) for v in g.verdicts(judge("collapse"))] for g in (base, broken)]
    assert found.score(base, base).value == pytest.approx(np.mean(values[0]))
    assert found.each(broken, base) == values[1]
    with pytest.raises(ExpungeError, match="unknown key of the judge collapse: 'sprad'"):
        metric({"kind": "mean", "judge": "collapse", "key": "sprad"}).try_on(torch.zeros(1, 3, 64, 64))


features = st.tuples(st.integers(0, 2**16), st.integers(12, 40), st.integers(12, 40), st.integers(1, 6))


def rows(seed: int, n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mix, rng.normal(size=(m, d)) + rng.normal(size=d)


@given(features)
@settings(deadline=None, max_examples=40)
def test_fid_is_torchmetrics(shape: tuple[int, int, int, int]) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Same(nn.Identity):
        num_features = shape[3]

    x, y = rows(*shape)
    with warnings.catch_warnings(action="ignore"):
        theirs = FrechetInceptionDistance(feature=Same()).set_dtype(torch.float64)
        theirs.update(torch.from_numpy(y), real=True)
        theirs.update(torch.from_numpy(x), real=False)
        expected = float(theirs.compute())
    μ_r, Σ_r = gaussian(y)
    assert frechet(*gaussian(x), μ_r, Σ_r, square_root(Σ_r)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_fid_of_two_gaussians_has_a_closed_form() -> None:
    """Diagonal covariances: ‖μ − μ_r‖² + Σ (σ − σ_r)²."""
    μ, μ_r, σ, σ_r = (np.array(v, dtype=float) for v in ([1, 2], [0, 4], [1, 3], [2, 0.5]))
    found = frechet(μ, np.diag(σ**2), μ_r, np.diag(σ_r**2), square_root(np.diag(σ_r**2)))
    assert found == pytest.approx(1 + 4 + 1 + 6.25)


@given(features)
@settings(deadline=None, max_examples=40)
def test_kid_is_torchmetrics(shape: tuple[int, int, int, int]) -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    seed, n, _, d = shape
    x, y = rows(seed, n, n, d)
    with warnings.catch_warnings(action="ignore"):
        theirs = KernelInceptionDistance(feature=nn.Identity(), subsets=1, subset_size=n).set_dtype(torch.float64)
        theirs.update(torch.from_numpy(y), real=True)
        theirs.update(torch.from_numpy(x), real=False)
        expected = float(theirs.compute()[0])
    assert discrepancy(cubic(x, x), cubic(y, y), cubic(x, y)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_clip_score_is_a_cosine(base: Gallery) -> None:
    """As CLIPModel itself has it, picture by picture."""
    seen = eye("clip")
    images = base.images(base.files)
    ids = seen.tokenizer([r.prompt for r in REQUESTS], padding="max_length", max_length=32, return_tensors="pt")  # type: ignore[attr-defined]
    with torch.no_grad():
        logits = seen.network(input_ids=ids.input_ids, pixel_values=images).logits_per_image  # type: ignore[attr-defined]
        expected = logits.diagonal().mean() / seen.network.logit_scale.exp()  # type: ignore[attr-defined]
    found = metric({"kind": "clip-score", "on": "all", "eye": "clip"}).score(base, base)
    assert found.value == pytest.approx(float(expected), abs=1e-4)


def test_verdicts_are_kept_and_found_again(base: Gallery, folder: Path) -> None:
    """What was judged is not judged again, also after a kill in the middle of a line."""
    found, collapse = base.verdicts(judge("collapse")), judge("collapse")
    store = Store(folder / "verdicts" / f"collapse-{collapse.identity()}.jsonl")
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[: len(whole) // 2])
    assert base.verdicts(collapse) == found
    assert store.read().keys() == set(base.files)
    size = store.path.stat().st_size
    assert base.verdicts(collapse) == found and store.path.stat().st_size == size


def test_a_damaged_picture_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG nothing")
    damaged = Gallery("base", tmp_path / "images", REQUESTS[:1], ["a.png"])
    with pytest.raises(ExpungeError, match=r"a.png.*remove it, and it is made again"):
        damaged.verdicts(judge("collapse"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "fidd", "eye": "clip"}, "did you mean 'fid'"),
        ({"kind": "fid"}, "eye in metric fid"),
        ({"kind": "clip-score", "eye": "smallworld"}, "eye in metric clip-score"),
        ({"kind": "fid", "eye": "collapse"}, "no features"),
    ],
)
def test_bad_metrics_are_one_clear_line(spec: dict[str, str], message: str) -> None:
    with pytest.raises(ExpungeError, match=message) as error:
        metric(spec)
    assert "\n" not in str(error.value)


def test_one_picture_is_too_few(base: Gallery) -> None:
    one = base.only(lambda r: r == REQUESTS[0])
    with pytest.raises(ExpungeError, match="two pictures or more"):
        metric({"kind": "fid", **SPECS["fid"]}).score(one, one)
