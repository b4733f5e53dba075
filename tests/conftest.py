"""Real models at test size: the small world, and tiny random pipelines with other schedulers and predictions."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as `make test` has it: a run's bits depend on it

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import settings

from expunge.families import load
from expunge.families.stable_diffusion import StableDiffusion
from expunge.model import Model
from runner import Runner, running

settings.register_profile("deep", max_examples=5000, deadline=None)

TinyModel = Callable[..., Model]
LONG = ("test_page", "test_closed_loop", "test_audit", "test_families", "test_parts", "test_readme", "test_build")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: then no process waits long for another at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is kept in the user's own cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def world() -> Model:
    """The small world in plain fp32."""
    return load("smallworld", device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def usual() -> Model:
    """As commands open it: under bf16 autocast where that is fast. For what is no matter of bits."""
    return load("smallworld", device="cpu")


@pytest.fixture(scope="session")
def tiny(world: Model) -> TinyModel:
    """A pipeline with a small random UNet and a chosen scheduler class and prediction type."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    def make(scheduler: type | None = None, dtype: torch.dtype = torch.float32, **config: object) -> Model:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unet = UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(16, 32),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                layers_per_block=1,
                attention_head_dim=2,
                cross_attention_dim=128,
                norm_num_groups=8,
            )
        old = world.pipeline
        kind = scheduler or type(old.scheduler)
        pipeline = StableDiffusionPipeline(
            vae=old.vae,
            text_encoder=old.text_encoder,
            tokenizer=old.tokenizer,
            unet=unet if dtype == torch.float32 else unet.to(dtype),
            scheduler=kind.from_config(old.scheduler.config, **config),  # type: ignore[attr-defined]
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        return StableDiffusion(pipeline, torch.device("cpu"), dtype, name="tiny")

    return make


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """Of command lines on the small world in plain fp32."""
    with running() as found:
        yield found


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions that the closed loop compares at a look, and strengths that it tries at its end."""
    for module in ("closing", "methods.closed_loop"):
        monkeypatch.setattr(f"expunge.{module}.FRESH", 24)
        monkeypatch.setattr(f"expunge.{module}.SCALES", (1.0, 0.8))
