"""What autograd really keeps, and what an output really reads."""

from __future__ import annotations

import torch
from torch import nn


def kept_storages(module, *inputs):
    """Storages that a forward pass keeps for its backward, parameters aside, by address."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = module(*inputs)
    del out
    owned = {p.untyped_storage().data_ptr() for p in module.parameters()}
    return {pointer: storage for pointer, storage in storages.items() if pointer not in owned}


def kept_bytes(module, *inputs):
    return sum(storage.nbytes() for storage in kept_storages(module, *inputs).values())


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
    storages |= kept_storages(trunk, x)
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
