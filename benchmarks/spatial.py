"""Speed and memory of the spatial half, on simulated tissue; ratios to a peer in the same run.

    python benchmarks/spatial.py [--parts encoders,nsl,retrieval] [--cohort COHORT] [--quick]

encoders
    patches per second through each encoder, batched, and out of the cache. The peer is how loaders
    of published code work: one patch at a time, cut from the opened image of its section.
nsl
    eleven weights for each of 785 genes on 700 spots, from kept densities to fitted weights. The
    peer is one step of the same network written plainly with einsum and autograd.
retrieval
    answers of a bank of 12,000 spots. The peer is scikit-learn's brute-force NearestNeighbors on
    the same unit vectors; neighbours must be the same. Peak memory of both, in processes of their
    own.
compare (not by default; alone it has a result of its own)
    ``seq2exp spatial compare`` with every system on ``--cohort``, in minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import circumstances, summary, wait_for_quiet, write_result
from torch.nn import functional as F

from data_prep.histology.build import prepare_cohort
from data_prep.simulate.spatial import SpatialSimulationConfig, simulate_cohort
from seq2exp.core.errors import Seq2ExpWarning
from seq2exp.spatial.batch import SystemInfo
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.config import EncoderConfig, SpatialFitConfig
from seq2exp.spatial.data import fit_labels, spot_table
from seq2exp.spatial.features import cohort_features
from seq2exp.spatial.fitting import fit_system
from seq2exp.spatial.folds import Fold
from seq2exp.spatial.images.cache import FeatureCache
from seq2exp.spatial.images.compute import encode_patches
from seq2exp.spatial.images.registry import make_encoder
from seq2exp.spatial.images.tiles import open_section_image
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.recipes import RECIPES
from seq2exp.spatial.retrieval import RetrievalBank, RetrievalConfig
from seq2exp.spatial.systems.nsl import Nsl, NslConfig

ENCODERS = ("colour_stats", "tinycnn", "resnet18", "resnet50", "densenet121", "vit_s16")
NUM_SPOTS, NUM_GENES = 700, 785
BANK = (12_000, 1_000, 256)


def tissue(folder: Path, *, spots: int, genes: int, px: int) -> SpatialCohort:
    """Return a prepared cohort of four simulated sections of two patients."""
    config = SpatialSimulationConfig(num_spots=spots // 4, num_genes=genes, patch_px=px)
    made = simulate_cohort(config, folder / "raw")
    prepare_cohort(made.cohort, folder / "raw", folder / "cohort")
    return SpatialCohort(folder / "cohort")


def seconds(work: Callable[[], Any], repeats: int) -> list[float]:
    """Return the seconds of each repeat, each begun on a quiet machine where there is one."""
    times = []
    for _ in range(repeats):
        wait_for_quiet(3)
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def encoders(folder: Path, *, repeats: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Patches per second: batched, from the cache, and the peer's way."""
    cohort = tissue(folder, spots=64, genes=60, px=224)
    section = cohort.section(cohort.names[0])
    count, um = len(section), cohort.manifest.patch.um
    found = {}
    for name in names:
        encoder = make_encoder(name)
        image = open_section_image(cohort, section.name)
        side = um / section.info.um_per_px

        def batched(encoder: Any = encoder) -> None:
            encode_patches(encoder, iter(section.patches), num_patches=count)

        def one_by_one(encoder: Any = encoder, image: Any = image, side: float = side) -> None:
            for x, y in section.xy_N2:
                patch = image.patch(x, y, side=side, px=224)
                encode_patches(encoder, iter([patch]), num_patches=1)

        cache = FeatureCache(cohort, encoder)
        cache.feat(section.name)
        times = {
            "batched": seconds(batched, repeats),
            "one_by_one": seconds(one_by_one, repeats),
            "from_cache": seconds(lambda cache=cache: cache.feat(section.name), repeats),
        }
        median = {key: float(np.median(values)) for key, values in times.items()}
        found[name] = {
            "patches_per_second": {key: round(count / value, 2) for key, value in median.items()},
            "batched_over_one_by_one": round(median["one_by_one"] / median["batched"], 2),
            "cache_over_batched": round(median["batched"] / median["from_cache"], 1),
            "seconds": summary(times),
        }
    return found


