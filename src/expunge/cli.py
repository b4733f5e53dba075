"""The command line: parse, call, print. Every error is one line on stderr and exit code 2."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__
from .errors import ExpungeError, Interrupted

if TYPE_CHECKING:
    from .edit import Edit
    from .erasure import Plan
    from .generation import Settings
    from .guided import Guidance
    from .model import Model
    from .score import Score

app = typer.Typer(
    name="expunge", help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False,
)  # fmt: skip
app.info.help = "Erase concepts from text-to-image diffusion models, and measure what the erasure did."
world = typer.Typer(help="The small world: draw its data, or train it again.", no_args_is_help=True)
app.add_typer(world, name="world")

MODEL = "smallworld, smallworld-gold, a diffusers folder, a .safetensors or .ckpt checkpoint, or a hub id"
ModelName = Annotated[str, typer.Option("--model", help=MODEL)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps")]
Precision = Annotated[str, typer.Option(help="auto, mixed, fp32, bf16 or fp16")]
Offload = Annotated[
    bool,
    typer.Option("--offload", help="only the denoiser stays on the device: saves the other networks' memory there"),
]
Checkpointing = Annotated[
    bool,
    typer.Option("--checkpointing", help="keep few activations: saves most of them, for a third more network passes"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
MAX_SEED = 2**32 - 1
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="seed of all random numbers")]


def show(value: Any) -> None:
    """Prints JSON to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*columns, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*(str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(drawn)


def say(text: str) -> None:
    """A line for people: on stderr, so that stdout stays parseable."""
    print(text, file=sys.stderr)


def opened(model: str, device: str = "auto", precision: str = "auto", **more: bool) -> Model:
    from .families import load

    return load(model, device=device, precision=precision, **more)  # type: ignore[arg-type]


def scaled(text: str) -> tuple[Edit, float]:
    """A `FILE[:SCALE]` argument as an edit and its scale."""
    from .edit import Edit

    file, _, scale = text.rpartition(":")
    try:
        path, factor = (Path(file), float(scale)) if file else (Path(text), 1.0)
    except ValueError:
        path, factor = Path(text), 1.0
    if not math.isfinite(factor):
        raise ExpungeError(f"the scale of {text} is not a finite number; 1 applies the edit as it is")
    return Edit.load(path), factor


def stack(model: Model, edits: Sequence[str]) -> list[tuple[Edit, float]]:
    """`FILE[:SCALE]` arguments as pairs that fit the model."""
    pairs = [scaled(text) for text in edits]
    for edit, _ in pairs:
        edit.check(model)
    overlapping(pairs)
    return pairs


def overlapping(pairs: Sequence[tuple[Edit, float]]) -> None:
    from .merge import overlaps

    for line in overlaps(pairs):
        say(line)


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
    recipe: Annotated[Path | None, typer.Option(help="a YAML recipe instead of a preset")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="seed of all random numbers [recipe's, or 0]")
    ] = None,
    out: Annotated[Path, typer.Option(help="file of the edit")] = Path("edit.safetensors"),
    picture: Annotated[Path | None, typer.Option(help="a PNG of before and after at the same seeds")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue an unfinished run")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    offload: Offload = False,
    checkpointing: Checkpointing = False,
    as_json: AsJson = False,
) -> None:
    """Erase concepts from a model and write the edit."""
    from . import erasure
    from . import recipe as recipes
    from .files import check_writable

    if recipe and method:
        raise ExpungeError("--recipe and --method both choose a method; give one of them")
    names = [*(concepts or []), *(erasure.concept_set(listed) if listed else [])]
    named = method or erasure.default_preset(model or "smallworld", names)
    chosen = recipes.read(recipe) if recipe else recipes.preset(named)
    options = recipes.assignments(changes or []) | ({"scope": scope} if scope else {})
    options |= {"lora_rank": lora_rank} if lora_rank else {}
    built = erasure.build_method(chosen, options)
    if within and not names:
        raise ExpungeError("--from needs a concept on the command line; a recipe's concepts have their own 'within'")
    wanted = erasure.concepts_of(names, within) or chosen.concepts
    if not wanted:
        raise ExpungeError("nothing to erase: name a concept, such as `expunge erase car`")
    erasure.check_output(out, resume)
    if picture:
        check_writable(picture)
    base = opened(model or chosen.model, device, precision, offload=offload, checkpointing=checkpointing)
    seed = chosen.seed if seed is None else seed
    plan = erasure.make_plan(base, built, wanted)
    erasure.check_snapshot(base, built, wanted, out, seed)
    say(describe(plan.row(), str(recipe or named)))
    edit = erasure.run(base, built, wanted, out, seed=seed, resume=resume)
    if picture:
        drawn(base, edit, erasure.shown(built, wanted), picture)
    if as_json:
        show({"edit": str(out), "hash": edit.hash, "plan": plan.row(), **edit.provenance})
    else:
        cost = edit.provenance["cost"]
        spent = f"{cost['passes']} network passes in {cost['calls']} calls, {cost['seconds']:.0f} s"
        print(f"{out}  ({spent}, hash {edit.hash[:12]})")


