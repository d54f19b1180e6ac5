"""Say what this machine can run, and why not the rest."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys

from seq2exp.cli import options

# Optional package, what it adds, and the extra that installs it.
OPTIONAL = (("hicstraw", "contact maps from .hic files", "hic"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    rows = [{"name": name, "metric": "state", "value": text} for name, text in findings()]
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['value']}")
    options.write_rows(args, {}, rows)


def scan_findings() -> list[tuple[str, str]]:
    """Return what every backend of the selective scan does here, and what "auto" takes."""
    import torch

    from seq2exp.nn.scan import backend_names, backend_states
    from seq2exp.nn.scan.choose import VARIABLE, wish

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    found = {device: backend_states(torch.device(device)) for device in devices}
    rows = []
    for name in backend_names():
        here = {device: states[name] for device, (states, _) in found.items() if name in states}
        words = [f"{device}: {reason or 'usable'}" for device, reason in here.items()]
        rows.append((f"scan backend {name}", "; ".join(words) or "cuda: no such device here"))
    for device in ("cpu", "cuda"):
        if wish() != "auto":
            text = f"{wish()}, named by {VARIABLE}"
        elif device in found:
            text = f"{found[device][1].backend}, {found[device][1].reason}"
        else:
            text = "no such device here"
        rows.append((f"scan auto on {device}", text))
    return rows


def findings() -> list[tuple[str, str]]:
    """Return (subject, state) pairs."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none: training on CPU"
    free = shutil.disk_usage(os.getcwd()).free / 1e9  # noqa: PTH109
    return [
        ("python", sys.version.split()[0]),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("gpu", gpu),
        ("bf16", "yes" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"),
        *scan_findings(),
        ("disk here", f"{free:.0f} GB free"),
        *(
            (
                module,
                "yes"
                if importlib.util.find_spec(module)
                else f'no: {what}. Install: pip install "seq2exp[{extra}]" -c constraints.txt',
            )
            for module, what, extra in OPTIONAL
        ),
    ]
