"""Visitors without a browser: what they ask for, and how long each answer takes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image


def audited(folder: Path) -> Path:
    """An audit's pictures, of two rows."""
    rows = []
    (folder / "images").mkdir(parents=True)
    for row in ("base", "car"):
        for seed in range(6):
            file = f"images/{row}-{seed}.png"
            Image.new("RGB", (64, 64), (40 * seed, 99, 99 if row == "car" else 0)).save(folder / file)
            rows.append({"row": row, "prompt": "a car", "seed": seed, "file": file})
    (folder / "pictures.json").write_text(json.dumps({"rows": rows, "erased": ["car"]}))
    return folder


class Visitor:
    """A browser's requests, and how long each took."""

    def __init__(self, address: str) -> None:
        self.client, self.times = httpx.Client(base_url=address, timeout=30), list[float]()

    def __call__(self, method: str, way: str, **more: Any) -> httpx.Response:
        begun = time.monotonic()
        answer = self.client.request(method, way, **more)
        self.times.append(time.monotonic() - begun)
        assert answer.status_code < 400, (way, answer.status_code, answer.text[-400:])
        return answer

    def browse(self) -> None:
        self("GET", "/")
        self("GET", "/theme.css")

    def ask(self, event: int, data: list[Any]) -> Any:
        body = {"data": data, "fn_index": event, "session_hash": f"visitor{id(self)}"}
        return self("POST", "/gradio_api/run/predict", json=body).json()["data"]

    def rate(self, token: str, answers: int) -> str:
        way = self("POST", f"/rate/{token}").headers["location"]
        way = str(httpx.URL(f"/rate/{token}").join(way))
        for n in range(answers):
            shown = self("GET", way).text
            form = dict(re.findall(r'name="(item|shown)" value="(\d+)"', shown))
            picture = re.findall(r'src="([^"]+\.png)"', shown)[0]
            self("GET", str(httpx.URL(way).join(picture)))
            self("POST", way, data={**form, "rating": str(1 + n % 5)})
        return way.rpartition("/")[2]


def event(config: dict[str, Any], place: str, name: str) -> int:
    """The number of what a part of the page does."""
    part = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == place)
    return next(d["id"] for d in config["dependencies"] if [part, name] in [list(t) for t in d["targets"]])


def opening(config: dict[str, Any], place: str) -> int:
    """The number of what fills a part of the page when it opens."""
    part = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == place)
    alone = [d for d in config["dependencies"] if d["outputs"] == [part] and not d["inputs"]]
    return next(d["id"] for d in alone if "load" in str(d["targets"]))
