"""Every run leaves what it did at each step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import TinyModel
from expunge.cli import main
from expunge.concept import Concept
from expunge.erasure import run
from expunge.generation import Request, Settings, generate
from expunge.journal import NAME, Journal, lines
from expunge.methods.esd import ESD
from expunge.methods.uce import UCE
from expunge.runlog import trackers

CAR = [Concept(name="car")]
SHORT = ESD(steps=4, grid=3, latents=2, trajectory="renoised", keep=("a cat",), lr=1e-3, schedule="cosine")


def test_it_says_what_the_run_was_and_did(tiny: TinyModel, tmp_path: Path) -> None:
    edit = run(tiny(), SHORT, CAR, tmp_path / "car.safetensors", seed=3)
    head, *steps, last = lines(tmp_path / "car.jsonl")
    assert (head["run"]["seed"], head["run"]["options"]["steps"], head["processes"]) == (3, 4, 1)
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert all(line["loss"] == sum(line["terms"].values()) and line["memory"] > 1e6 for line in steps)
    assert [set(line["terms"]) for line in steps] == [{"erase", "keep"}] * 4
    assert [line["rate"] for line in steps] == [SHORT.rate(i) for i in range(4)]
    assert [line["passes"] for line in steps] == sorted(line["passes"] for line in steps)
    assert (last["edit"], last["passes"]) == (edit.hash, edit.provenance["cost"]["passes"])


def test_a_run_of_other_options_replaces_it(tiny: TinyModel, tmp_path: Path) -> None:
    for lr in (1e-3, 1e-4):
        run(tiny(), SHORT.model_copy(update={"lr": lr}), CAR, tmp_path / "car.safetensors")
    head, *steps, _ = lines(tmp_path / "car.jsonl")
    assert (head["run"]["options"]["lr"], len(steps)) == (1e-4, 4)


def test_a_closed_form_has_one_too(tiny: TinyModel, tmp_path: Path) -> None:
    edit = run(tiny(), UCE(), CAR, tmp_path / "car.safetensors")
    head, last = lines(tmp_path / "car.jsonl")
    assert (head["run"]["method"], last["edit"]) == ("uce", edit.hash)


def test_tensorboard_is_told(tiny: TinyModel, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "car.safetensors"
    run(tiny(), SHORT, CAR, out, trackers=trackers(["tensorboard"], out))
    events = EventAccumulator(str(tmp_path / "runs" / "car")).Reload()
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(
        [v["loss"] for v in lines(tmp_path / "car.jsonl")[1:-1]]
    )


@pytest.mark.parametrize(("name", "told"), [("tensorbord", "did you mean 'tensorboard'"), ("wandb", "not installed")])
def test_a_tracker_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["erase", "car", "--report-to", name, "--out", str(tmp_path / "edit.safetensors")])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_pictures_have_a_journal(tiny: TinyModel, tmp_path: Path) -> None:
    """A line a batch, of what was made alone: what is there already takes none."""
    model, n, settings = tiny(), 40, Settings(steps=2)
    asked = [Request("a car", seed) for seed in range(n)]
    for number in (3, n, n):
        generate(model, asked[:number], settings, tmp_path)
    first, three, second, *rest = lines(tmp_path / NAME)
    assert (first["run"]["pictures"], second["run"]["settings"]) == (3, settings.row())
    assert (three["seeds"], three["passes"], three["calls"]) == ([0, 1, 2], 3 * 2 * 2, 2)
    assert [s for line in rest for s in line["seeds"]] == [*range(n)]
    assert all(line["seconds"] > 0 and line["memory"] > 1e6 for line in (three, *rest))
    assert len({line["process"] for line in (first, three, second, *rest)}) == 1


def test_an_audit_has_a_journal_of_pictures_and_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (
        "audit --protocol smallworld-objects --limit 6 --set steps=2 --filter smallworld,key=object,equals=car --out"
    )
    assert main_code([*command.split(), str(tmp_path / "audit")]) == 0
    capsys.readouterr()
    found = lines(tmp_path / "audit" / NAME)
    pictures = len(list((tmp_path / "audit" / "images").glob("*.png")))
    assert sum(line.get("pictures", 0) for line in found if "run" not in line) == pictures
    assert any(line.get("what", "").startswith("judging by smallworld") for line in found)


def main_code(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_a_torn_line_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"pictures": 3}\n{"pict')
    Journal(tmp_path / NAME, torch.device("cpu"))(pictures=5)
    assert [line["pictures"] for line in lines(tmp_path / NAME)] == [3, 5]
