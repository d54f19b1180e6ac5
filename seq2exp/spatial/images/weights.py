"""Published weights of image encoders, from local files, matched name by name.

Names are brought to those of our encoders where that is a plain renaming: wrappers of training code
(``module.``, ``model.``, ``resnet.``, ``backbone.``), torchvision's vision transformers, and the
DenseNet files of before 2017. Then every name and every shape has to fit. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from seq2exp.core.errors import FormatError, facts
from seq2exp.core.files import sha256
from seq2exp.spatial.images.encoder import Encoder
from seq2exp.training.weights import read_tensors

__all__ = ["hash_weights", "load_weights", "published_names"]

_WRAPPERS = ("module.", "model.", "resnet.", "backbone.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_COUNTER = "num_batches_tracked"
_TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)


def load_weights(encoder: Encoder, path: Path, *, allow_pickle: bool = True) -> str:
    """Put the weights of a file into an encoder.

    Parameters
    ----------
    encoder : Encoder
        Changed in place; its ``weight_hash`` becomes that of the file.
    path : Path
        Safetensors, or a pickle of tensors (torch.save), of which only tensors are read.
    allow_pickle : bool
        Published weights of image encoders are such pickles; False takes safetensors only.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    FormatError
        The file is missing or damaged, holds NaN or Inf, or does not fit the encoder: the message
        counts what is missing, unexpected, or of another shape.
    """
    path = Path(path)
    own = encoder.state_dict()
    given = published_names(read_tensors(path, allow_pickle=allow_pickle), path=path)
    given = {
        name: tensor
        for name, tensor in given.items()
        if name in own or not name.startswith(encoder.heads)
    }
    # Files older than the counter of batch norms lack it; it plays no role in evaluation.
    for name in own.keys() - given.keys():
        if name.endswith(_COUNTER):
            given[name] = torch.zeros_like(own[name])
    _require_fit(own, given, encoder=encoder.name or type(encoder).__name__, path=path)
    encoder.load_state_dict(given, strict=True)
    encoder.weight_hash = sha256(path)
    return encoder.weight_hash


def published_names(tensors: Mapping[str, Tensor], *, path: Path) -> dict[str, Tensor]:
    """Return tensors under the names that our encoders use.

    Raises
    ------
    FormatError
        Two tensors would get one name.
    """
    found: dict[str, Tensor] = {}
    torchvision_vit = any(name.endswith("class_token") for name in tensors)
    for original, tensor in tensors.items():
        name = original
        while name.startswith(_WRAPPERS):
            name = name.split(".", 1)[1]
        name = _OLD_DENSENET.sub(r"\1\2", name)
        if torchvision_vit:
            for pattern, ours in _TORCHVISION_VIT:
                name = re.sub(pattern, ours, name)
        if name in found:
            raise FormatError(
                facts(
                    str(path),
                    found=f"two tensors that mean {name}, one of them {original}",
                    expected="one encoder per file",
                    fix="save the tensors of the encoder alone",
                )
            )
        found[name] = tensor
    return found


def hash_weights(encoder: Encoder) -> str:
    """Return the SHA-256 of an encoder's names and numbers, for encoders without a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _require_fit(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], *, encoder: str, path: Path
) -> None:
    missing = [f"missing {name}" for name in own if name not in given]
    extra = [f"unexpected {name}" for name in given if name not in own]
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    infinite = [
        f"{name} with NaN or Inf"
        for name, tensor in given.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    kinds = (missing, extra, shapes, infinite)
    if not any(kinds):
        return
    counted = zip(("missing", "unexpected", "of another shape", "not finite"), kinds, strict=True)
    hint = (
        "; names with ls1.gamma are of the encoders that end in _ls"
        if any(".ls1." in text for text in [*missing, *extra])
        else ""
    )
    raise FormatError(
        facts(
            str(path),
            found="tensors "
            + ", ".join(f"{len(names)} {what}" for what, names in counted if names),
            expected=f"the {len(own)} tensors of {encoder}; a classifier may be there",
            fix=f"choose the encoder that these weights are of, or get the file again{hint}",
            count=sum(map(len, kinds)),
            # One of each kind says more than three of one.
            examples=[names[0] for names in kinds if names],
        )
    )