def nsl(folder: Path, *, repeats: int, spots: int, genes: int) -> dict[str, Any]:
    """Seconds to fit all genes, and a step against the plain network."""
    cohort = tissue(folder, spots=spots + spots // 2, genes=genes + 15, px=64)
    everything = {name: np.arange(len(cohort.section(name))) for name in cohort.names}
    last = cohort.names[-1]
    held = {last: everything.pop(last)}
    fold = Fold("one", everything, held, {})
    labels = fit_labels(cohort, fold, panel=PanelConfig("heg", genes), recipe=RECIPES["default"])
    config = SpatialFitConfig(max_epochs=40, batch_size=128, lr=1e-2, weight_decay=0)
    settings = {"name": "nsl", "source": "tokens"}
    info = SystemInfo(num_genes=genes, token_dim=3)
    passes = 0

    def whole() -> None:
        """From patches: the densities are computed within the time that is taken."""
        nonlocal passes
        features = cohort_features(cohort, EncoderConfig("pixel_densities"))
        train, valid = (
            spot_table(
                cohort, part, labels, training=True, features=features, needs=frozenset({"tokens"})
            )
            for part in (fold.train, fold.valid)
        )
        passes = len(fit_system(settings, train, valid, config, info=info).history)  # type: ignore[attr-defined]

    times = {"fit": seconds(whole, 1)}
    module = Nsl(NslConfig(pixels_per_step=0), info)
    density = torch.rand(128, 1024, 3)
    share = torch.full((128, 1024), 1 / 1024)
    label = torch.rand(128, genes)

    def ours() -> None:
        module.zero_grad()
        (module.scores(density, share) - label).square().mean().backward()

    def plain() -> None:
        module.zero_grad()
        bent = torch.einsum("bpc,gcq->bpgq", density, module.stain) + module.shift
        mean = (F.softplus(4 * bent) / 4).mean(dim=1)
        found = (mean * module.read).sum(dim=-1) + module.level
        (found - label).square().mean().backward()

    times |= {"step": seconds(ours, repeats), "plain_step": seconds(plain, repeats)}
    num_train = sum(map(len, fold.train.values()))
    return {
        "spots": num_train,
        "genes": genes,
        "passes": passes,
        "fit_minutes": round(times["fit"][0] / 60, 2),
        "step_over_plain": round(
            float(np.median(times["plain_step"]) / np.median(times["step"])), 2
        ),
        "seconds": summary(times),
    }


def _vectors(size: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(size, BANK[2], generator=random), dim=-1)


def _bank(num_genes: int = 250) -> RetrievalBank:
    size = BANK[0]
    return RetrievalBank(
        keys_ND=_vectors(size, 0),
        expression_NG=torch.rand(size, num_genes, generator=torch.Generator().manual_seed(1)),
        spot_N=torch.arange(size),
        section_N=torch.zeros(size, dtype=torch.int64),
        patient_N=torch.zeros(size, dtype=torch.int64),
        sections=("a",),
        patients=("a",),
        genes=(),
        recipe="",
        towers="",
    )


def ask_bank() -> np.ndarray[Any, Any]:
    """Answer all queries with the bank; return the neighbours."""
    stranger = torch.full((BANK[1],), -1)
    answer = _bank().query(
        _vectors(BANK[1], 2), RetrievalConfig(), patient_B=stranger, section_B=stranger
    )
    return np.sort(answer.ids_BK.numpy(), axis=1)


def ask_sklearn() -> np.ndarray[Any, Any]:
    """The same with scikit-learn, weights and means included."""
    from sklearn.neighbors import NearestNeighbors

    bank = _bank()
    nearest = NearestNeighbors(n_neighbors=200, algorithm="brute").fit(bank.keys_ND.numpy())
    distance, rows = nearest.kneighbors(_vectors(BANK[1], 2).numpy())
    weight = 1 / np.maximum(distance, 1e-6) ** 2
    weight /= weight.sum(axis=1, keepdims=True)
    np.einsum("bk,bkg->bg", weight, bank.expression_NG.numpy()[rows])
    return np.asarray(np.sort(rows, axis=1))


def _peak_gib() -> float:
    """Return the largest memory of this process; getrusage counts that of the parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def _measured(name: str, out: Any) -> None:
    work = {"bank": ask_bank, "sklearn": ask_sklearn}[name]
    _bank()
    before = _peak_gib()
    start = time.perf_counter()
    rows = work()
    spent = time.perf_counter() - start
    out.put((spent, _peak_gib() - before, rows))


def retrieval(*, repeats: int) -> dict[str, Any]:
    """Seconds and memory of a bank's answers."""
    context = multiprocessing.get_context("spawn")
    times: dict[str, list[float]] = {"bank": [], "sklearn": []}
    memory: dict[str, float] = {}
    rows = {}
    for _ in range(repeats):
        for name in times:
            out = context.Queue()
            process = context.Process(target=_measured, args=(name, out))
            process.start()
            spent, gib, rows[name] = out.get()
            process.join()
            times[name].append(spent)
            memory[name] = round(max(gib, memory.get(name, 0)), 3)
    same = float((rows["bank"] == rows["sklearn"]).mean())
    return {
        "bank_queries_width": BANK,
        "same_neighbours": round(same, 5),
        "speed_over_sklearn": round(
            float(np.median(times["sklearn"]) / np.median(times["bank"])), 2
        ),
        "extra_memory_gib": memory,
        "seconds": summary(times),
    }


def compare(cohort: Path, folder: Path) -> dict[str, Any]:
    """Minutes of a whole comparison."""
    start = time.perf_counter()
    words = [sys.executable, "-m", "seq2exp.cli.main", "spatial", "compare"]
    config = Path(__file__).parents[1] / "configs/spatial/compare.yaml"
    done = subprocess.run(
        [*words, "--config", config, "--data", cohort, "--out", folder / "compare"], check=False
    )
    minutes = (time.perf_counter() - start) / 60
    return {"minutes": round(minutes, 2), "exit_code": done.returncode}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default="encoders,nsl,retrieval")
    parser.add_argument("--cohort", type=Path, help="cohort folder, for compare")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    args = parser.parse_args()
    warnings.simplefilter("ignore", Seq2ExpWarning)
    small = args.quick
    repeats = 1 if small else args.repeats
    result: dict[str, Any] = {**circumstances("torch", "scikit-learn")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in args.parts.split(","):
            if part == "encoders":
                names = ENCODERS[:2] if small else ENCODERS
                found = encoders(folder / part, repeats=min(repeats, 3), names=names)
            elif part == "nsl":
                sizes = {"spots": 80, "genes": 50} if small else {
                    "spots": NUM_SPOTS, "genes": NUM_GENES
                }  # fmt: skip
                found = nsl(folder / part, repeats=repeats, **sizes)
            elif part == "retrieval":
                found = retrieval(repeats=repeats)
            elif part == "compare" and args.cohort is not None:
                found = compare(args.cohort, folder)
            else:
                parser.error(f"--parts: unknown {part}, or no --cohort")
            result[part] = found
    alone = args.parts == "compare"
    write_result("spatial_compare" if alone else "spatial", result, quick=small)


if __name__ == "__main__":
    main()
