"""UCE, unified concept editing (Gandikota et al. 2024, arXiv 2308.14761); RECE on top (Gong et al. 2024, 2407.12383).

    W = argmin  λ ‖W − W₀‖² + α_e Σ ‖W c − W₀ g‖² + α_p Σ ‖W k − W₀ k‖²
      = W₀ (λ I + α_e Σ g cᵀ + α_p Σ k kᵀ) (λ I + α_e Σ c cᵀ + α_p Σ k kᵀ)⁻¹  =  W₀ P

for every matrix W₀ that reads the text's embedding: keys and values of cross-attention; in transformers of joint
attention the two through which the text enters. c are text embeddings of the concept, g of what takes its place (the
concept's anchor; without one, `guide`), k of what must stay. P is the same for every W₀ that reads the same embedding
(of tokens, or pooled), so hundreds of concepts are one solve of a d × d system, in fp64.

RECE then looks, `rounds` times, for the embedding c' that the edited projections still turn into the concept,

    c' = (λ' I + Σ_W WᵀW)⁻¹ Σ_W WᵀW₀ c,

and erases it in the same way: W ← W P', with c' for c and the first round's g.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..concept import Concept
from ..edit import Edit
from ..errors import ExpungeError
from ..method import Method, scoped, stamp
from ..model import Model
from ..training import OnStep


class UCE(Method):
    """Edit the key and value projections in closed form: no sampling, no gradient."""

    kind: ClassVar[str] = "uce"
    anchors = True

    scope: str = Field("reads-text", description="projections of the text: a name from `expunge scopes`, or re:REGEX")
    guide: str = Field("", description="what takes the place of a concept without an anchor")
    erase_weight: float = Field(1.0, gt=0, description="α_e, weight of the concepts")
    keep: tuple[str, ...] = Field((), description="texts whose projections must stay")
    keep_weight: float = Field(1.0, ge=0, description="α_p, weight of the texts to keep")
    ridge: float = Field(0.5, gt=0, description="λ, weight of the old projections")
    tokens: Literal["last", "rest"] = Field("last", description="last token of the subject, or all from there on")
    rounds: int = Field(0, ge=0, description="rounds of RECE against embeddings that still bring the concept")
    rece_ridge: float = Field(0.1, gt=0, description="λ', how near the origin those embeddings are")

    def fit(
        self,
        model: Model,
        concepts: Sequence[Concept],
        *,
        seed: int = 0,
        name: str = "edit",
        snapshot: Path | None = None,  # noqa: ARG002
        on_step: OnStep | None = None,  # noqa: ARG002
        marks: Mapping[int, Path] | None = None,  # noqa: ARG002
    ) -> Edit:
        """Erases `concepts` from `model` in one solve; there is nothing to resume and no step to call on."""
        self.check(model, concepts)
        start = time.monotonic()
        delta: dict[str, Tensor] = {}
        for source, base in self._projections(model).items():
            pairs = [self._pair(model, source, c.name, c.anchor or self.guide) for c in concepts]
            c, g = (torch.cat([pair[i] for pair in pairs], 1) for i in (0, 1))
            k = torch.cat([g[:, :0], *(self._rows(model, source, text) for text in self.keep)], 1)
            edited = self._solve(base, c, g, k)
            delta |= {n: (edited[n] - w).float().cpu() for n, w in base.items()}
        cost = {"passes": 0, "calls": 0, "seconds": round(time.monotonic() - start, 3)}
        return Edit(delta, self.describe(model, concepts, seed) | stamp() | {"cost": cost}, name)

    def check(self, model: Model, concepts: Sequence[Concept]) -> None:
        super().check(model, concepts)
        self._projections(model)

    def _projections(self, model: Model) -> dict[str, dict[str, Tensor]]:
        """The scope's matrices in fp64 by what they read. Raises ExpungeError if one of them does not read the text."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, weight in scoped(model, self.scope).items():
            source = next((source for part, source in model.layout.reads.items() if part in name), None)
            if source is None or weight.ndim != 2:
                raise ExpungeError(f"{name} is no matrix that reads the text's embedding; use scope reads-text")
            found.setdefault(source, {})[name] = weight.detach().cpu().double()
        return found

    def _pair(self, model: Model, source: str, text: str, guide: str) -> tuple[Tensor, Tensor]:
        """Embeddings c and g as the columns of two (d, n) matrices: as many of each encoder's as both have."""
        both = [*zip(self._spans(model, source, text), self._spans(model, source, guide), strict=True)]
        sizes = [min(c.shape[1], g.shape[1]) for c, g in both]
        c, g = (torch.cat([pair[i][:, :n] for pair, n in zip(both, sizes, strict=True)], 1) for i in (0, 1))
        return c, g

    def _rows(self, model: Model, source: str, text: str) -> Tensor:
        """The text's embeddings as columns."""
        return torch.cat(self._spans(model, source, text), 1)

    def _spans(self, model: Model, source: str, text: str) -> list[Tensor]:
        """The same for each encoder."""
        states = model.encode([text]).tensors[source][0].cpu().double()
        if states.ndim == 1:
            return [states[:, None]]
        ends = [(s.last, s.last + 1 if self.tokens == "last" else s.end) for s in model.spans(text)]
        return [states[last:end].T for last, end in ends]

    def _solve(self, base: Mapping[str, Tensor], c: Tensor, g: Tensor, k: Tensor) -> dict[str, Tensor]:
        eye = torch.eye(len(c), dtype=c.dtype, device=c.device)
        held = self.ridge * eye + self.keep_weight * k @ k.T
        edited, also = dict(base), c
        for round_ in range(self.rounds + 1):
            factor = self._factor(held, also, g)
            edited = {name: w @ factor for name, w in edited.items()}
            also = self._found(edited, base, c) if round_ < self.rounds else also
        return edited

    def _factor(self, held: Tensor, c: Tensor, g: Tensor) -> Tensor:
        """P = (H + α_e g cᵀ)(H + α_e c cᵀ)⁻¹, where H is what holds the old projections."""
        right, left = held + self.erase_weight * c @ c.T, held + self.erase_weight * g @ c.T
        solved: Tensor = torch.linalg.solve(right, left, left=False)
        return solved

    def _found(self, edited: Mapping[str, Tensor], base: Mapping[str, Tensor], c: Tensor) -> Tensor:
        """RECE's c': the texts that the edited projections take for the concepts."""
        eye = torch.eye(len(c), dtype=c.dtype, device=c.device)
        normal = self.rece_ridge * eye + sum(w.T @ w for w in edited.values())
        aim = torch.stack([w.T @ (base[name] @ c) for name, w in edited.items()]).sum(0)
        solved: Tensor = torch.linalg.solve(normal, aim)
        return solved
