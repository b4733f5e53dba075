"""Several processes train what one would have trained."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

import together
from expunge.cli import main
from expunge.edit import Edit
from expunge.files import read_tensors
from expunge.team import ALONE

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what two processes learnt. Processes that do not get as far are told of, and started once more."""
    out = tmp_path_factory.mktemp("two")
    command = [*TORCHRUN, str(Path(together.__file__)), str(out)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=140, check=False)
        if done.returncode == 0 or "AssertionError" in done.stderr:
            break
        warnings.warn(f"two processes failed: {done.stderr[-4000:]}", stacklevel=1)
    assert done.returncode == 0, done.stderr[-8000:]
    return out


@pytest.mark.parametrize("case", together.CASES)
def test_two_processes_learn_what_one_learns(two: Path, case: str) -> None:
    """The gradients, at the same global batch, up to the order of sums: batches of 3 do not even divide by 2."""
    got, about = read_tensors(two / f"{[*together.CASES].index(case)}.safetensors")
    want = together.learnt(case)
    assert about["processes"] == "2"
    assert got.keys() == want.keys()
    scale = max(float(v.abs().max()) for k, v in want.items() if k != "loss")
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=2e-3, atol=1e-3 * scale if name != "loss" else 1e-6)


def test_one_process_is_a_team_of_one() -> None:
    asked: list[list[int]] = []

    def ask(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return rows.float()

    assert ALONE.spread(3, ask).tolist() == [0, 1, 2]
    assert asked == [[0, 1, 2]]
    assert (ALONE.same(lambda: 7), ALONE.highest(5)) == (7, 5)


def test_a_run_of_two_is_stopped_and_goes_on_alone(tmp_path: Path) -> None:
    """By the same command; the number of processes is said, and snapshots do not depend on it."""
    out, log = tmp_path / "edit.safetensors", tmp_path / "log.txt"
    options = ["--method", "esd-x", "--set", "steps=16", "--set", "latents=4", "--precision", "fp32"]
    command = [*TORCHRUN, "-m", "expunge", "erase", "car", *options, "--processes", "2", "--out", str(out)]
    with log.open("w") as told:
        process = subprocess.Popen(command, stdout=told, stderr=told)
        while process.poll() is None and not out.with_name("edit.safetensors.snapshot").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    text = log.read_text()
    assert "on 2 processes" in text
    assert text.count("network passes,") == 1, "one process speaks"
    assert "stopped after step" in text, text
    assert not out.exists()
    whole = tmp_path / "whole.safetensors"
    for arguments in (["--resume", "--out", str(out)], ["--out", str(whole)]):
        with pytest.raises(SystemExit) as ended:
            main(["erase", "car", *options, *arguments])
        assert ended.value.code == 0
    got, want = Edit.load(out), Edit.load(whole)
    for name, delta in want.delta.items():
        assert (got.delta[name] - delta).norm() <= 0.02 * delta.norm() + 1e-6, name


def test_a_launcher_that_started_one_process_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["erase", "car", "--processes", "2", "--out", str(tmp_path / "edit.safetensors")])
    assert ended.value.code == 2
    assert "1 process started, not 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "told"),
    [(["--fsdp"], "start it by torchrun"), (["--fsdp", "--picture", "p.png"], "leave it out")],
)
def test_a_model_is_divided_among_several_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["erase", "car", "--method", "esd-x", *option, "--out", str(tmp_path / "edit.safetensors")])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
