"""From a recipe to an edit on disk: cost told beforehand, snapshots on the way, the file whole at the end."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .concept import Concept
from .edit import Edit
from .errors import ExpungeError, unknown
from .families import Precision, load
from .files import check_writable, home, lines, sweep
from .frames import Frames
from .lock import locked
from .method import Method, scoped
from .methods import method_class
from .model import Model
from .recipe import Recipe, preset, validated
from .runlog import RunLog
from .sharding import shard
from .smallworld.reading import readable
from .smallworld.scene import ARTISTS, SYNONYMS
from .team import Team, here
from .training import OnStep, Snapshots, Trainer, fingerprint

if TYPE_CHECKING:
    import torch


WATCHED = ("judge", "erased", "damage", "seconds")
"""Options that only a method has which looks at pictures meanwhile."""


def default_preset(
    model: str, names: Sequence[str] = (), options: Collection[str] = (), within: str | None = None
) -> str:
    """The preset that `erase` uses when none is named.

    It follows from the options that are given. On the small world it is the closed loop, if the judge there can tell
    what is to be erased, everywhere, and the options are the loop's.
    """
    small, watched = model == "smallworld", any(key in WATCHED for key in options)
    looked = not within and {*options} <= {*method_class("closed-loop").model_fields}
    if watched or (small and looked and all(readable(Concept.of(name)["name"] or "") for name in names)):
        return "smallworld-loop" if small else "closed-loop-x"
    return tuned_preset(names) if small else "esd-x"


def tuned_preset(names: Sequence[str]) -> str:
    """The small world's for concepts of this kind, which looks at nothing."""
    artists = {*ARTISTS, *(alias for name, alias in SYNONYMS.items() if name in ARTISTS)}
    if names and artists.issuperset(names):
        return "smallworld-artist"
    return "smallworld-sign" if set(names) == {"hazard sign"} else "smallworld-object"


def concepts_of(names: Sequence[str], within: str | None = None) -> tuple[Concept, ...]:
    """Concepts from words, "grumpy cat -> cat" with an anchor. Raises ExpungeError if one is empty."""
    return tuple(validated(Concept, Concept.of(text, within), f"concept {text!r}") for text in names)


def concept_sets() -> dict[str, Path]:
    """The named lists of concepts."""
    return {f.stem: f for f in sorted((Path(__file__).parent / "concepts").glob("*.txt"))}


def concept_set(name: str) -> list[str]:
    """The concepts of a named set, or of a text file with one a line. Raises ExpungeError if there is neither."""
    if name not in concept_sets() and not home(name).is_file():
        raise unknown("concept set", name, concept_sets())
    found = lines(concept_sets().get(name, home(name)), "concepts")
    if not found:
        raise ExpungeError(f"{name} holds no concept; write one a line")
    return found


def build_method(recipe: Recipe, changes: Mapping[str, Any]) -> Method:
    """The recipe's method with its options, some replaced. Raises ExpungeError for a bad key or value."""
    return validated(method_class(recipe.method), {**recipe.options, **changes}, f"method {recipe.method}")


def options(name: str) -> list[dict[str, Any]]:
    """Every option of a preset's method, its value there, and what it is."""
    method = build_method(preset(name), {})
    values, fields = method.model_dump(mode="json"), type(method).model_fields
    return [{"option": k, "value": values[k], "about": f.description} for k, f in fields.items()]


@dataclass(frozen=True)
class Plan:
    """What a run will do, said before it starts."""

    method: Method
    concepts: tuple[Concept, ...]
    parameters: int
    passes: int
    seconds: float
    bytes: int

    def row(self) -> dict[str, Any]:
        return {
            "concepts": [c.name for c in self.concepts],
            "method": self.method.kind,
            "scope": self.method.scope,
            "steps": self.method.extent()[0],
            "early": self.method.early,
            "parameters": self.parameters,
            "passes": self.passes,
            "seconds": round(self.seconds, 1),
            "bytes": self.bytes,
        }


def make_plan(model: Model, method: Method, concepts: Sequence[Concept]) -> Plan:
    """Counts passes from the method, and times one pass on this machine. Raises ExpungeError for what cannot be."""
    method.check(model, concepts)
    shard(model, scoped(model, method.scope))
    passes = method.passes(concepts)
    return Plan(
        method=method,
        concepts=tuple(concepts),
        parameters=method.size(model, concepts),
        passes=passes,
        seconds=passes * model.seconds_per_pass(2 * method.extent()[1]),
        bytes=method.memory(model, concepts),
    )


