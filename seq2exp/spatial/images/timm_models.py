"""Encoders of timm (extra ``vision``), built from their names without any download.

Axes: B patches, H, W pixels, T places, D features.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.images.encoder import Encoder, flat_places

__all__ = ["TimmEncoder", "import_timm"]

_NO_OPERATOR = "torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# Definitions last as long as this object.
_LIBRARY: list[torch.library.Library] = []


class TimmEncoder(Encoder):
    """A model of timm without its classifier.

    Parameters
    ----------
    name : str
        As timm knows it, such as ``vit_large_patch16_224``.

    Raises
    ------
    ConfigError
        timm is not installed, or has no such model.
    """

    def __init__(self, name: str) -> None:
        timm = import_timm()
        if name not in timm.list_models():
            raise ConfigError(
                facts(
                    "image encoder",
                    found=f"timm:{name}",
                    expected="a model of timm",
                    fix="see timm.list_models(); names of hubs cannot be used: nothing is "
                    "downloaded",
                )
            )
        net: Any = timm.create_model(name, pretrained=False, num_classes=0)
        about = dict(net.pretrained_cfg)
        _, side, _ = about.get("input_size", (3, 224, 224))
        super().__init__(dim=net.num_features, token_dim=net.num_features, input_px=side)
        self.net = net
        self.set_colour(
            tuple(about.get("mean", self.mean)),
            tuple(about.get("std", self.std)),
        )

    def encode(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and pooled features of normalised patches."""
        features = self.net.forward_features(x_B3HW)
        pooled_BD = self.net.forward_head(features, pre_logits=True)
        if features.ndim == 4:
            channels_last = features.shape[1] != self.dim
            map_BDHW = features.permute(0, 3, 1, 2) if channels_last else features
            return flat_places(map_BDHW)[0], pooled_BD
        return features[:, getattr(self.net, "num_prefix_tokens", 0) :], pooled_BD


def import_timm() -> ModuleType:
    """Import timm, also where torchvision was built for another kind of torch.

    The torchvision of PyPI is built for CUDA. Beside a torch for CPUs it fails because two
    operators are not known, which no encoder uses; declaring them lets it be imported.

    Raises
    ------
    ConfigError
        timm or torchvision is not installed, or they do not fit this torch.
    """
    try:
        try:
            return importlib.import_module("timm")
        except RuntimeError as error:
            if _NO_OPERATOR not in str(error) or _LIBRARY:
                raise
            half_read = ("torchvision", "timm")
            for name in [key for key in sys.modules if key.split(".")[0] in half_read]:
                del sys.modules[name]
            library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
            for schema in _SCHEMAS:
                library.define(schema)  # type: ignore[no-untyped-call]
            _LIBRARY.append(library)
            return importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            facts(
                "image encoder of timm",
                found=f"timm cannot be imported ({error})",
                expected="timm and a torchvision that fits this torch",
                fix="pip install 'seq2exp[vision]' -c constraints.txt",
            )
        ) from error
