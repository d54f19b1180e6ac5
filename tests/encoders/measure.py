"""What autograd really keeps, and what an output really reads."""

from __future__ import annotations

import torch
from torch import nn

from tests import memory


def kept_bytes(module, *inputs):
    return memory.kept_bytes(module, lambda: module(*inputs))


def recomputed_bytes(trunk, plain, x):
    """Bytes of a trunk that runs its blocks again: block inputs, one live block, and the rest.

    Some versions of torch hide what a checkpoint keeps, so that the inputs are also counted at the
    door of each block; the live block is measured on a plain twin.
    """
    storages = {}

    def at_door(_, args):
        storage = args[0].untyped_storage()
        storages[storage.data_ptr()] = storage

    handles = [layer.register_forward_pre_hook(at_door) for layer in trunk.layers]
    storages |= memory.kept_storages(trunk, lambda: trunk(x))
    for handle in handles:
        handle.remove()
    live = max(kept_bytes(layer, x) for layer in plain.layers) - x.nbytes
    return sum(storage.nbytes() for storage in storages.values()) + live


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def shaken(module: nn.Module, *, scale: float = 0.1) -> nn.Module:
    """Move every parameter, so that fresh zeros and ones hide nothing; float64."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn_like(parameter)
    return module