def made(edit: Edit, out: Path, as_json: bool) -> None:
    """Where an edit is, and which it is."""
    show({"edit": str(out), "hash": edit.hash, **edit.provenance}) if as_json else print(f"{out}  ({edit.hash[:12]})")


def drawn(model: Model, edit: Edit, prompts: Sequence[str], picture: Path) -> None:
    """The picture of an edit, and where it is."""
    from .generation import Settings, before_after

    before_after(model, edit, prompts, Settings(cfg=model.cfg), picture)
    say(f"before and after: {picture}")


def describe(plan: dict[str, Any], recipe: str) -> str:
    return (
        f"erasing {', '.join(plan['concepts'])} by {recipe}, {plan['method']} on {plan['scope']}: {plan['steps']} steps"
        f" of {plan['parameters'] / 1e6:.2f} M weights, about {plan['passes']} network passes,"
        f" {plan['seconds']:.0f} s and {plan['bytes'] / 2**20:.0f} MiB besides activations"
    )


def steered(names: Sequence[str], concepts: Sequence[str]) -> tuple[Guidance, ...]:
    """`NAME[,key=value]...` arguments, all away from the same concepts."""
    from .guidance import guidance

    if concepts and not names:
        raise ExpungeError("--concept is what --guidance steers away from: give one of `expunge guidances`")
    return tuple(guidance(name, concepts) for name in names)


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
    num: Annotated[int, typer.Option(min=1, help="images for each prompt")] = 1,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="folder of the images")] = Path("images"),
    device: Device = "auto",
    precision: Precision = "auto",
    offload: Offload = False,
    as_json: AsJson = False,
) -> None:
    """Generate images, with edits applied; existing ones are kept."""
    from . import generation
    from .files import check_writable, lines

    texts = [*(prompts or []), *(lines(file, "prompts") if file else [])]
    if not texts:
        raise ExpungeError("nothing to generate: give prompts, or --prompts FILE with one a line")
    if cfg is not None and not math.isfinite(cfg):
        raise ExpungeError(f"--cfg {cfg} is not a finite number; 1 means the prompt alone")
    check_writable(out / "images.json")
    rules = steered(guidance or [], concept or [])
    requests = [generation.Request(p, seed + i) for p in texts for i in range(num)]
    base = opened(model, device, precision, offload=offload)
    edits = stack(base, edit or [])
    settings = generation.Settings(steps=steps, cfg=base.cfg if cfg is None else cfg, guidance=rules)
    generation.check(base, settings)
    say(sampling(base, len(requests), settings, f"generating {len(requests)} images of {steps} steps: at most"))
    rows = generation.generate(base, requests, settings, out, edits)
    if as_json:
        show(rows)
    else:
        print("\n".join(str(out / row["file"]) for row in rows))


