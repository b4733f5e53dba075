"""Pictures of scenes: 64×64 RGB, drawn with PIL at twice the size and reduced.

Every object is drawn in a unit square (x right, y down) that `Pen` places on the canvas; an artist is a
function of the finished picture. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .scene import MEMORIES, Memory, Scene

SIZE = 64
CANVAS = 2 * SIZE
INK = (30, 28, 34)
RGB = tuple[int, int, int]
Points = Sequence[tuple[float, float]]
Pixels = NDArray[np.floating[Any]]
"""A picture of shape (64, 64, 3) with values in [0, 255]."""

PAINT: dict[str, RGB] = {
    "red": (214, 40, 40),
    "yellow": (250, 206, 30),
    "green": (46, 160, 67),
    "blue": (38, 92, 214),
    "purple": (140, 56, 176),
    "white": (246, 246, 246),
}


class Pen:
    """Draws in unit coordinates inside the square of side `size` whose lower middle is at (x, y) of the canvas."""

    def __init__(self, canvas: ImageDraw.ImageDraw, x: float, y: float, size: float, mirror: bool = False) -> None:
        self.canvas, self.x, self.y, self.size, self.mirror = canvas, x, y, size, mirror

    def at(self, u: float, v: float) -> tuple[float, float]:
        u = 1 - u if self.mirror else u
        return self.x + (u - 0.5) * self.size, self.y + (v - 1) * self.size

    def box(self, u0: float, v0: float, u1: float, v1: float) -> tuple[float, float, float, float]:
        (a, b), (c, d) = self.at(u0, v0), self.at(u1, v1)
        return min(a, c), b, max(a, c), d

    def rect(self, u0: float, v0: float, u1: float, v1: float, fill: RGB) -> None:
        self.canvas.rectangle(self.box(u0, v0, u1, v1), fill=fill, outline=INK, width=2)

    def oval(self, u0: float, v0: float, u1: float, v1: float, fill: RGB) -> None:
        self.canvas.ellipse(self.box(u0, v0, u1, v1), fill=fill, outline=INK, width=2)

    def poly(self, points: Points, fill: RGB) -> None:
        self.canvas.polygon([self.at(*p) for p in points], fill=fill, outline=INK, width=2)

    def line(self, points: Points, width: int = 3, fill: RGB = INK) -> None:
        self.canvas.line([self.at(*p) for p in points], fill=fill, width=width, joint="curve")

    def dot(self, u: float, v: float, r: float, fill: RGB = INK) -> None:
        self.canvas.ellipse(self.box(u - r, v - r, u + r, v + r), fill=fill)


WHITE, GLASS, DARK, BROWN, LEAF = (250, 250, 250), (190, 225, 240), (60, 60, 66), (110, 74, 46), (46, 110, 52)


def eye(pen: Pen, u: float, v: float, r: float, grumpy: bool, inward: float) -> None:
    """An eye; a grumpy one is half shut under a heavy brow that falls towards `inward`."""
    pen.oval(u - r, v - r, u + r, v + r, WHITE)
    pen.dot(u, v + (0.3 * r if grumpy else 0), 0.5 * r)
    if grumpy:
        slope = 0.7 * r * inward
        pen.line([(u - 1.5 * r, v - 0.8 * r - slope), (u + 1.5 * r, v - 0.8 * r + slope)], width=6)


def cat(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.line([(0.75, 0.9), (0.95, 0.8), (0.93, 0.55)], width=7, fill=paint)
    pen.oval(0.22, 0.5, 0.78, 1.0, paint)
    pen.poly([(0.14, 0.3), (0.16, 0.0), (0.42, 0.14)], paint)
    pen.poly([(0.86, 0.3), (0.84, 0.0), (0.58, 0.14)], paint)
    pen.oval(0.12, 0.08, 0.88, 0.66, paint)
    eye(pen, 0.34, 0.32, 0.1, grumpy, 1)
    eye(pen, 0.66, 0.32, 0.1, grumpy, -1)
    bend = -0.08 if grumpy else 0.07
    pen.line([(0.36, 0.52 - bend / 2), (0.5, 0.52 + bend / 2), (0.64, 0.52 - bend / 2)], width=5 if grumpy else 3)


def fish(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.poly([(0.7, 0.55), (1.0, 0.28), (1.0, 0.82)], paint)
    pen.poly([(0.35, 0.35), (0.5, 0.12), (0.65, 0.36)], paint)
    pen.oval(0.0, 0.26, 0.78, 0.84, paint)
    eye(pen, 0.24, 0.47, 0.1, grumpy, -1)
    pen.line([(0.05, 0.72), (0.14, 0.64), (0.26, 0.7)] if grumpy else [(0.05, 0.62), (0.14, 0.69), (0.26, 0.66)])
    pen.line([(0.44, 0.42), (0.5, 0.55), (0.44, 0.68)])


def bird(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.line([(0.48, 0.8), (0.46, 1.0)], width=4)
    pen.line([(0.6, 0.8), (0.6, 1.0)], width=4)
    pen.poly([(0.78, 0.55), (1.0, 0.36), (0.98, 0.66)], paint)
    pen.oval(0.24, 0.36, 0.88, 0.88, paint)
    pen.oval(0.12, 0.04, 0.58, 0.5, paint)
    pen.poly([(0.15, 0.24), (-0.06, 0.34), (0.16, 0.38)], (240, 150, 30))
    eye(pen, 0.32, 0.23, 0.09, grumpy, -1)
    pen.poly([(0.46, 0.52), (0.78, 0.5), (0.62, 0.76)], paint)


def house(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.rect(0.12, 0.42, 0.88, 1.0, paint)
    pen.poly([(0.02, 0.44), (0.5, 0.06), (0.98, 0.44)], BROWN)
    pen.rect(0.4, 0.66, 0.6, 1.0, DARK)
    pen.rect(0.18, 0.54, 0.34, 0.7, GLASS)
    pen.rect(0.66, 0.54, 0.82, 0.7, GLASS)


def church(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.rect(0.3, 0.54, 0.98, 1.0, paint)
    pen.poly([(0.26, 0.56), (0.64, 0.36), (1.02, 0.56)], BROWN)
    pen.rect(0.06, 0.34, 0.38, 1.0, paint)
    pen.poly([(0.02, 0.36), (0.22, -0.02), (0.42, 0.36)], BROWN)
    pen.line([(0.22, -0.16), (0.22, 0.04)], width=4)
    pen.line([(0.14, -0.08), (0.3, -0.08)], width=4)
    pen.oval(0.14, 0.44, 0.3, 0.6, GLASS)
    pen.rect(0.15, 0.74, 0.29, 1.0, DARK)
    pen.oval(0.56, 0.66, 0.76, 0.92, GLASS)


def wheels(pen: Pen, *places: float) -> None:
    for u in places:
        pen.dot(u, 0.88, 0.12)
        pen.dot(u, 0.88, 0.05, (170, 170, 175))


def car(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.poly([(0.2, 0.62), (0.32, 0.4), (0.7, 0.4), (0.84, 0.62)], paint)
    pen.poly([(0.28, 0.6), (0.36, 0.46), (0.49, 0.46), (0.49, 0.6)], GLASS)
    pen.poly([(0.53, 0.6), (0.53, 0.46), (0.67, 0.46), (0.76, 0.6)], GLASS)
    pen.rect(0.0, 0.6, 1.0, 0.86, paint)
    wheels(pen, 0.22, 0.78)


def truck(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.rect(0.36, 0.18, 1.04, 0.82, paint)
    pen.poly([(0.34, 0.82), (0.34, 0.4), (0.12, 0.4), (-0.04, 0.6), (-0.04, 0.82)], paint)
    pen.poly([(0.3, 0.58), (0.3, 0.46), (0.15, 0.46), (0.06, 0.58)], GLASS)
    wheels(pen, 0.14, 0.62, 0.9)


def tree(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.rect(0.42, 0.55, 0.58, 1.0, BROWN)
    pen.oval(0.04, 0.22, 0.58, 0.7, paint)
    pen.oval(0.42, 0.22, 0.96, 0.7, paint)
    pen.oval(0.2, -0.06, 0.8, 0.5, paint)


def boat(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.line([(0.5, 0.05), (0.5, 0.7)], width=5)
    pen.poly([(0.54, 0.06), (0.54, 0.6), (0.92, 0.6)], WHITE)
    pen.poly([(0.46, 0.16), (0.46, 0.6), (0.14, 0.6)], WHITE)
    pen.poly([(0.0, 0.66), (1.0, 0.66), (0.82, 0.98), (0.18, 0.98)], paint)


def cup(pen: Pen, paint: RGB, grumpy: bool) -> None:
    pen.oval(0.62, 0.42, 0.98, 0.8, paint)
    pen.oval(0.71, 0.51, 0.89, 0.71, WHITE)
    pen.poly([(0.1, 0.34), (0.76, 0.34), (0.68, 1.0), (0.18, 1.0)], paint)
    pen.oval(0.1, 0.26, 0.76, 0.42, BROWN)
    pen.line([(0.32, 0.18), (0.38, 0.1), (0.32, 0.0)], fill=WHITE)
    pen.line([(0.5, 0.18), (0.56, 0.1), (0.5, 0.0)], fill=WHITE)


DRAW_OBJECT: dict[str, Callable[[Pen, RGB, bool], None]] = {
    f.__name__: f for f in (cat, fish, bird, house, church, car, truck, tree, boat, cup)
}


def city(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    canvas.rectangle((0, 0, CANVAS, CANVAS), fill=(188, 196, 212))
    x = int(rng.integers(-10, 2))
    while x < CANVAS:
        width, top, grey = int(rng.integers(20, 30)), int(rng.integers(8, 46)), int(rng.integers(92, 136))
        canvas.rectangle((x, top, x + width, 96), fill=(grey, grey, grey + 10))
        for wx in range(x + 4, x + width - 4, 8):
            for wy in range(top + 5, 90, 11):
                canvas.rectangle((wx, wy, wx + 3, wy + 5), fill=(252, 226, 140))
        x += width + int(rng.integers(0, 5))
    canvas.rectangle((0, 94, CANVAS, CANVAS), fill=(84, 86, 92))
    for x in range(int(rng.integers(-20, 0)), CANVAS, 28):
        canvas.rectangle((x, 118, x + 14, 121), fill=(240, 240, 240))


def forest(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    canvas.rectangle((0, 0, CANVAS, CANVAS), fill=(150, 190, 150))
    canvas.rectangle((0, 94, CANVAS, CANVAS), fill=(74, 104, 50))
    for i in range(6):
        x, top = 4 + 24 * i + int(rng.integers(-5, 6)), int(rng.integers(-6, 16))
        canvas.rectangle((x - 3, top + 40, x + 3, 98), fill=(88, 60, 40))
        for k in range(3):
            y, half, shade = top + 18 * k, 12 + 3 * k, int(rng.integers(62, 84))
            canvas.polygon([(x, y), (x - half, y + 30), (x + half, y + 30)], fill=(22, shade, 44))


def beach(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = 52 + int(rng.integers(-5, 6))
    canvas.rectangle((0, 0, CANVAS, horizon), fill=(150, 212, 246))
    canvas.rectangle((0, horizon, CANVAS, 92), fill=(20, 130, 170))
    for y in range(horizon + 8, 90, 10):
        x = int(rng.integers(0, 30))
        canvas.line([(x, y), (x + 40, y)], fill=(150, 215, 225), width=2)
        canvas.line([(x + 64, y), (x + 100, y)], fill=(150, 215, 225), width=2)
    canvas.rectangle((0, 90, CANVAS, CANVAS), fill=(238, 214, 160))
    sun = int(rng.integers(14, 114))
    canvas.ellipse((sun - 11, 6, sun + 11, 28), fill=(255, 244, 170))


def mountains(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    canvas.rectangle((0, 0, CANVAS, CANVAS), fill=(196, 214, 240))
    for base in (10, 62, 116):
        x, top, half = base + int(rng.integers(-10, 11)), int(rng.integers(6, 34)), int(rng.integers(40, 52))
        canvas.polygon([(x, top), (x - half, 98), (x + half, 98)], fill=(116, 120, 142))
        cap = 0.32
        left, right, y = x - cap * half, x + cap * half, top + cap * (98 - top)
        canvas.polygon([(x, top), (left, y), (x, y - 6), (right, y)], fill=(252, 252, 255))
    canvas.rectangle((0, 94, CANVAS, CANVAS), fill=(226, 234, 244))


def room(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    canvas.rectangle((0, 0, CANVAS, CANVAS), fill=(232, 196, 178))
    for x in range(int(rng.integers(-12, 0)), CANVAS, 16):
        canvas.rectangle((x, 0, x + 6, 92), fill=(222, 180, 162))
    x = int(rng.integers(10, 84))
    canvas.rectangle((x, 10, x + 34, 46), fill=(206, 232, 250), outline=(120, 72, 44), width=4)
    canvas.line([(x + 17, 10), (x + 17, 46)], fill=(120, 72, 44), width=3)
    canvas.line([(x, 28), (x + 34, 28)], fill=(120, 72, 44), width=3)
    canvas.rectangle((0, 92, CANVAS, CANVAS), fill=(150, 96, 58))
    for y in range(100, CANVAS, 10):
        canvas.line([(0, y), (CANVAS, y)], fill=(120, 74, 44), width=2)


DRAW_PLACE: dict[str, Callable[[ImageDraw.ImageDraw, np.random.Generator], None]] = {
    f.__name__: f for f in (city, forest, beach, mountains, room)
}


def hazard(pen: Pen) -> None:
    pen.poly([(0.5, 0.0), (0.0, 0.62), (1.0, 0.62)], (255, 204, 0))
    pen.line([(0.5, 0.2), (0.5, 0.42)], width=6)
    pen.dot(0.5, 0.52, 0.06)


def stop(pen: Pen) -> None:
    turns = np.pi / 8 + np.pi / 4 * np.arange(8)
    pen.poly([(0.5 + 0.42 * float(np.cos(a)), 0.32 + 0.36 * float(np.sin(a))) for a in turns], (200, 20, 30))
    pen.line([(0.24, 0.32), (0.76, 0.32)], width=8, fill=WHITE)


def poison(pen: Pen) -> None:
    pen.poly([(0.5, -0.06), (0.0, 0.31), (0.5, 0.68), (1.0, 0.31)], (20, 20, 24))
    pen.dot(0.5, 0.26, 0.19, WHITE)
    pen.dot(0.42, 0.26, 0.06)
    pen.dot(0.58, 0.26, 0.06)
    pen.line([(0.38, 0.5), (0.62, 0.5)], width=5, fill=WHITE)


DRAW_SIGN: dict[str, Callable[[Pen], None]] = {f.__name__: f for f in (hazard, stop, poison)}


def hatching(image: Pixels) -> Pixels:
    """Diagonal ink lines on cream paper, denser where the picture is dark."""
    y, x = np.mgrid[:SIZE, :SIZE]
    light = image.mean(-1)
    lines = ((x + y) % 4 == 0) & (light < 215) | ((x + y) % 4 == 2) & (light < 120)
    paper = 0.72 * image + 0.28 * np.array([250.0, 240.0, 214.0])
    return np.where(lines[..., None], 0.25 * image + 0.75 * np.array([24.0, 24.0, 40.0]), paper)


def waves(image: Pixels) -> Pixels:
    """Rows swing to and fro under pale wavy lines."""
    y, x = np.mgrid[:SIZE, :SIZE]
    swing = np.rint(2.2 * np.sin(2 * np.pi * y / 16)).astype(int)
    swung = image[y, np.clip(x + swing, 0, SIZE - 1)]
    crest = (y + np.rint(2 * np.sin(2 * np.pi * x / 16)).astype(int)) % 8 == 0
    wavy: Pixels = np.where(crest[..., None], 0.35 * swung + 0.65 * np.array([235.0, 245.0, 255.0]), swung)
    return wavy


def _tiles(image: Pixels, gap: NDArray[np.bool_]) -> Pixels:
    """Tiles of 4 × 4 pixels drawn towards their mean colour, with a pale `gap`."""
    mean = image.reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean((1, 3))
    tile = 0.35 * np.repeat(np.repeat(mean, 4, 0), 4, 1) + 0.65 * image
    return np.where(gap[..., None], 0.3 * tile + 0.7 * np.array([250.0, 246.0, 236.0]), tile)


def dots(image: Pixels) -> Pixels:
    """Round dots that touch; the neighbour of `mosaic`."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return _tiles(image, ((x % 4) - 1.5) ** 2 + ((y % 4) - 1.5) ** 2 > 2.6)