def counted(device: torch.device, processes: int | None) -> Team:
    """The processes of this run. Raises ExpungeError if they are not as many as was said."""
    team = here(device)
    if processes not in (None, team.size):
        raise ExpungeError(
            f"{team.size} process{'es' * (team.size > 1)} started, not {processes}: the launcher did not start the"
            f" others; use torchrun --standalone --nproc_per_node {processes} -m -- expunge …"
        )
    return team


def snapshot_path(out: Path) -> Path:
    return out.with_name(out.name + ".snapshot")


def log_path(out: Path) -> Path:
    return out.with_suffix(".jsonl")


def check_output(out: Path, resume: bool) -> Path:
    """The snapshot's path. Raises ExpungeError if `out` cannot be, or is being, written, or a run would be lost."""
    if out.name:
        check_writable(out)
    if out.is_dir():
        raise ExpungeError(f"--out {out} is a folder; give a file name such as {out / 'edit.safetensors'}")
    snapshot = snapshot_path(out)
    check_writable(snapshot)
    if snapshot.exists() and not resume:
        with locked(out):
            raise ExpungeError(f"{snapshot} holds an unfinished run; add --resume to continue it, or remove it")
    return snapshot


def check_snapshot(model: Model, method: Method, concepts: Sequence[Concept], out: Path, seed: int) -> None:
    """Raises ExpungeError if the snapshot beside `out` is damaged or of another run than this one."""
    Snapshots(snapshot_path(out), fingerprint(method.describe(model, concepts, seed))).read()


def shown(method: Method, concepts: Sequence[Concept]) -> list[str]:
    """Prompts that show what an erasure did: the concepts (five at most), their anchors, and three captions to keep."""
    anchors = [c.anchor for c in concepts if c.anchor]
    kept = [text for text in getattr(method, "keep", ()) if text]
    return list(dict.fromkeys([*[c.prompt for c in concepts][:5], *anchors[:5], *kept[:3]]))


def cache_folder() -> Path:
    """Where pictures that training draws once are kept: `expunge` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "expunge"


def run(
    model: Model,
    method: Method,
    concepts: Sequence[Concept],
    out: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    on_step: OnStep | None = None,
    marks: Mapping[int, Path] | None = None,
    trackers: Sequence[Any] = (),
    team: Team | None = None,
    frames: Path | None = None,
) -> Edit:
    """Fits, saves the edit at `out`, and removes the snapshot; `marks` are files of the edit after so many steps.

    What the run did at each step is beside the edit, in its name with the ending .jsonl, and told to Accelerate's
    `trackers`. Processes that a launcher started do it together, unless `team` says otherwise. `frames` is a folder of
    pictures of it on the way, by one process alone. Raises ExpungeError if another run writes there.
    """
    snapshot, team = check_output(out, resume), team or here(model.device)
    film = Frames(model, shown(method, concepts), frames) if frames else None
    watching = [watch for watch in (film, on_step) if watch]
    log = RunLog(log_path(out), method.describe(model, concepts, seed), model.device, team, trackers)

    def stepped(trainer: Trainer, loss: float) -> None:
        log(trainer, loss)
        for watch in watching:
            watch(trainer, loss)

    model.cache = model.cache or cache_folder()
    shard(model, scoped(model, method.scope))
    with locked(out) if team.main else nullcontext(), model.together(team), closing(log):
        if film:
            film.begin()
        edit = method.fit(model, concepts, seed=seed, name=out.stem, snapshot=snapshot, on_step=stepped, marks=marks)
        if film:
            film.after(edit, method.extent()[0] or 1)
        log.end(edit)
        team.same(lambda: finish(edit, out, snapshot))
    return edit


def finish(edit: Edit, out: Path, snapshot: Path) -> None:
    """Saves the edit, and leaves nothing else."""
    edit.save(out)
    snapshot.unlink(missing_ok=True)
    sweep(out.parent)


def erase(
    *names: str,
    model: str | Model = "smallworld",
    method: str | None = None,
    within: str | None = None,
    out: str | Path = "edit.safetensors",
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
    **options: Any,
) -> Edit:
    """Erases concepts by name and writes the edit; `method` names a preset, `options` replace its fields."""
    opened = model if isinstance(model, Model) else load(model, device=device, precision=precision)
    recipe = preset(method or default_preset(opened.name, names, options, within))
    return run(opened, build_method(recipe, options), concepts_of(names, within), Path(out), seed=seed, resume=resume)
