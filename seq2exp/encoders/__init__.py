"""Encoders: hidden states in, hidden states out, chosen by registry name."""

from __future__ import annotations

from seq2exp.encoders.bimamba import BiMambaEncoder
from seq2exp.encoders.registry import Encoder, build_encoder, encoder_names, register_encoder

__all__ = ["BiMambaEncoder", "Encoder", "build_encoder", "encoder_names", "register_encoder"]
