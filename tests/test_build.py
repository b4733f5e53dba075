"""The one command that rebuilds the world, at a few steps."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from expunge.cli import main
from expunge.families import load
from expunge.smallworld.provenance import verify
from runner import Runner


def command(out: Path, *more: str) -> list[str]:
    return ["world", "build", "--out", str(out), "--scale", "0.0002", *more]


def build(out: Path, *more: str) -> int:
    """The exit code; in this process, which has the libraries already."""
    with pytest.raises(SystemExit) as ended:
        main(command(out, *more))
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "w"
    assert build(out) == 0
    return out


def test_it_is_a_whole_pipeline_with_provenance(built: Path) -> None:
    assert verify(built)[0]
    assert {"judge", "clip", "unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= {
        p.name for p in built.iterdir()
    }
    assert not [p.name for p in built.iterdir() if p.name.startswith(".")]
    assert load(str(built), device="cpu", precision="fp32").encode(["a red cat"]).tensors["text"].shape == (1, 32, 128)


def test_the_clip_text_tower_is_the_pipelines_encoder(built: Path) -> None:
    """Training the image tower on leaves the text tower locked."""
    from safetensors.torch import load_file

    clip = load_file(built / "clip" / "model.safetensors")
    encoder = load_file(built / "text_encoder" / "model.safetensors")
    tower = {k.removeprefix("text_model."): v for k, v in clip.items() if k.startswith("text_model.")}
    assert all((tower[k.removeprefix("text_model.")] == v).all() for k, v in encoder.items())


def test_a_killed_build_ends_in_the_same_bits_and_gold_is_added(
    runner: Runner, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is built already is not trained again."""
    again = tmp_path / "w"
    assert runner.ended(command(again), tmp_path / "told.txt", signal.SIGKILL, (again / "unet_long").exists) == -9
    assert (again / "unet_long").exists()
    assert not (again / "unet").exists()
    assert build(again, "--gold") == 0
    told = capsys.readouterr().err
    assert re.search(r"about \d+ minutes of training on cpu", told)
    assert "judge: already built" in told and "unet_long" not in told
    first, second = (json.loads((p / "provenance.json").read_text())["sha256"] for p in (built, again))
    assert {k: v for k, v in second.items() if not k.startswith("unet_gold")} == first
    gold, unet = (second[f"{name}/diffusion_pytorch_model.safetensors"] for name in ("unet_gold", "unet"))
    assert gold != unet


def test_another_plan_does_not_mix_into_a_world(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(built, "--seed", "1") == 2
    assert "holds no world of this plan" in capsys.readouterr().err
