"""What autograd keeps for a backward pass, as a check of estimates."""

from __future__ import annotations

import torch


def kept_bytes(module, run) -> int:
    """Bytes of the distinct storages that ``run()`` saves, parameters of the module left out."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    sizes, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        # A storage that is freed could lend its address to the next one.
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes.values())
