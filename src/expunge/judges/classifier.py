"""Image classifier: any of transformers' image-classification models, such as ResNet-50 on ImageNet."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..judge import Judge, Verdict
from ..vision import Look, hashed, look_of, opened


class Classifier(Judge):
    kind: ClassVar[str] = "classifier"
    about: ClassVar[str] = "the class of any of transformers' image classifiers"

    model: str = Field("microsoft/resnet-50", description="a folder or a hub id")
    side: int = Field(224, ge=1, description="pixels of a side as the model sees it")

    @cached_property
    def network(self) -> Any:
        return opened("AutoModelForImageClassification", self.model, "the image classifier")

    @cached_property
    def prepared(self) -> Look:
        return look_of(self.model, self.side)

    def version(self) -> str:
        return hashed(self.network)

    @torch.no_grad()
    def look(self, images: Tensor) -> list[Verdict]:
        """The likeliest class (the first of its names) and its probability."""
        logits = self.network.to(images.device)(self.prepared(images)).logits
        best = logits.softmax(1).max(1)
        names = [self.network.config.id2label[i].split(",")[0] for i in best.indices.tolist()]
        return [{"class": n, "probability": p} for n, p in zip(names, best.values.tolist(), strict=True)]
