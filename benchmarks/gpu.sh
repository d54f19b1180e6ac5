#!/usr/bin/env bash
# All checks that need a GPU: the tests of the Triton kernels on the device, then parity, times,
# memory and floors of the selective scan, then a training step. Results go to benchmarks/results.
#
#     benchmarks/gpu.sh [--quick]
#
# PYTHON names the interpreter (default: python). Without a CUDA device: exit code 2, nothing run.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$here/.."
export PYTHONPATH="$here:$PWD${PYTHONPATH:+:$PYTHONPATH}"
python="${PYTHON:-python}"
unset TRITON_INTERPRET SEQ2EXP_SCAN

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "benchmarks/gpu.sh: no CUDA device that torch can use; nothing was run or written" >&2
    exit 2
fi

"$python" -m seq2exp.cli.main doctor
"$python" -m pytest -q tests/nn/test_scan_triton.py tests/nn/test_scan_choose.py
"$python" benchmarks/gpu/scan.py "$@"
if [ -f benchmarks/train_step.py ]; then
    "$python" benchmarks/train_step.py --device cuda
fi
