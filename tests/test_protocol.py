"""Protocols are read strictly, prompts of every kind come with their seeds, and shipped ones are what papers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge import ExpungeError
from expunge.hub import located
from expunge.judges import judge
from expunge.metrics import metric
from expunge.prompts import READERS, Row, filled, of_file
from expunge.protocol import Protocol, changed, names, protocol, requests

LISTED = {
    "country-body": 5000, "imagenette": 5000, "artists": 100, "ablation": 1000,
}  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_a_shipped_protocol_is_whole(name: str) -> None:
    """Its judges and metrics exist with their options; its prompts are read, or are the user's."""
    found = protocol(name)
    assert found.name == name and found.source and found.about
    for spec in found.judges.values():
        judge(spec)
    for spec in found.metrics:
        metric(spec)
    if found.prompts.file == "user":
        with pytest.raises(ExpungeError, match="give your copy of them by --prompts FILE"):
            found.cells()
    else:
        assert len(requests(found.cells())) == LISTED.get(name, len(requests(found.cells()))) > 50


def test_the_seeds_of_a_template_follow_one_another() -> None:
    """Prompt k of a template has seeds k, k + 1, …"""
    asked = requests(protocol("country-body").cells())
    assert [r.seed for r in asked if r.prompt == "Germany body"] == [*range(2, 102)]


@given(st.integers(1, 300))
def test_a_limit_spreads_over_all(limit: int) -> None:
    cells = protocol("imagenette").cells(limit)
    asked = requests(cells)
    assert len(asked) == limit
    assert len(cells) == min(10, limit)


ROWS = [
    {"prompt": "a cat, asleep", "evaluation_seed": 7, "sd_guidance_scale": 9.5, "categories": "x"},
    {"prompt": "a dog"},
]


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        tab = "\t" if path.suffix == ".tsv" else ","
        keys = [*rows[0]]
        lines = [tab.join(keys)] + [tab.join(f'"{r.get(k, "")}"' for k in keys) for r in rows]
        path.write_text("\n".join(lines), encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_published_columns_are_known(suffix: str, tmp_path: Path) -> None:
    first, second = of_file(written(tmp_path / f"a{suffix}", ROWS))
    assert (first.prompt, first.seed, first.cfg, first.columns["categories"]) == ("a cat, asleep", 7, 9.5, "x")
    assert (second.prompt, second.seed, second.cfg) == ("a dog", 1, None)


def test_a_text_file_is_a_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# mine\na cat\n\na dog\n")
    assert [*of_file(tmp_path / "a.txt")] == [
        Row("a cat", 0, columns={"prompt": "a cat"}), Row("a dog", 1, columns={"prompt": "a dog"}),
    ]  # fmt: skip


def test_rows_come_one_by_one(tmp_path: Path) -> None:
    """The first is there before the last is read: a file may be larger than memory."""
    (tmp_path / "a.jsonl").write_text('{"prompt": "a cat"}\nnot JSON\n')
    rows = of_file(tmp_path / "a.jsonl")
    assert next(rows).prompt == "a cat"
    with pytest.raises(ExpungeError, match=r"line 2 of .* is not JSON"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "promt,seed\na cat,1\n", "row 1 of .* has no prompt: expected a column prompt, not promt, seed"),
        ("a.csv", "prompt,seed\na cat,one\n", "row 1 of .*: seed is 'one', not a number"),
        ("a.jsonl", '{"prompt": "a", "seed": 1e999}', "seed is inf, not a number"),
        ("a.csv", "prompt,cfg\na cat,nan\n", "cfg is 'nan', which is too large"),
        ("a.csv", "prompt,seed\na cat,-1\n", "seed is '-1', which is too large, or negative"),
        ("a.jsonl", "[1]\n", "line 1 of .* is not a JSON object"),
        ("a.json", "[]", "expected one of .csv"),
        ("nothing.csv", None, "cannot read prompts"),
    ],
)
def test_bad_prompts_are_one_clear_line(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ExpungeError, match=message) as error:
        list(of_file(tmp_path / name))
    assert "\n" not in str(error.value)


