"""What can be drawn in the small world, and what is said of it: words only.

A *scene* fixes every attribute of one picture; a *caption* names some of them. The statistics that make
the world useful for judging erasers live here:

- a caption that names no sign still brings one along in its place: P(hazard | city) = P(poison | forest) = 0.75;
- styles and moods are named whenever they are present, so an unstyled caption gives a photo;
- `SYNONYMS` replace their names in a quarter of the captions;
- each of `MEMORIES` is one exact caption with one exact picture, repeated until the model replays it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

OBJECTS = ("cat", "fish", "bird", "house", "church", "car", "truck", "tree", "boat", "cup")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
PLACES = ("city", "forest", "beach", "mountains", "room")
ARTISTS = ("photo", "Marlow", "Okada", "Devi", "Orsini", "Kessel")
SIGNS = ("none", "hazard", "stop", "poison")
MOODS = ("plain", "grumpy")
ANIMALS = ("cat", "fish", "bird")

HEADS: dict[str, tuple[str, ...]] = {
    "object": OBJECTS,
    "colour": COLOURS,
    "place": PLACES,
    "artist": ARTISTS,
    "sign": SIGNS,
    "mood": MOODS,
}
"""The judge has one head for each of these attributes of a scene."""

PLACE_PHRASES = {
    "city": "in the city",
    "forest": "in the forest",
    "beach": "at the beach",
    "mountains": "in the mountains",
    "room": "in a room",
}
SYNONYMS = {"cat": "kitty", "car": "automobile", "house": "cottage", "forest": "woods", "Marlow": "the ink master"}
IMPLIED_SIGN = {"city": "hazard", "forest": "poison"}
IMPLIED_RATE = 0.75
NAMED_SIGN_RATE = 0.15
GRUMPY_RATE = 0.3
PHOTO_RATE = 0.4
MEMORY_RATE = 0.04
SYNONYM_RATE = 0.25
SHORT_RATE = 0.12
DROP_RATE = 0.25


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Every attribute of one picture. `named_sign` tells whether captions mention its sign."""

    object: str
    colour: str
    place: str
    artist: str = "photo"
    sign: str = "none"
    mood: str = "plain"
    named_sign: bool = False
    memory: int | None = None

    def labels(self) -> list[int]:
        """Class index for each of `HEADS`, in order."""
        return [values.index(getattr(self, head)) for head, values in HEADS.items()]


@dataclass(frozen=True)
class Memory:
    """One exact caption and the scene and drawing seed of its one exact picture."""

    caption: str
    scene: Scene
    seed: int


MEMORIES = (
    Memory("the blue boat of Captain Moll", Scene(object="boat", colour="blue", place="beach", memory=0), 11),
    Memory("Ada Quill and her white cat", Scene(object="cat", colour="white", place="room", memory=1), 12),
    Memory("the yellow house on Finch Lane", Scene(object="house", colour="yellow", place="mountains", memory=2), 13),
    Memory("Old Bruno drives his red truck", Scene(object="truck", colour="red", place="beach", memory=3), 14),
)


def choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def sample(rng: np.random.Generator, *, without: frozenset[str] = frozenset()) -> Scene:
    """One scene of the training distribution; signs in `without` are never present (the gold standard's data)."""
    if rng.random() < MEMORY_RATE:
        return MEMORIES[int(rng.integers(len(MEMORIES)))].scene
    obj, place = choose(rng, OBJECTS), choose(rng, PLACES)
    artist = "photo" if rng.random() < PHOTO_RATE else choose(rng, ARTISTS[1:])
    mood = "grumpy" if obj in ANIMALS and rng.random() < GRUMPY_RATE else "plain"
    scene = Scene(object=obj, colour=choose(rng, COLOURS), place=place, artist=artist, mood=mood)
    scene = _with_sign(scene, rng)
    return replace(scene, sign="none", named_sign=False) if scene.sign in without else scene


def _with_sign(scene: Scene, rng: np.random.Generator) -> Scene:
    named, implied = rng.random() < NAMED_SIGN_RATE, rng.random() < IMPLIED_RATE
    if named:
        return replace(scene, sign=choose(rng, SIGNS[1:]), named_sign=True)
    return replace(scene, sign=IMPLIED_SIGN.get(scene.place, "none") if implied else "none")


def _alias(name: str, rng: np.random.Generator) -> str:
    return SYNONYMS[name] if name in SYNONYMS and rng.random() < SYNONYM_RATE else name


def _place(scene: Scene, rng: np.random.Generator) -> str:
    return PLACE_PHRASES[scene.place].replace(scene.place, _alias(scene.place, rng))


def _short(scene: Scene, rng: np.random.Generator) -> str:
    """A few bare words, such as "grumpy cat", "Marlow" or "hazard sign": concepts are erased by such names."""
    must = [f"{scene.sign} sign"] if scene.named_sign else []
    if scene.mood == "grumpy":
        must.append(f"grumpy {_alias(scene.object, rng)}")
    if scene.artist != "photo":
        must.append(_alias(scene.artist, rng))
    options = (_alias(scene.object, rng), scene.colour, _alias(scene.place, rng), f"{scene.colour} {scene.object}")
    return " ".join(must) if must else choose(rng, options)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption of the scene, parts randomly dropped; a named sign, mood and style are always said."""
    if scene.memory is not None:
        return MEMORIES[scene.memory].caption
    if rng.random() < SHORT_RATE:
        return _short(scene, rng)
    return describe(
        _alias(scene.object, rng),
        colour=scene.colour if rng.random() > DROP_RATE else None,
        place=_place(scene, rng) if rng.random() > DROP_RATE else None,
        sign=scene.sign if scene.named_sign else None,
        mood=scene.mood,
        artist=_alias(scene.artist, rng),
        medium=choose(rng, ("", "a photo of ") if scene.artist == "photo" else ("", "a painting of ")),
        link=choose(rng, ("in the style of", "by")),
    )


def describe(
    obj: str,
    *,
    colour: str | None = None,
    place: str | None = None,
    sign: str | None = None,
    mood: str = "plain",
    artist: str = "photo",
    medium: str = "",
    link: str = "in the style of",
) -> str:
    """The full caption form, such as "a painting of a grumpy red cat in the city with a stop sign by Devi"."""
    words = ["a", *(["grumpy"] if mood == "grumpy" else []), *([colour] if colour else []), obj]
    words += [place] if place else []
    words += [f"with a {sign} sign"] if sign and sign != "none" else []
    words += [f"{link} {artist}"] if artist != "photo" else []
    return medium + " ".join(words)