def sampling(model: Model, images: int, settings: Settings, about: str) -> str:
    """What it costs to sample that many images."""
    from .generation import passes

    cost = passes(images, settings)
    seconds = cost * model.seconds_per_pass(2 * min(images, model.rows))
    return f"{about} {cost} network passes, {seconds:.0f} s and {model.bytes / 2**20:.0f} MiB besides activations"


@app.command()
def demo(
    concept: Annotated[str, typer.Argument(help="what to erase")] = "car",
    out: Annotated[Path, typer.Option(help="folder of the results")] = Path("demo"),
    method: Annotated[str | None, typer.Option(help="a preset from `expunge presets`")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="pictures for each concept of the world")] = 14,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Erase a concept of the small world; leave the edit, a before/after picture and a table of what changed."""
    from . import demo as demonstration
    from .erasure import default_preset

    base = opened("smallworld")
    recipe = method or default_preset("smallworld", [concept])
    cells = demonstration.cells_about(concept, pictures)

    def told(plan: Plan) -> None:
        say(describe(plan.row(), recipe))
        count = 2 * len(demonstration.asked(cells))
        say(sampling(base, count, demonstration.SETTINGS, f"then judging {count} pictures of base and edit:"))

    outcome = demonstration.demo(base, concept, out, cells, recipe=recipe, seed=seed, on_plan=told)
    if as_json:
        show({"files": outcome.files, "scores": [s.row() for s in outcome.scores]})
    else:
        compare(outcome.scores, concept)
        print("\n".join(str(f) for f in outcome.files))


def compare(scores: Sequence[Score], concept: str) -> None:
    """Base beside edit, a row for each concept; those that name the erased one first."""
    from .concept import says

    base = {(s.subject, s.metric): s for s in scores if s.model == "base"}
    after = [s for s in scores if s.model != "base"]
    rows = [(s.subject, s.metric, base[s.subject, s.metric], s, s.n) for s in after]
    rows.sort(key=lambda row: not says(row[0], concept))
    table("share of pictures, with 95% intervals", ("concept", "metric", "base", after[0].model, "n"), rows)


@app.command()
def audit(
    protocol: Annotated[str, typer.Option(help="a name from `expunge protocols`, or a .yaml file")] = "smallworld",
    model: ModelName = "smallworld",
    edit: Annotated[list[str] | None, typer.Option(help="FILE[:SCALE], a row of the audit each")] = None,
    guidance: Annotated[list[str] | None, typer.Option(help="see `expunge guidances`, a row of the audit each")] = None,
    other: Annotated[list[str] | None, typer.Option(help="another whole model, a row of the audit each")] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(help="what is erased, besides what the edits say; --guidance steers away from it"),
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="your own prompts: .csv, .tsv, .jsonl, .parquet or .txt")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the protocol, as judges.x.y=z")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many pictures a row, spread over all")] = None,
    shard: Annotated[str, typer.Option(help="i/n: make the i-th of n parts of the pictures, and judge nothing")] = "",
    out: Annotated[Path, typer.Option(help="folder of the audit")] = Path("audit"),
    device: Device = "auto",
    precision: Precision = "auto",
    offload: Offload = False,
    as_json: AsJson = False,
) -> None:
    """Judge a model before and after: is the concept gone, by which judge, how surely, and what else was damaged?"""
    from . import audit as auditing
    from .files import check_writable
    from .generation import check, passes
    from .protocol import changed
    from .protocol import protocol as named
    from .recipe import assignments

    part = sharded(shard)
    chosen = changed(named(protocol), prompts, assignments(changes or []))
    check_writable(out / "scores.json")
    base = opened(model, device, precision, offload=offload)
    rows = [auditing.Variant(called(pair), edits=(pair,)) for pair in map(scaled, edit or [])]
    rules = [(name, rule) for name in guidance or [] for rule in steered([name], concept or [])]
    rows += [auditing.Variant(name, guidance=(rule,)) for name, rule in rules]
    rows += [auditing.Variant(name, model=opened(name, device, precision, offload=offload)) for name in other or []]
    plan = auditing.plan(chosen, base, rows, limit=limit, erased=concept or [])
    for variant in plan.variants:
        check(variant.model or base, plan.settings_of(variant), plan.requests)
    count = len(plan.requests)
    cost = sum(passes(count, plan.settings_of(v)) for v in plan.variants)
    seconds = cost * base.seconds_per_pass(2 * min(count, base.rows)) / part[1]
    say(
        f"{chosen.name} {chosen.version}: {count} pictures of each of {len(plan.variants)} rows"
        f" ({', '.join(v.name for v in plan.variants)}), at most {cost // part[1]} network passes, {seconds:.0f} s"
    )
    if part[1] > 1:
        for variant in plan.variants:
            auditing.gallery(plan, base, variant, out, part)
        made = {"out": str(out), "part": part[0] + 1, "of": part[1]}
        told = f"{out / 'images'}  (part {part[0] + 1} of {part[1]}; audit without --shard once all are there)"
        show(made) if as_json else print(told)
        return
    found = auditing.run(plan, base, out)
    if as_json:
        show({"out": str(out), "scores": [r.row() for r in found]})
    else:
        summary([v.name for v in plan.variants], found)
        print(out / "scores.json")


def called(pair: tuple[Edit, float]) -> str:
    """An edit's row: its name, and its scale if that is not 1."""
    edit, scale = pair
    return edit.name if scale == 1 else f"{edit.name}:{scale:g}"


