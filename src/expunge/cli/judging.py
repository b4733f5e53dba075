"""Audit, the demo that ends with one, and the protocols."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import (  # fmt: skip
    GIVEN,
    AsJson,
    Device,
    ModelName,
    Offload,
    Precision,
    Seed,
    app,
    describe,
    opened,
    say,
    show,
    table,
)
from .parts import Address, Engine, Parts, Shard

if TYPE_CHECKING:
    from ..cluster import Opening
    from ..erasure import Plan as Erasure
    from ..model import Model
    from ..plan import Plan
    from ..protocol import Protocol
    from ..result import Result
    from ..variant import Variant


@app.command()
def demo(
    concept: Annotated[str, typer.Argument(help="what to erase")] = "car",
    out: Annotated[Path, typer.Option(help="folder of the results")] = Path("demo"),
    method: Annotated[str | None, typer.Option(help="a preset from `expunge presets`")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="pictures for each concept of the world")] = 14,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Erase a concept of the small world; leave the edit, a before/after picture and a report of what changed."""
    from .. import demo as demonstration
    from ..erasure import tuned_preset
    from ..variant import Variant

    base = opened("smallworld")
    recipe = method or tuned_preset([concept])
    protocol = demonstration.judged_by(concept, pictures)

    def on_plan(plan: Erasure) -> None:
        say(describe(plan.row(), recipe))

    edit, files = demonstration.demo(base, concept, out, recipe=recipe, seed=seed, on_plan=on_plan)
    plan = planned(protocol, base, [Variant(edit.name, edits=((edit, 1.0),))], None, [concept])
    say(costing(plan, base))
    reported(plan, base, out, as_json, files)


@app.command()
def audit(
    protocol: Annotated[str, typer.Option(help="a name from `expunge protocols`, or a .yaml file")] = "smallworld",
    model: ModelName = "smallworld",
    edit: Annotated[list[str] | None, typer.Option(help="FILE[:SCALE], a row of the audit each")] = None,
    guidance: Annotated[list[str] | None, typer.Option(help="see `expunge guidances`, a row of the audit each")] = None,
    other: Annotated[list[str] | None, typer.Option(help="another whole model, a row of the audit each")] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--filter", help="JUDGE[,key=…,above=…|equals=…] behind the model, a row of the audit each"),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(help="'NAME = FILE[:SCALE] + GUIDANCE + filter:JUDGE…': several of these as one row"),
    ] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(help="what is erased, besides what the edits say; --guidance steers away from it"),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="your own: a .csv, .tsv, .jsonl, .parquet or .txt file, or a hub's data set owner/name[:FILE]"
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the protocol, as judges.x.y=z")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many pictures a row, spread over all")] = None,
    shard: Shard = "",
    engine: Engine = "local",
    address: Address = None,
    out: Annotated[Path, typer.Option(help="folder of the audit")] = Path("audit"),
    device: Device = "auto",
    precision: Precision = "auto",
    offload: Offload = False,
    as_json: AsJson = False,
) -> None:
    """Judge a model before and after: is the concept gone, by which judge, how surely, and what else was damaged?"""
    from ..cluster import Opening
    from ..files import check_writable
    from ..protocol import changed
    from ..protocol import protocol as named
    from ..recipe import assignments
    from ..variant import Variant, combined, of_edit

    parts = Parts(shard, engine, address)
    chosen = changed(named(protocol), prompts, assignments(changes or []))
    check_writable(out / "scores.json")
    base = opened(model, device, precision, offload=offload)
    texts = [*(guidance or []), *(f"filter:{text}" for text in stop or []), *(row or [])]
    rows = [*map(of_edit, edit or []), *(combined(text, concept or [], model) for text in texts)]
    rows += [Variant(name, model=opened(name, device, precision, offload=offload)) for name in other or []]
    plan = planned(chosen, base, rows, limit, concept or [])
    if parts.leads:
        say(costing(plan, base, parts.own()[1]))
    how = Opening(model, device, precision, offload)
    if pictured(plan, base, out, parts, how):
        reported(plan, base, out, as_json)
    else:
        parts.tell(out, as_json)


