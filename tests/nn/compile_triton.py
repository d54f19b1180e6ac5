"""Compile every Triton kernel of the selective scan for one GPU architecture, without a GPU.

Prints one JSON line per kernel and variant: registers, bytes of stack, bytes of machine code, and
the numbers of shuffles and exponentials in it. A process of its own, since a process that runs
Triton's interpreter cannot compile.

    python tests/nn/compile_triton.py [--arch 90] [--variants 0 1]
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from seq2exp.nn.scan import triton_backward, triton_forward
from seq2exp.nn.scan.triton_scan import REGISTERS, group_states

COUNTS = ("batch", "length", "padded", "channels", "tiles", "segments", "numbers")
LARGE = ("u", "delta", "z", "y", "grad_y", "grad_u", "grad_delta", "grad_z", "B", "C")
CONSTANTS = {
    "TILE": 16, "WIDTH": 32, "REVERSE": 2, "SOFTPLUS": True,
    "HAS_BREAKS": False, "HAS_Z": False, "CHUNK_TILES": 4, "KEEP": True, "ROWS": 16,
    "AGAINST": True,
}  # fmt: skip
# Every kernel is compiled for each of these; the last as for one sequence of one odd channel.
VARIANTS = (
    {"large": "*fp32"},
    {"large": "*bf16", "HAS_BREAKS": True, "HAS_Z": True},
    {"large": "*fp16", "states": 3, "KEEP": False, "SOFTPLUS": False},
    {"large": "*fp32", "states": 1, "WIDTH": 1, "CHUNK_TILES": 1,
     "REVERSE": 1, "AGAINST": False, "ones": ("batch", "tiles", "length")},
)  # fmt: skip


def source(kernel: object, variant: dict) -> ASTSource:
    constants = CONSTANTS | group_states(variant.get("states", 16)) | variant
    ones = constants.get("ones", ())
    signature, fixed, hints = {}, {}, {}
    for i, item in enumerate(inspect.signature(kernel.fn).parameters.values()):
        name = item.name
        if name.isupper() and "constexpr" in str(item.annotation):
            signature[name], fixed[(i,)] = "constexpr", constants[name]
        elif name in ones:
            signature[name], fixed[(i,)] = "constexpr", 1
        elif name in COUNTS:
            signature[name] = "i32"
        elif re.sub("_(first|second)$", "", name) in LARGE:
            signature[name] = constants["large"]
        else:
            signature[name] = "*i8" if name == "breaks" else "*fp32"
        # What Triton finds out at run time: aligned tensors, a padded length of whole tiles.
        if signature[name].startswith("*") or name == "padded":
            hints[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=hints)


def machine_code(cubin: bytes) -> dict[str, int]:
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as handle:
        handle.write(cubin)
        handle.flush()
        usage, code = (
            subprocess.run(
                [tools / tool, option, handle.name], capture_output=True, text=True, check=True
            ).stdout
            for tool, option in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    return {
        "registers": int(registers),
        "stack": int(stack),
        "shuffles": len(re.findall(r"\bSHFL", code)),
        "exponentials": len(re.findall(r"\bMUFU\.EX2", code)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--arch", type=int, default=90)
    numbers = range(len(VARIANTS))
    parser.add_argument("--variants", type=int, nargs="+", choices=numbers, default=numbers)
    asked = parser.parse_args()
    target = GPUTarget("cuda", asked.arch, 32)
    kernels = {
        name: getattr(module, name)
        for module in (triton_forward, triton_backward)
        for name in module.__all__
    }
    for (name, kernel), number in itertools.product(kernels.items(), asked.variants):
        variant = VARIANTS[number]
        options = {"num_warps": 1, "maxnreg": REGISTERS.get(name)}
        done = triton.compile(source(kernel, variant), target=target, options=options)
        row = {
            "kernel": name,
            "variant": VARIANTS.index(variant),
            **machine_code(done.asm["cubin"]),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