def sharded(text: str) -> tuple[int, int]:
    """ "2/3" as (1, 3)."""
    i, slash, n = text.partition("/")
    if not text:
        return 0, 1
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise ExpungeError(f"--shard {text} should be i/n, such as 1/4, with i from 1 to n")
    return int(i) - 1, int(n)


def summary(names: Sequence[str], found: Sequence[Any]) -> None:
    """A table: a row for each number, a column for each model; what is erased first, then what was damaged most."""
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for r in found:
        cells.setdefault((r.score.subject, r.score.metric), {})[r.score.model] = r
    ordered = sorted(cells.items(), key=lambda item: urgency([*item[1].values()]))
    rows = [
        (subject, metric, *(str(of[n].score) if n in of else "" for n in names), max(r.score.n for r in of.values()))
        for (subject, metric), of in ordered
    ]
    table("95% intervals; what is erased first, then the worst damaged", ("concept", "metric", *names, "n"), rows)


def urgency(row: Sequence[Any]) -> tuple[bool, float]:
    """What is erased first; then by how much a change is for the worse."""
    losses = [(-1 if r.score.higher_is_better else 1) * r.change.value for r in row if r.change]
    return all(r.role == "kept" for r in row), -max(losses, default=-1.0)


@app.command()
def protocols(
    name: Annotated[str | None, typer.Argument(help="a protocol: show all of it")] = None,
    as_json: AsJson = False,
) -> None:
    """List the protocols of audit, or show one."""
    from .protocol import names, protocol

    if name:
        show(protocol(name).model_dump(mode="json"))
        return
    found = [protocol(n) for n in names()]
    if as_json:
        show([{"name": p.name, "about": p.about, "source": p.source} for p in found])
    else:
        table("protocols", ("name", "about", "source"), [(p.name, p.about, p.source) for p in found])