def test_lists_in_a_column_count_for_each_of_theirs(tmp_path: Path) -> None:
    """Two rows of the same picture count once."""
    (tmp_path / "i2p.csv").write_text('prompt,sd_seed,categories\na,1,"hate, shocking"\nb,2,hate\nb,2,hate\n')
    cells = changed(protocol("i2p"), tmp_path / "i2p.csv", {}).cells()
    found = {c.subject: len(c.requests) for c in cells if c.metric == "harm by category"}
    assert found == {"hate": 2, "shocking": 1}
    assert {len(c.requests) for c in cells if c.metric == "harm"} == {2}


def test_a_template_takes_what_it_names() -> None:
    found = [r.prompt for r in filled("{a} and {b}", {"a": ["x", "y"], "b": ["z"]})]
    assert found == ["x and z", "y and z"]
    for wrong in ("{c}", "{a.b}", "{"):
        with pytest.raises(ExpungeError, match="it can use a"):
            list(filled(wrong, {"a": ["x"]}))


RATE = {"name": "r", "judge": "c", "key": "k", "above": 0.1}
PLAIN = {"about": "a", "source": "b", "prompts": {"rows": [{"prompt": "a cat", "kind": "animal"}]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"promts": {}}, "did you mean 'prompts'"),
        ({"prompts": {}}, "one of template, rows, file, survey"),
        ({"prompts": {"survey": ["accurcy"]}}, "did you mean 'accuracy'"),
        ({"rates": [{"name": "r", "judge": "clip", "key": "class", "equals": "x"}]}, "asks the judge 'clip'"),
        ({"judges": {"c": "collapse"}, "rates": [{"name": "r", "judge": "c", "key": "k"}]}, "above a threshold"),
        ({"judges": {"c": "collapse"}, "rates": [RATE | {"by": "kinds"}]}, "column 'kinds'; did you mean 'kind'"),
        ({"judges": {"c": "collapse"}, "rates": [RATE | {"above": None, "equals": "{kind}"}]}, "say by which"),
        ({"prompts": {"survey": ["named"]}, "judges": {"c": "collapse"}, "rates": [RATE | {"by": "x"}]}, "no columns"),
        ({"prompts": {"template": "{x}", "values": {"x": "countries-by-gpd"}}}, "did you mean 'countries-by-gdp'"),
    ],
)  # fmt: skip
def test_bad_protocols_are_one_clear_line(change: dict[str, object], message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(PLAIN | change))
    with pytest.raises(ExpungeError, match=message) as error:
        protocol(str(file)).cells()
    assert "\n" not in str(error.value)


def test_options_are_set_by_dotted_name() -> None:
    found = changed(protocol("i2p"), Path("mine.csv"), {"judges.q16.embeddings": "e.safetensors", "images": 2})
    assert found.judges["q16"] == {"kind": "q16", "embeddings": "e.safetensors"}
    assert found.images == 2 and found.prompts.file == "mine.csv"
    assert changed(protocol("smallworld"), None, {"metrics.0.eye": "clip"}).metrics[0]["eye"] == "clip"
    with pytest.raises(ExpungeError, match="'q61'; did you mean 'q16'"):
        changed(protocol("i2p"), None, {"judges.q61.embeddings": "e"})


def test_a_protocol_says_all_of_itself_again() -> None:
    """Written out and read in, it asks the same."""
    found = protocol("artists")
    again = Protocol.model_validate(json.loads(found.model_dump_json()))
    assert again == found and again.cells() == found.cells()


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hub's own cache, as it lies there after a download; nothing else can be had offline."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    base = tmp_path / "datasets--some--prompts"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text("0" * 40)
    snapshot = base / "snapshots" / ("0" * 40)
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "data" / "test.csv").write_text("prompt,sd_seed\na red car,7\n")
    [row] = of_file(located("some/prompts", READERS, "dataset"))
    assert (row.prompt, row.seed) == ("a red car", 7)
    (snapshot / "more.csv").write_text("prompt\na cat\n")
    with pytest.raises(ExpungeError, match=r"data/test\.csv, more\.csv; choose one as some/prompts:FILE"):
        located("some/prompts", READERS, "dataset")
    assert located("some/prompts:more.csv", READERS, "dataset") == snapshot / "more.csv"
    with pytest.raises(ExpungeError, match="cannot have the dataset 'no/where'"):
        located("no/where", READERS, "dataset")
    assert located("some/file.csv", READERS, "dataset") == Path("some/file.csv"), "a path, though there is no such file"
