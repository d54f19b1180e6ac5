"""Encoders: windows or embedded positions in, hidden states out, chosen by registry name."""

from __future__ import annotations

from seq2exp.encoders.bimamba import BiMambaTrunk
from seq2exp.encoders.caduceus import Caduceus, CaduceusConfig
from seq2exp.encoders.protocol import Encoder, Span, Trunk
from seq2exp.encoders.registry import (
    build_encoder,
    build_trunk,
    encoder_names,
    register_encoder,
    register_trunk,
    trunk_names,
)

__all__ = [
    "BiMambaTrunk",
    "Caduceus",
    "CaduceusConfig",
    "Encoder",
    "Span",
    "Trunk",
    "build_encoder",
    "build_trunk",
    "encoder_names",
    "register_encoder",
    "register_trunk",
    "trunk_names",
]
