"""What closed forms and attention re-steering have to work with: the small world's text embeddings.

    python benchmarks/texts.py

First the cosine between names' embeddings (of their last tokens, as UCE reads them) and their squared norm beside UCE's
λ; then the share of the picture's attention that falls on each part of a prompt.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from expunge.families import load
from expunge.methods.forget_me_not import attention_maps
from expunge.methods.uce import UCE
from expunge.model import Model

NAMES = ("car", "truck", "house", "church", "cat", "Marlow", "Orsini", "Kessel", "hazard sign")
PROMPTS = ("car", "a red car in the city")


def embeddings(model: Model) -> torch.Tensor:
    """(names, d)."""
    return torch.cat([UCE()._rows(model, "text", name) for name in NAMES], 1).T


@torch.no_grad()
def attention(model: Model, prompt: str, name: str) -> dict[str, float]:
    """Shares of the start token, the name's own, the rest of the prompt, and all after it."""
    n = len(model.pipeline.tokenizer(prompt).input_ids)
    with attention_maps(model, model.positions) as maps:
        noise = model.noise(4, torch.Generator().manual_seed(0))
        model.predict(noise, torch.tensor([900, 700, 500, 300]), model.encode([prompt]).repeat(4))
    share = torch.stack([m.mean((0, 1, 2)) for m in maps]).mean(0)
    ids = model.pipeline.tokenizer(prompt).input_ids
    word = ids.index(model.pipeline.tokenizer(name).input_ids[1])
    own, after = float(share[word]), float(share[n - 1 :].sum())
    return {"start": float(share[0]), name: own, "other words": float(share[1 : n - 1].sum()) - own, "after": after}


def main() -> None:
    model = load("smallworld", device="cpu", precision="fp32")
    rows = embeddings(model)
    cosines = F.normalize(rows) @ F.normalize(rows).T
    others = cosines[~torch.eye(len(NAMES), dtype=torch.bool)]
    print(f"squared norm {rows.square().sum(1).mean():.0f}, λ {UCE().ridge}; width {rows.shape[1]}")
    print(f"cosine of two names: mean {others.mean():.2f}, largest {others.max():.2f}")
    print("of car and", ", ".join(f"{n} {c:.2f}" for n, c in zip(NAMES[1:], cosines[0, 1:].tolist(), strict=True)))
    for prompt in PROMPTS:
        print(f"{prompt!r}:", ", ".join(f"{k} {v:.0%}" for k, v in attention(model, prompt, "car").items()))


if __name__ == "__main__":
    main()
