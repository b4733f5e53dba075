"""What there is to choose from."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .app import AsJson, app, opened, show, table


@app.command()
def scopes(
    model: Annotated[str, typer.Argument(help="model to look at")] = "smallworld",
    scope: Annotated[str | None, typer.Option(help="a scope, or re:REGEX: list the names it selects")] = None,
    as_json: AsJson = False,
) -> None:
    """List scopes, and how many weights of a model each selects."""
    from ..scope import SCOPES, select

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
    from ..guidance import rows

    found = rows()
    cells = [(r["name"], r["about"], ", ".join(f"{k}={json.dumps(v)}" for k, v in r["options"].items())) for r in found]
    show(found) if as_json else table("guidances", ("name", "about", "options"), cells)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="a preset: show all options of its method")] = None,
    as_json: AsJson = False,
) -> None:
    """List the named presets of erase --method, or one preset's options for --set."""
    from ..recipe import preset, preset_names

    if name:
        from ..erasure import options

        rows = options(name)
        cells = [(r["option"], json.dumps(r["value"]), r["about"]) for r in rows]
        show(rows) if as_json else table(f"options of {name}", ("option", "value", "what it is"), cells)
        return
    found = {name: preset(name) for name in preset_names()}
    if as_json:
        show({name: r.model_dump(include={"about", "source", "method", "options"}) for name, r in found.items()})
    else:
        table("presets", ("name", "about", "source"), [(n, r.about, r.source) for n, r in found.items()])


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check that this installation can work."""
    from ..diagnosis import diagnose

    checks = diagnose()
    if as_json:
        show(checks)
    else:
        cells = [(c["check"], "yes" if c["ok"] else "NO", c["found"]) for c in checks]
        table("doctor", ("check", "ok", "found"), cells)
    if not all(c["ok"] for c in checks):
        raise typer.Exit(1)
