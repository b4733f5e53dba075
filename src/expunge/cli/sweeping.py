"""Sweep: many erasures and one audit of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, Device, Offload, Precision, app, opened, say, show, table
from .judging import costing, pictured, planned, reported
from .parts import Address, Engine, Parts, Shard


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(help="a name from `expunge sweeps`, or a .yaml file")],
    out: Annotated[Path, typer.Option(help="folder of the edits, and of their audit")] = Path("sweep"),
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many pictures a row [the recipe's]")] = None,
    shard: Shard = "",
    engine: Engine = "local",
    address: Address = None,
    device: Device = "auto",
    precision: Precision = "auto",
    offload: Offload = False,
    as_json: AsJson = False,
) -> None:
    """Erase with every combination of settings, and audit all of it; a killed sweep goes on where it was."""
    from .. import sweep as sweeping
    from ..cluster import Opening
    from ..files import check_writable
    from ..report import compare, sweeps

    parts = Parts(shard, engine, address)
    chosen = sweeping.sweep(recipe)
    protocol = chosen.judged_by()
    check_writable(out / "scores.json")
    base = opened(chosen.model, device, precision, offload=offload)
    plans = sweeping.plans(chosen, base)
    others = {name: opened(name, device, precision, offload=offload) for name in chosen.others}
    most = limit or (chosen.audit.limit if chosen.audit else None)
    # what cannot be audited is told before anything is trained
    tried = protocol and planned(protocol, base, sweeping.rows(chosen, sweeping.expected(chosen), others), most)
    if parts.leads:
        told = f"{sum(p.passes for p in plans)} network passes, {sum(p.seconds for p in plans):.0f} s"
        say("\n".join([f"{len(plans)} erasures, {told}", *([costing(tried, base)] if tried else [])]))
    folder, how = out / "edits", Opening(chosen.model, device, precision, offload)
    if parts.made(
        folder,
        lambda own: sweeping.part(chosen, base, folder, own),
        lambda: sweeping.jobs(chosen, base, folder, how),
        base,
    ):
        sweeping.edits(chosen, base, folder)
    if any(sweeping.lacking(chosen, base, folder)):
        parts.tell(folder, as_json)
        return
    made = sweeping.there(chosen, folder)
    if protocol is None:
        files = [str(out / "edits" / m.point.file) for m in made]
        show({"files": files}) if as_json else print("\n".join(files))
        return
    plan = planned(protocol, base, sweeping.rows(chosen, [m.row for m in made], others), most)
    if not pictured(plan, base, out, parts, how):
        parts.tell(out, as_json)
        return
    found = reported(plan, base, out, as_json)
    pages = compare.write(compare.comparison([out]), out, sweeps.figures(made, found))
    if not as_json:
        print("\n".join(map(str, pages)))


@app.command()
def sweeps(
    name: Annotated[str | None, typer.Argument(help="a sweep: show all of it")] = None,
    as_json: AsJson = False,
) -> None:
    """List the sweeps that come along, or show one."""
    from ..sweep import names, sweep

    if name:
        show(sweep(name).model_dump(mode="json"))
        return
    found = [(n, sweep(n)) for n in names()]
    if as_json:
        show([{"name": n, "about": s.about, "source": s.source} for n, s in found])
    else:
        table("sweeps", ("name", "about", "source"), [(n, s.about, s.source) for n, s in found])
