"""Selective scan: one front door, several backends."""

from __future__ import annotations

from seq2exp.nn.scan.front import (
    backend_names,
    backend_states,
    bidirectional_scan,
    register_backend,
    run_scan,
    selective_scan,
)
from seq2exp.nn.scan.inputs import ScanBackend, ScanInputs
from seq2exp.nn.scan.reference import scan_reference

__all__ = [
    "ScanBackend",
    "ScanInputs",
    "backend_names",
    "backend_states",
    "bidirectional_scan",
    "register_backend",
    "run_scan",
    "scan_reference",
    "selective_scan",
]
