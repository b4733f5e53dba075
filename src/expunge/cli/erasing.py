"""Erase and generate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from ..collecting import uncollected
from ..errors import ExpungeError
from .app import (
    MAX_SEED,
    MODEL,
    AsJson,
    Checkpointing,
    Device,
    ModelName,
    Offload,
    Precision,
    Seed,
    app,
    describe,
    drawn,
    opened,
    sampling,
    say,
    show,
    stack,
    steered,
)
from .parts import Address, Engine, Parts, Shard

if TYPE_CHECKING:
    from ..edit import Edit
    from ..filter import Filter
    from ..generation import Request, Settings
    from ..method import Method
    from ..model import Model


@app.command()
def erase(
    concepts: Annotated[
        list[str] | None,
        typer.Argument(help="what to erase, by name; 'grumpy cat -> cat' with an anchor", metavar="CONCEPT..."),
    ] = None,
    listed: Annotated[
        str | None, typer.Option("--concepts", help="a named set, such as i2p, or a text file, one concept a line")
    ] = None,
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    method: Annotated[str | None, typer.Option(help="a preset from `expunge presets`")] = None,
    scope: Annotated[str | None, typer.Option(help="which weights may change, see `expunge scopes`")] = None,
    lora_rank: Annotated[int | None, typer.Option(min=1, help="train a LoRA of this rank instead")] = None,
    within: Annotated[str | None, typer.Option("--from", help="erase as an attribute of this prompt only")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="key=value of the method's options")] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="look at pictures meanwhile, and stop when it is gone: smallworld, clip[,model=…], …"),
    ] = None,
    erased: Annotated[
        float | None, typer.Option(help="gone: the upper bound of the concept's rate is below this [0.03]")
    ] = None,
    damage: Annotated[float | None, typer.Option(help="how much of other pictures may be lost [0.02]")] = None,
    keep: Annotated[Path | None, typer.Option(help="a text file of captions that must stay, one a line")] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="FILE[:SCALE], an edit that may be on the model with this one; may be repeated"),
    ] = None,
    limit: Annotated[str | None, typer.Option("--time", help="train no longer than this: 90s, 5m, 1h")] = None,
    recipe: Annotated[Path | None, typer.Option(help="a YAML recipe instead of a preset")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="seed of all random numbers [recipe's, or 0]")
    ] = None,
    out: Annotated[Path, typer.Option(help="file of the edit")] = Path("edit.safetensors"),
    picture: Annotated[Path | None, typer.Option(help="a PNG of before and after at the same seeds")] = None,
    report: Annotated[Path | None, typer.Option(help="a page of what the closed loop saw and did (.html)")] = None,
    frames: Annotated[
        Path | None, typer.Option(help="a folder for pictures at the same seeds, before, on the way and after")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an unfinished run")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    offload: Offload = False,
    checkpointing: Checkpointing = False,
    fsdp: Annotated[
        bool, typer.Option("--fsdp", help="divide the model among the processes that torchrun started (FSDP)")
    ] = False,
    report_to: Annotated[
        list[str] | None, typer.Option(help="also tell each step to tensorboard, wandb, …; may be repeated")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="how many processes the launcher shall have started; refuse any other")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Erase concepts from a model and write the edit."""
    with uncollected():
        from .. import erasure
        from .. import recipe as recipes
        from ..edit import parts
        from ..families import place
        from ..files import check_writable, lines
        from ..methods import method_class
        from ..runlog import trackers

    if recipe and method:
        raise ExpungeError("--recipe and --method both choose a method; give one of them")
    names = [*(concepts or []), *(erasure.concept_set(listed) if listed else [])]
    watched = {"judge": judge, "erased": erased, "damage": damage, "seconds": seconds(limit) if limit else None}
    watched = {key: value for key, value in watched.items() if value is not None}
    options = recipes.assignments(changes or []) | ({"scope": scope} if scope else {})
    named = method or erasure.default_preset(model or "smallworld", names, {**options, **watched}, within)
    chosen = recipes.read(recipe) if recipe else recipes.preset(named)
    options |= ({"lora_rank": lora_rank} if lora_rank else {}) | watched
    options |= {"keep": lines(keep, "captions")} if keep else {}
    options |= {"beside": beside} if beside else {}
    if watched and chosen.method != "closed-loop":
        raise ExpungeError(
            f"--judge, --erased, --damage and --time steer the closed loop, and {chosen.method} looks at nothing;"
            " choose another --method, or leave it out"
        )
    if beside and "beside" not in method_class(chosen.method).model_fields:
        raise ExpungeError(
            f"--beside is for methods that learn in steps, and {chosen.method} has none; choose another --method"
        )
    built = erasure.build_method(chosen, options)
    if within and not names:
        raise ExpungeError("--from needs a concept on the command line; a recipe's concepts have their own 'within'")
    wanted = erasure.concepts_of(names, within) or chosen.concepts
    if not wanted:
        raise ExpungeError("nothing to erase: name a concept, such as `expunge erase car`")
    erasure.check_output(out, resume)
    if any(parts(text)[0].resolve() == out.resolve() for text in getattr(built, "beside", ())):
        raise ExpungeError(f"--out {out} would replace an edit that is to stand beside it; give another file")
    if picture and fsdp:
        raise ExpungeError("--picture needs the whole model in one process; leave it out, and use generate afterwards")
    if picture:
        check_writable(picture)
    if frames:
        check_writable(frames / "frames.json")
    if report:
        check_report(built, report)
    told = trackers(report_to or [], out)
    team = erasure.counted(place(device), processes)
    if frames and (fsdp or team.size > 1):
        raise ExpungeError("--frames are one process's; leave them out, and use generate afterwards")
    base = opened(model or chosen.model, device, precision, offload=offload, checkpointing=checkpointing, fsdp=fsdp)
    seed = chosen.seed if seed is None else seed
    plan = erasure.make_plan(base, built, wanted)
    erasure.check_snapshot(base, built, wanted, out, seed)
    say(f"{describe(plan.row(), str(recipe or named))}, on {team.size} process{'es' * (team.size > 1)}")
    edit = erasure.run(base, built, wanted, out, seed=seed, resume=resume, trackers=told, frames=frames)
    if picture and team.main:
        drawn(base, edit, erasure.shown(built, wanted), picture)
    if report and team.main:
        reported(base, edit, erasure.shown(built, wanted), report)
    if as_json:
        show({"edit": str(out), "hash": edit.hash, "plan": plan.row(), **edit.provenance})
    else:
        cost = edit.provenance["cost"]
        spent = f"{cost['passes']} network passes in {cost['calls']} calls, {cost['seconds']:.0f} s"
        print(f"{out}  ({spent}, hash {edit.hash[:12]})")


