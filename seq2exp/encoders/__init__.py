"""Encoders: windows or embedded positions in, hidden states out, chosen by registry name."""

from __future__ import annotations

from seq2exp.encoders.bimamba import BiMambaEncoder, BiMambaTrunk
from seq2exp.encoders.caduceus import Caduceus, CaduceusConfig
from seq2exp.encoders.conv import ConvEncoder, ConvTrunk
from seq2exp.encoders.enformer import EnformerEncoder
from seq2exp.encoders.epinformer import EPInformerEncoder
from seq2exp.encoders.hyena import HyenaEncoder, HyenaTrunk
from seq2exp.encoders.mamba import MambaEncoder, MambaTrunk
from seq2exp.encoders.protocol import Encoder, Span, Trunk
from seq2exp.encoders.registry import (
    build_encoder,
    build_trunk,
    encoder_names,
    register_encoder,
    register_trunk,
    trunk_names,
)
from seq2exp.encoders.transformer import TransformerEncoder, TransformerTrunk
from seq2exp.encoders.window import WindowEncoder

__all__ = [
    "BiMambaEncoder",
    "BiMambaTrunk",
    "Caduceus",
    "CaduceusConfig",
    "ConvEncoder",
    "ConvTrunk",
    "EPInformerEncoder",
    "Encoder",
    "EnformerEncoder",
    "HyenaEncoder",
    "HyenaTrunk",
    "MambaEncoder",
    "MambaTrunk",
    "Span",
    "TransformerEncoder",
    "TransformerTrunk",
    "Trunk",
    "WindowEncoder",
    "build_encoder",
    "build_trunk",
    "encoder_names",
    "register_encoder",
    "register_trunk",
    "trunk_names",
]
