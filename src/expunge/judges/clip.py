"""CLIP (Radford et al. 2021, arXiv 2103.00020): zero-shot classes, and features of pictures and texts.

    P(label | picture) = softmax over labels of τ cos(picture, text of the label),   τ the model's own temperature

A label may hold tokens learned by textual inversion (Gal et al. 2022), as SDD judged styles: `tokens` maps each to the
safetensors file of its embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..errors import ExpungeError
from ..files import hash_file, read_tensors
from ..judge import Judge, Reader, Verdict
from ..vision import Look, hashed, look_of, opened


class Clip(Judge, Reader):
    kind: ClassVar[str] = "clip"
    about: ClassVar[str] = "CLIP's nearest label among those given"

    model: str = Field("smallworld", description="the small world's own, a folder, or a hub id")
    labels: tuple[str, ...] = Field((), description="what a picture may show")
    template: str = Field("{}", description="how a label is said, with {} for it")
    tokens: dict[str, str] = Field({}, description="learned tokens: a placeholder, and the file of its embedding")

    @cached_property
    def network(self) -> Any:
        found = opened("CLIPModel", self.model, "the CLIP model")
        if self.tokens:
            found = deepcopy(found)
            self._learn(found)
        return found

    @cached_property
    def tokenizer(self) -> Any:
        found = opened("CLIPTokenizer", self.model, "the tokenizer of")
        return deepcopy(found) if self.tokens else found

    @cached_property
    def prepared(self) -> Look:
        return look_of(self.model, self.network.config.vision_config.image_size)

    def _learn(self, network: Any) -> None:
        """Adds the learned tokens to tokenizer and table."""
        for token, file in self.tokens.items():
            vector = next(iter(read_tensors(Path(file))[0].values())).reshape(-1)
            width = network.config.text_config.hidden_size
            if len(vector) != width:
                raise ExpungeError(f"{file} holds a token of width {len(vector)}; {self.model!r} reads {width}")
            if self.tokenizer.add_tokens([token]) != 1:
                raise ExpungeError(
                    f"the token {token!r} is in the vocabulary already; give the learned one another name"
                )
            network.text_model.eos_token_id = self.tokenizer.eos_token_id  # else the text is read at the highest id
            table = network.text_model.embeddings.token_embedding
            rows = torch.cat([table.weight, vector.float()[None]])
            network.text_model.embeddings.token_embedding = torch.nn.Embedding(len(rows), width, _weight=rows)

    def version(self) -> str:
        return " ".join([hashed(self.network), *(hash_file(Path(f)) for f in self.tokens.values())])

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        network = self.network.to(images.device)
        found: Tensor = network.get_image_features(self.prepared(images)).pooler_output
        return F.normalize(found.float(), dim=-1)

    @torch.no_grad()
    def layers(self, images: Tensor) -> Sequence[Tensor]:
        """Hidden states of the picture's patches."""
        network = self.network.to(images.device)
        states = network.vision_model(self.prepared(images), output_hidden_states=True).hidden_states[1:]
        side = round((states[0].shape[1] - 1) ** 0.5)
        return [h[:, 1:].mT.unflatten(2, (side, side)) for h in states]

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, d)."""
        network = self.network
        length = network.config.text_config.max_position_embeddings
        ids = self.tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        found: Tensor = network.get_text_features(input_ids=ids.input_ids.to(network.device)).pooler_output
        return F.normalize(found.float(), dim=-1)

    def look(self, images: Tensor) -> list[Verdict]:
        """The best label ("class"), and the probability of each."""
        if len(self.labels) < 2:
            raise ExpungeError("the judge clip chooses among labels: give it two or more")
        features = self.features(images)
        texts = self.texts([self.template.replace("{}", label) for label in self.labels])
        chances = (self.network.logit_scale.exp() * features @ texts.T).softmax(1).tolist()
        rows = [dict(zip(self.labels, row, strict=True)) for row in chances]
        return [{"class": max(row, key=row.__getitem__), **row} for row in rows]