def check_report(method: Method, file: Path) -> None:
    """Raises ExpungeError if the method will have nothing to tell, or the file cannot be written."""
    from ..files import check_writable

    if method.kind != "closed-loop":
        raise ExpungeError(
            f"--report tells what a closed loop saw; {method.kind} looks at nothing: give --judge, or audit"
        )
    if not getattr(method, "steps", 0):
        raise ExpungeError("--report tells what a closed loop saw, and no step is looked at; leave steps=0 or it out")
    check_writable(file)


def reported(model: Model, edit: Edit, prompts: Sequence[str], file: Path) -> None:
    """The page of a closed loop, with before and after; what it says is told as well."""
    from ..generation import Settings, before_after
    from ..report import closed

    with TemporaryDirectory() as folder:
        picture = Path(folder) / "pictures.png"
        before_after(model, edit, prompts, Settings(cfg=model.cfg), picture)
        closed.write(edit, file, picture)
    say(f"{closed.verdict(edit)}\nreport: {file}")


def seconds(text: str) -> float:
    """ "90s", "5m" or "1h" in seconds. Raises ExpungeError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or not float(found[1]):
        raise ExpungeError(f"--time {text!r} is no time: expected 90s, 5m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@app.command()
def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="prompts", metavar="PROMPT...")] = None,
    file: Annotated[Path | None, typer.Option("--prompts", help="a text file, one prompt a line")] = None,
    model: ModelName = "smallworld",
    edit: Annotated[list[str] | None, typer.Option(help="FILE[:SCALE], may be repeated")] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="scheduler steps")] = 25,
    cfg: Annotated[
        float | None, typer.Option(help="guidance scale; 1: the prompt alone [the pipeline's own; smallworld: 4]")
    ] = None,
    guidance: Annotated[
        list[str] | None,
        typer.Option(help="steer away from --concept while sampling, see `expunge guidances`; may be repeated"),
    ] = None,
    concept: Annotated[list[str] | None, typer.Option(help="what --guidance steers away from; may be repeated")] = None,
    stop: Annotated[
        str | None,
        typer.Option("--filter", help="JUDGE[,key=…,above=…|equals=…]: block pictures by it, as safety-checker"),
    ] = None,
    num: Annotated[int, typer.Option(min=1, help="images for each prompt")] = 1,
    seed: Seed = 0,
    shard: Shard = "",
    engine: Engine = "local",
    address: Address = None,
    out: Annotated[Path, typer.Option(help="folder of the images")] = Path("images"),
    device: Device = "auto",
    precision: Precision = "auto",
    offload: Offload = False,
    as_json: AsJson = False,
) -> None:
    """Generate images, with edits applied; existing ones are kept."""
    from .. import generation
    from ..cluster import Job, Opening
    from ..files import check_writable, lines
    from ..journal import beside
    from ..judges import filtering

    parts = Parts(shard, engine, address)
    texts = [*(prompts or []), *(lines(file, "prompts") if file else [])]
    if not texts:
        raise ExpungeError("nothing to generate: give prompts, or --prompts FILE with one a line")
    if cfg is not None and not math.isfinite(cfg):
        raise ExpungeError(f"--cfg {cfg} is not a finite number; 1 means the prompt alone")
    check_writable(out / "images.json")
    rules, sieve = steered(guidance or [], concept or []), filtering(stop, model) if stop else None
    requests = [generation.Request(p, seed + i) for p in texts for i in range(num)]
    base = opened(model, device, precision, offload=offload)
    edits = stack(base, edit or [])
    settings = generation.Settings(steps=steps, cfg=base.cfg if cfg is None else cfg, guidance=rules)
    how, work = Opening(model, device, precision, offload), partial(draw_there, settings, edits, stop)
    generation.check(base, settings)
    if sieve:
        sieve.check(base.blank())
    if parts.leads:
        say(sampling(base, len(requests), settings, f"generating {len(requests)} images of {steps} steps: at most"))
    if not parts.made(
        out,
        lambda own: generation.part(base, requests, settings, out, own, edits, sieve),
        lambda: [Job(how, work, generation.batches(base, requests, settings, out, edits, sieve), out, beside(out))],
        base,
    ):
        parts.tell(out, as_json)
        return
    rows = generation.generate(base, requests, settings, out, edits, sieve)
    if as_json:
        show(rows)
    else:
        print("\n".join(str(out / row["file"]) if row["file"] else f"blocked: {row['prompt']}" for row in rows))


def draw_there(
    settings: Settings,
    edits: Sequence[tuple[Edit, float]],
    stop: str | None,
    model: Model,
    requests: Sequence[Request],
    folder: Path,
) -> None:
    """On a worker of a cluster."""
    from ..generation import drawn

    drawn(model, requests, settings, folder, edits, sieve=sieve_there(stop, model.name) if stop else None)


@lru_cache(maxsize=1)
def sieve_there(stop: str, model: str) -> Filter:
    """The filter, whose judge a worker opens once."""
    from ..judges import filtering

    return filtering(stop, model)
