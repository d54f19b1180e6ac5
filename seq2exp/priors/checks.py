"""What makes a gene prior whole, and whether it is the one that the caller means.

Shapes: G genes, D embedding width, C outputs, R columns of the element summary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seq2exp.core.contigs import same_assembly
from seq2exp.core.errors import AssemblyError, FormatError, InputError, facts
from seq2exp.core.genes import strip_version
from seq2exp.priors.identity import same_system

if TYPE_CHECKING:
    from seq2exp.priors.prior import GenePrior

__all__ = [
    "FORMAT_VERSION",
    "META_KEYS",
    "SPLITS",
    "check_prior",
    "describe",
    "require_alike",
    "require_origin",
    "typed_slots",
]

FORMAT_VERSION = 1
SPLITS = ("train", "valid", "test", "excluded")

META_KEYS = {
    "format_version": FORMAT_VERSION,
    "model": "unknown",
    "model_sha256": "unknown",
    "assembly": "unknown",
    "id_system": "unknown",
    "annotation": "unknown",
    "tss_source": "unknown",
    "window_bp": 0,
    "layer": "unknown",
    "expr_unit": "unknown",
    "quality": "unknown",
    "dataset_checksum": "unknown",
    "train_contigs": (),
}
"""Keys that `meta` always has, and what they are where nothing is known; docs/priors.md."""


def describe(**known: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a complete `meta`: what is given, and ``unknown`` for the other keys."""
    empty = {key: list(value) if value == () else value for key, value in META_KEYS.items()}
    return empty | known


def typed_slots(slots: Mapping[str, Any]) -> dict[str, Any]:
    """Return slots in the types of a prior; values of other kinds raise ValueError or TypeError."""
    types: dict[str, type] = {
        "z": np.float32,
        "expr": np.float32,
        "reg": np.float32,
        "quality": np.float32,
        "tss": np.int64,
        "present": np.bool_,
    }
    if np.asarray(slots["present"]).dtype.kind != "b":
        message = "present is no truth value"
        raise TypeError(message)
    typed: dict[str, Any] = {
        name: np.asarray(slots[name]).astype(kind) for name, kind in types.items()
    }
    return {**slots, **typed}


def check_prior(prior: GenePrior) -> None:
    """Raise at the first part that contradicts another.

    Raises
    ------
    FormatError
        Unknown format_version, keys of `meta` missing, shapes that do not fit, genes named twice,
        unknown splits, NaN in z of a present gene, values in rows of absent ones.
    """
    version = prior.meta.get("format_version")
    if version != FORMAT_VERSION:
        raise _bad(
            f"format_version {version}", str(FORMAT_VERSION), "update seq2exp, or write it again"
        )
    lacking = [key for key in META_KEYS if key not in prior.meta]
    if lacking:
        raise _bad(
            f"meta without {', '.join(lacking)}", "every key of META_KEYS", "fill it by `describe`"
        )
    _check_shapes(prior)
    counts = Counter(strip_version(str(name)) for name in prior.gene_id)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        fix = "drop the repeated rows"
        raise _bad("genes named twice (versions do not count)", "every id once", fix, twice)
    unknown = sorted(set(prior.split) - set(SPLITS))
    if unknown:
        raise _bad(f"split {unknown[0]!r}", "one of " + ", ".join(SPLITS), "correct obs['split']")
    holes = prior.present & ~np.isfinite(prior.z).all(axis=1)
    if holes.any():
        raise _bad(
            "NaN or Inf in z of present genes",
            "finite embeddings",
            "set present to False, and the rows to 0, where a gene has no embedding",
            prior.gene_id[holes],
        )
    for name in ("z", "expr", "reg"):
        filled = ~prior.present & (getattr(prior, name) != 0).any(axis=1)
        if filled.any():
            raise _bad(
                f"values in {name} of genes that are not present",
                "rows of 0",
                "set these rows to 0",
                prior.gene_id[filled],
            )


def _check_shapes(prior: GenePrior) -> None:
    num = len(prior.gene_id)
    wanted: dict[str, tuple[int | None, ...]] = {
        "z": (num, None),
        "expr": (num, len(prior.expr_names)),
        "reg": (num, len(prior.reg_names)),
    }
    rows = ("gene_id", "symbol", "split", "contig", "tss", "strand", "present", "quality")
    wanted |= dict.fromkeys(rows, (num,))
    for name, shape in wanted.items():
        found = np.shape(getattr(prior, name))
        if len(found) != len(shape) or any(
            w not in (None, f) for f, w in zip(found, shape, strict=True)
        ):
            text = str(shape).replace("None", "width")
            raise _bad(f"{name} of shape {found}", f"shape {text}", "give every gene one row")
    if num == 0 or prior.z.shape[1] == 0:
        raise _bad(
            f"z of shape {prior.z.shape}", "a gene and a dimension at least", "write it anew"
        )


def _bad(found: str, expected: str, fix: str, names: Sequence[object] | Any = ()) -> FormatError:  # noqa: ANN401
    examples = list(names)
    return FormatError(
        facts(
            "gene prior",
            found=found,
            expected=expected,
            fix=fix,
            count=len(examples) or None,
            examples=examples,
        )
    )


def require_origin(
    prior: GenePrior, path: Path, *, assembly: str | None, system: str | None
) -> None:
    """Raise unless a prior is of the assembly and id system that the caller states.

    Raises
    ------
    AssemblyError, InputError
        See `GenePrior.load`.
    """
    found = str(prior.meta["assembly"])
    if assembly is not None and not same_assembly(assembly, found):
        raise AssemblyError(
            facts(
                str(path),
                found=f"a prior of assembly {found}",
                expected=assembly,
                fix="export the prior from a run on that assembly",
            )
        )
    found = str(prior.meta["id_system"])
    if system is not None and not same_system(system, found):
        raise InputError(
            facts(
                str(path),
                found=f"gene ids of the system {found}, such as {prior.gene_id[0]}",
                expected=system,
                fix="use a prior with these ids, or leave the check out and align by symbols",
            )
        )


def require_alike(priors: Sequence[GenePrior]) -> None:
    """Raise unless priors are of one model, dataset and list of genes.

    Raises
    ------
    InputError
        See `GenePrior.mean`.
    """
    problem = "no prior" if not priors else ""
    for prior in priors[1:]:
        first = priors[0]
        pairs = {
            "genes": (first.gene_id.tolist(), prior.gene_id.tolist()),
            "splits": (first.split.tolist(), prior.split.tolist()),
            "outputs": (first.expr_names, prior.expr_names),
            "element columns": (first.reg_names, prior.reg_names),
            "assemblies": (first.meta["assembly"], prior.meta["assembly"]),
            "datasets": (first.meta["dataset_checksum"], prior.meta["dataset_checksum"]),
            "layers": (first.meta["layer"], prior.meta["layer"]),
        }
        other = [name for name, (mine, theirs) in pairs.items() if mine != theirs]
        problem = problem or ", ".join(f"other {name}" for name in other)
    if problem:
        raise InputError(
            facts(
                "priors to average",
                found=problem,
                expected="seeds of one model, exported from one dataset",
                fix="export each with the same settings and dataset",
            )
        )