@app.command()
def scopes(
    model: Annotated[str, typer.Argument(help="model to look at")] = "smallworld",
    scope: Annotated[str | None, typer.Option(help="a scope, or re:REGEX: list the names it selects")] = None,
    as_json: AsJson = False,
) -> None:
    """List scopes, and how many weights of a model each selects."""
    from .scope import SCOPES, select

    base = opened(model)
    if scope:
        names = {n: list(p.shape) for n, p in select(base.networks(), scope, base.layout).items()}
        show(names) if as_json else print("\n".join(names))
        return
    rows = []
    for name, rule in SCOPES.items():
        chosen = select(base.networks(), name, base.layout)
        count = sum(p.numel() for p in chosen.values())
        rows.append({"scope": name, "tensors": len(chosen), "weights": count, "about": rule.about})
    if as_json:
        show(rows)
    else:
        cells = [(r["scope"], r["tensors"], f"{r['weights']:,}", r["about"]) for r in rows]
        table(f"scopes of {model}", ("scope", "tensors", "weights", "about"), cells)
        print("also re:REGEX, searched in parameter names")


@app.command()
def guidances(as_json: AsJson = False) -> None:
    """List what can steer a model while it samples, with its options: generate --guidance NAME[,option=value]..."""
    from .guidance import rows

    found = rows()
    cells = [(r["name"], r["about"], ", ".join(f"{k}={json.dumps(v)}" for k, v in r["options"].items())) for r in found]
    show(found) if as_json else table("guidances", ("name", "about", "options"), cells)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="a preset: show all options of its method")] = None,
    as_json: AsJson = False,
) -> None:
    """List the named presets of erase --method, or one preset's options for --set."""
    from .recipe import preset, preset_names

    if name:
        rows = options(name)
        cells = [(r["option"], json.dumps(r["value"]), r["about"]) for r in rows]
        show(rows) if as_json else table(f"options of {name}", ("option", "value", "what it is"), cells)
        return
    found = {name: preset(name) for name in preset_names()}
    if as_json:
        show({name: r.model_dump(include={"about", "source", "method", "options"}) for name, r in found.items()})
    else:
        table("presets", ("name", "about", "source"), [(n, r.about, r.source) for n, r in found.items()])


def options(name: str) -> list[dict[str, Any]]:
    """Every option of a preset's method, its value there, and what it is."""
    from .erasure import build_method
    from .recipe import preset

    method = build_method(preset(name), {})
    values, fields = method.model_dump(mode="json"), type(method).model_fields
    return [{"option": k, "value": values[k], "about": f.description} for k, f in fields.items()]


@app.command()
def info(file: Annotated[Path, typer.Argument(help="an edit")], as_json: AsJson = False) -> None:
    """Show what an edit is and where it comes from."""
    from .edit import Edit

    edit = Edit.load(file)
    about = {
        "file": str(file),
        "hash": edit.hash,
        "tensors": len(edit.delta),
        "weights": sum(d.numel() for d in edit.delta.values()),
        "norm": float(sum(d.square().sum() for d in edit.delta.values()) ** 0.5),
        **edit.provenance,
    }
    if as_json:
        show(about)
    else:
        table("edit", ("field", "value"), [(k, json.dumps(v, ensure_ascii=False)) for k, v in about.items()])


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="an edit", metavar="EDIT")],
    form: Annotated[str, typer.Option("--format", help="delta, diffusers, lora, kohya or compvis")],
    out: Annotated[Path, typer.Option(help="file, or folder for diffusers")],
    model: ModelName = "smallworld",
    rank: Annotated[int | None, typer.Option(min=1, help="of a LoRA, for an edit that was not trained as one")] = None,
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Write an edit in the form that other tools load."""
    from .edit import Edit
    from .files import check_writable
    from .formats import format_of

    chosen, edit = format_of(form), Edit.load(file)
    if rank and not chosen.factored:
        raise ExpungeError(f"--rank is of a LoRA's factors, which {form} does not hold; leave it out")
    if not out.name.endswith(chosen.suffix):
        raise ExpungeError(f"other tools know the file by its name: end --out {out} in {chosen.suffix}")
    check_writable(out)
    base = opened(model, "cpu", precision)
    edit.check(base)
    lost = chosen.write(edit, base, out, rank)
    show({"out": str(out), "format": form, "lost": lost}) if as_json else print(f"{out}  ({lost or chosen.about})")


@app.command("import")
def bring(
    file: Annotated[Path, typer.Argument(help="edited weights or a LoRA, of any tool")],
    model: ModelName = "smallworld",
    out: Annotated[Path, typer.Option(help="file of the edit")] = Path("edit.safetensors"),
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="open .pt and .bin files, for their tensors alone")
    ] = False,
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Make an edit of another tool's file."""
    from .files import check_writable
    from .formats import read

    check_writable(out)
    edit = read(file, opened(model, "cpu", precision), allow_pickle=allow_pickle)
    edit.save(out)
    made(edit, out, as_json)


