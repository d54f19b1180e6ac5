"""What can be wrong with variants as a whole, found before anything is scored."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from seq2exp.core.contigs import compare_sizes
from seq2exp.core.errors import AssemblyError, InputError, Seq2ExpError, Seq2ExpWarning, facts
from seq2exp.core.sequence import encode
from seq2exp.variation.alleles import SEQUENCE_CLASSES

if TYPE_CHECKING:
    from seq2exp.variants.source import VariantSource

__all__ = ["check"]

_ENOUGH = 10
_MOST = 0.5
_LOOKS = 3


def check(source: VariantSource, *, max_mismatch: float = 0.05) -> None:
    """Raise when variants are of another genome; warn of contigs that the dataset lacks.

    Parameters
    ----------
    source : VariantSource
    max_mismatch : float
        Most alleles, as a share, whose REF may not be what the genome says. Here only more than
        half of the first, middle and last records are an error; the whole input is judged when it
        has been scored.

    Raises
    ------
    InputError
        No contig is in the dataset.
    AssemblyError
        Contig lengths or most bases are those of another genome.
    """
    problems: list[Seq2ExpError] = []
    known = {name: source.names.stored(name) for name in source.contigs}
    if known and not any(known.values()):
        problems.append(_nothing_shared(source))
    try:
        compare_sizes(
            source.dataset.manifest.contigs, source.text.lengths, what=f"{source.path}, its header"
        )
    except AssemblyError as error:
        problems.append(error)
    if known and not problems:
        problems += _first_look(source, max_mismatch)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        worst = next((p for p in problems if isinstance(p, AssemblyError)), problems[0])
        raise type(worst)("\n".join(str(problem) for problem in problems))
    _warn_of_unknown(source, [name for name, stored in known.items() if stored is None])


def _nothing_shared(source: VariantSource) -> InputError:
    theirs, ours = list(source.contigs), list(source.dataset.manifest.contigs)
    return InputError(
        facts(
            str(source.path),
            found=f"records on {_some(theirs)} only",
            expected=f"contigs of the dataset under any alias: {_some(ours)}",
            fix="check that variants and dataset are of one organism and assembly",
        )
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _warn_of_unknown(source: VariantSource, unknown: list[str]) -> None:
    # Ids that were not found stand on no contig; that was said when they were looked up.
    unknown = [name for name in unknown if name != "."]
    if not unknown:
        return
    count = sum(source.contigs[name] for name in unknown)
    warnings.warn(
        facts(
            str(source.path),
            found=f"{count:,} of {source.num_records:,} records on contigs that the dataset lacks",
            expected="contigs of the dataset under any alias",
            fix="nothing, if these contigs are not needed: the rows stay, without scores",
            count=len(unknown),
            examples=unknown,
        ),
        Seq2ExpWarning,
        stacklevel=3,
    )


def _first_look(source: VariantSource, max_mismatch: float) -> Iterator[Seq2ExpError]:
    """Yield the problem that most of some records have, before hours of scoring."""
    last = source.num_shards - 1
    looks = sorted({last * step // (_LOOKS - 1) for step in range(_LOOKS)})
    tables = [source.read(source.shard(number)) for number in looks]
    alleles = pd.concat(tables, ignore_index=True)
    usable = alleles["variant_type"].isin(SEQUENCE_CLASSES) & alleles["contig"].notna()
    alleles = alleles[usable & (alleles["ref_status"] != "ref_has_n")]
    status = alleles["ref_status"]
    wrong = alleles[status.isin(["mismatch", "swapped", "out_of_bounds"])]
    num_swapped = int((status == "swapped").sum())
    if len(alleles) < _ENOUGH or len(wrong) <= max(_MOST, max_mismatch) * len(alleles):
        return
    if num_swapped > 0.9 * len(wrong):
        # Another order of the alleles, not another genome: each row gets its status.
        return
    rows = wrong.head(3)
    yield AssemblyError(
        facts(
            f"{source.path}, {len(alleles):,} of its alleles",
            found=f"{len(wrong) / len(alleles):.0%} with a REF that is not what the genome says",
            expected=f"REF of {source.dataset.manifest.assembly or 'the genome of the dataset'}",
            fix=_likely_cause(source, alleles)
            + ", or --max-mismatch 1 if these rows may stay without scores",
            count=len(wrong),
            examples=[
                f"{chrom}:{position + 1} {ref[:20]}>{alt[:20]}"
                for chrom, position, ref, alt in zip(
                    *(rows[name] for name in ("chrom", "position", "ref", "alt")), strict=True
                )
            ],
        )
    )


def _likely_cause(source: VariantSource, alleles: pd.DataFrame) -> str:
    """Say what such a pattern of wrong REF usually comes from."""
    single = alleles[alleles["ref"].str.len() == 1]
    # A VCF and words count from 1 whatever an option says.
    columns = source.text.columns
    table = columns is not None and columns.position is not None
    high, low = (
        f"they count from {base}, so say --coordinates {base}, or name the column pos{base}"
        if table
        else cure
        for base, cure in ((1, "take 1 from each"), (0, "add 1 to each"))
    )
    fits = {
        f"all positions are one too high: {high}": (-1, False),
        f"all positions are one too low: {low}": (1, False),
        "REF is the base of the other strand: flip the variants": (0, True),
    }
    for cause, (shift, complement) in fits.items():
        share = _share(source, single, shift, complement=complement)
        if len(single) >= _ENOUGH and share > 0.9:
            return cause
    return "use a dataset of the assembly that the variants were called on, or lift them over"


def _share(source: VariantSource, single: pd.DataFrame, shift: int, *, complement: bool) -> float:
    """Return for which share of single bases the genome fits when moved or complemented."""
    fits = 0
    for contig, group in single.groupby("contig"):
        codes = source.dataset.contig_codes(str(contig))
        position = group["position"].to_numpy(np.int64) + shift
        inside = (position >= 0) & (position < len(codes))
        here = codes[position[inside]]
        ref = encode("".join(group["ref"].str.upper()))[inside]
        fits += int((here == (3 - ref if complement else ref)).sum())
    return fits / max(len(single), 1)
