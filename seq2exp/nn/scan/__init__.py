"""Selective scan: one front door, several backends."""

from __future__ import annotations

from seq2exp.nn.scan.front import ScanBackend, backend_names, register_backend, selective_scan
from seq2exp.nn.scan.reference import scan_reference

__all__ = [
    "ScanBackend",
    "backend_names",
    "register_backend",
    "scan_reference",
    "selective_scan",
]
