"""What autograd keeps for a backward pass, as a check of estimates."""

from __future__ import annotations

import torch


def kept_storages(module, run):
    """Storages that ``run()`` saves, parameters of the module left out, by address."""
    storages = {}

    def pack(tensor):
        # Held, so that no storage is freed and lends its address to the next one.
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    owned = {p.untyped_storage().data_ptr() for p in module.parameters()}
    return {pointer: storage for pointer, storage in storages.items() if pointer not in owned}


def kept_bytes(module, run) -> int:
    """Bytes of `kept_storages`."""
    return sum(storage.nbytes() for storage in kept_storages(module, run).values())