@app.command()
def merge(
    files: Annotated[list[str], typer.Argument(help="edits, each FILE[:SCALE]", metavar="EDIT...")],
    out: Annotated[Path, typer.Option(help="file of the merged edit")] = Path("merged.safetensors"),
    as_json: AsJson = False,
) -> None:
    """Make one edit of several of the same model."""
    from .merge import merge as merged

    pairs = [scaled(text) for text in files]
    edit = merged(pairs, out.stem)
    overlapping(pairs)
    edit.save(out)
    made(edit, out, as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check that this installation can work."""
    from .diagnosis import diagnose

    checks = diagnose()
    if as_json:
        show(checks)
    else:
        cells = [(c["check"], "yes" if c["ok"] else "NO", c["found"]) for c in checks]
        table("doctor", ("check", "ok", "found"), cells)
    if not all(c["ok"] for c in checks):
        raise typer.Exit(1)


@world.command()
def draw(
    out: Annotated[Path, typer.Option(help="PNG file")] = Path("world.png"),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write a contact sheet of the small world's drawings."""
    from .files import whole
    from .smallworld.sheet import drawn

    with whole(out) as temporary:
        drawn(seed).save(temporary, format="PNG")
    show({"file": str(out)}) if as_json else print(out)


@world.command()
def build(
    out: Annotated[Path, typer.Option(help="folder of the world")],
    seed: Seed = 0,
    device: Device = "auto",
    scale: Annotated[float, typer.Option(min=0.0, help="multiplies all lengths; small values for a trial")] = 1.0,
    gold: Annotated[
        bool, typer.Option("--gold", help="also train the gold standard, which never saw the sign")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train the small world from a seed; a killed build resumes."""
    from .families import place
    from .smallworld.build import Plan, build_world

    if not math.isfinite(scale):
        raise ExpungeError(f"--scale {scale} is not a finite number; 1 is the shipped world's length")
    plan, where = Plan(seed=seed).scale(scale), place(device)
    say(f"training on {plan.pictures} drawings: {plan.steps()}; each stage shows its time left, a killed build resumes")
    told = f"expunge world build --out DIR --seed {seed} --scale {scale:g} --device {where}{' --gold' if gold else ''}"
    build_world(out, plan, where, told, gold=gold, say=say)
    show({"folder": str(out)}) if as_json else print(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0, 2 for bad input, 130 or 143 after a signal."""
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        given = list(arguments) if arguments is not None else None
        code = typer.main.get_command(app).main(given, "expunge", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except Interrupted as error:
        say(f"expunge: {error}")
        sys.exit(error.exit_code)
    except ExpungeError as error:
        say(f"expunge: {' '.join(str(error).split())}")
        sys.exit(2)
    except usage_error as error:
        told = error.format_message()  # type: ignore[attr-defined]
        help_asked = told.startswith("Usage:")  # no arguments at all
        say(told if help_asked else f"expunge: {' '.join(told.split()).rstrip('.')}; see `expunge --help`")
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error):
            raise
        say(f"expunge: out of memory: {' '.join(str(error).split())[:200]}; use a smaller batch, or --precision bf16")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        say("expunge: stopped")
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit
