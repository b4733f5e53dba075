"""Sharding: a denoiser that does not fit on one device, divided among the processes (FSDP2).

Each process holds a part of every block's frozen weights; a block is whole while it runs. The weights that learn are
not the network's own but replace them for a call, so they stay whole everywhere, with their gradients and moments:
what is divided is the rest, most of the model where attention or a LoRA learns.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .errors import ExpungeError
from .model import Model
from .team import here


def shard(model: Model, but: Collection[str]) -> None:
    """Divides the denoiser's weights, but for those named, among the processes, if the model was opened for it.

    Raises ExpungeError if there is one process only.
    """
    if not model.sharded or model.divided:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    team = here(model.device)
    if team.size == 1:
        raise ExpungeError("--fsdp divides a model among several processes, and this is one: start it by torchrun")
    _ = model.signature, model.encoders  # of whole weights
    mesh = init_device_mesh(model.device.type, (team.size,))
    own: Any = model.denoiser
    names = own._no_split_modules or ()
    learning = {p for name, p in own.named_parameters() if name in but}
    for block in [b for b in own.modules() if type(b).__name__ in names][::-1]:
        fully_shard(block, mesh=mesh, ignored_params=learning)
    fully_shard(own, mesh=mesh, ignored_params=learning)
    own.to(model.device)
    model.divided = True