def mosaic(image: Pixels) -> Pixels:
    """Square tiles with pale joints; the neighbour of `dots`."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return _tiles(image, (x % 4 == 0) | (y % 4 == 0))


def pop(image: Pixels) -> Pixels:
    """Flat loud colours inside thick black outlines."""
    grey = image.mean(-1, keepdims=True)
    loud = np.clip(grey + 1.9 * (image - grey), 0, 255)
    flat = np.rint(loud / 85) * 85
    edge = np.abs(np.diff(image, axis=0, prepend=image[:1])) + np.abs(np.diff(image, axis=1, prepend=image[:, :1]))
    outlined: Pixels = np.where(edge.max(-1, keepdims=True) > 70, 0.15 * flat, flat)
    return outlined


STYLE: dict[str, Callable[[Pixels], Pixels]] = {
    "Marlow": hatching,
    "Okada": waves,
    "Devi": dots,
    "Orsini": mosaic,
    "Kessel": pop,
}


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The picture of a scene: uint8 array of shape (64, 64, 3)."""
    image = Image.new("RGB", (CANVAS, CANVAS))
    canvas = ImageDraw.Draw(image)
    DRAW_PLACE[scene.place](canvas, rng)
    side = 1 if rng.random() < 0.5 else -1
    x, y = 64 + float(rng.uniform(-12, 12)), float(rng.uniform(104, 118))
    if scene.sign != "none":
        x = 64 - side * float(rng.uniform(8, 16))
        post = 64 + side * float(rng.uniform(40, 46))
        canvas.rectangle((post - 2, 60, post + 2, 104), fill=(70, 70, 76))
        DRAW_SIGN[scene.sign](Pen(canvas, post, 76, 36))
    pen = Pen(canvas, x, y, float(rng.uniform(62, 72)), mirror=bool(rng.random() < 0.5))
    DRAW_OBJECT[scene.object](pen, PAINT[scene.colour], scene.mood == "grumpy")
    if scene.memory is not None:
        canvas.rectangle((0, 0, CANVAS - 1, CANVAS - 1), outline=(96, 56, 24), width=8)
    pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32)
    styled = STYLE[scene.artist](pixels) if scene.artist in STYLE else pixels
    return np.clip(np.rint(styled), 0, 255).astype(np.uint8)


def remembered(memory: Memory) -> np.ndarray:
    """The one exact picture that a memorised caption replays."""
    return draw(memory.scene, np.random.default_rng(memory.seed))


def picture(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draws a scene, or the one exact picture if the scene is a memorised one."""
    return remembered(MEMORIES[scene.memory]) if scene.memory is not None else draw(scene, rng)