def planned(
    protocol: Protocol, base: Model, rows: Sequence[Variant], limit: int | None, erased: Sequence[str] = ()
) -> Plan:
    """The audit, tried as far as can be without a picture."""
    from ..generation import check
    from ..plan import plan

    found = plan(protocol, base, rows, limit=limit, erased=erased)
    for variant in found.variants:
        check(variant.model or base, found.settings_of(variant), found.requests)
    return found


def costing(plan: Plan, base: Model, parts: int = 1) -> str:
    """What an audit will ask of this machine."""
    from ..generation import passes

    count = len(plan.requests)
    cost = sum(passes(count, plan.settings_of(v)) for v in plan.variants) // parts
    seconds = cost * base.seconds_per_pass(2 * min(count, base.rows))
    return (
        f"{plan.protocol.name} {plan.protocol.version}: {count} pictures of each of {len(plan.variants)} rows"
        f" ({', '.join(v.name for v in plan.variants)}), at most {cost} network passes, {seconds:.0f} s"
    )


def pictured(plan: Plan, base: Model, out: Path, parts: Parts, how: Opening) -> bool:
    """Makes this process's part of the pictures; whether it is this process that judges them."""
    from ..auditing import jobs, part

    return parts.made(out, lambda own: part(plan, base, out, own), lambda: jobs(plan, base, out, how), base)


def reported(plan: Plan, base: Model, out: Path, as_json: bool, files: Sequence[Path] = ()) -> list[Result]:
    """Runs the audit, leaves its report, and says what it comes to."""
    from .. import report
    from ..auditing import run

    found = run(plan, base, out)
    made = report.write(plan, base, found, out, shlex.join(["expunge", *GIVEN]))
    every = [*map(str, files), *map(str, made.files)]
    if as_json:
        show({"out": str(out), "files": every, "scores": [r.row() for r in found]})
    else:
        inshort(made.table)
        print("\n".join([*(f"{name}: {text}" for name, text in made.verdicts), *every]))
    return found


COLUMNS = 6
"""Rows that fit beside each other."""


def inshort(found: dict[str, Any]) -> None:
    """The table of rows in short: a column for each; of many, a line for each, without intervals."""
    if len(found["rows"]) > COLUMNS:
        rows = [(name, *(cell.split(" [")[0] for cell in cells)) for name, cells in found["rows"]]
        table("in short; the files have the intervals", ("", *found["head"]), rows)
        return
    names, columns = zip(*found["rows"], strict=True)
    table("in short, with 95% intervals", ("", *names), [*zip(found["head"], *columns, strict=True)])


@app.command()
def compare(
    audits: Annotated[list[Path], typer.Argument(help="folders of audits", metavar="DIR...")],
    out: Annotated[Path, typer.Option(help="folder of the comparison")] = Path("compare"),
    as_json: AsJson = False,
) -> None:
    """Put audits side by side: one table, and a plot of erased against kept."""
    from ..files import check_writable
    from ..report import compare as comparing

    check_writable(out / "compare.json")
    found = comparing.comparison(audits)
    files = comparing.write(found, out)
    if as_json:
        show({"files": [*map(str, files)], "rows": [row.name for row in found.rows], "table": found.table()})
    else:
        inshort(found.table())
        print("\n".join(map(str, files)))


@app.command()
def protocols(
    name: Annotated[str | None, typer.Argument(help="a protocol: show all of it")] = None,
    as_json: AsJson = False,
) -> None:
    """List the protocols of audit, or show one."""
    from ..protocol import names, protocol

    if name:
        show(protocol(name).model_dump(mode="json"))
        return
    found = [protocol(n) for n in names()]
    if as_json:
        show([{"name": p.name, "about": p.about, "source": p.source} for p in found])
    else:
        table("protocols", ("name", "about", "source"), [(p.name, p.about, p.source) for p in found])
