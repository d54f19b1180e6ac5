"""Contig names and assemblies: chr1 = 1 = NC_000001.11, and hg19 is not hg38.

Sequence lengths are those published by UCSC and NCBI for each assembly.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping

from seq2exp.core.errors import AssemblyError, InputError, Seq2ExpWarning, facts

__all__ = [
    "ASSEMBLIES",
    "assembly_named",
    "assembly_of",
    "canonical",
    "compare_sizes",
    "match_contigs",
    "same_assembly",
]

ASSEMBLIES: dict[str, dict[str, int]] = {
    "hg19/GRCh37": {
        "1": 249_250_621,
        "2": 243_199_373,
        "3": 198_022_430,
        "7": 159_138_663,
        "20": 63_025_520,
        "21": 48_129_895,
        "22": 51_304_566,
        "X": 155_270_560,
    },
    "hg38/GRCh38": {
        "1": 248_956_422,
        "2": 242_193_529,
        "3": 198_295_559,
        "7": 159_345_973,
        "20": 64_444_167,
        "21": 46_709_983,
        "22": 50_818_468,
        "X": 156_040_895,
    },
    "T2T-CHM13v2": {"1": 248_387_328, "22": 51_324_926},
    "mm10/GRCm38": {"1": 195_471_971, "2": 182_113_224, "19": 61_431_566},
    "mm39/GRCm39": {"1": 195_154_279, "2": 181_755_017, "19": 61_420_004},
    "sacCer3/R64": {"I": 230_218, "II": 813_184, "IV": 1_531_933, "XII": 1_078_177},
}

# RefSeq accessions of the primary human chromosomes: NC_000001 .. NC_000022, X = 23, Y = 24.
_REFSEQ_HUMAN = re.compile(r"^NC_0000(\d\d)\.\d+$")
_MITOCHONDRION = {"M", "MT", "Mito", "NC_012920.1", "NC_001224.1"}
# Patches of a GRC assembly, and the release of R64 that Ensembl names, move no base.
_PATCH = re.compile(r"\.p\d+$|(?<=^r64)-1-1$", re.IGNORECASE)
_LIBRARY_PREFIX = re.compile(r"^chr(?!$)", re.IGNORECASE)


def canonical(name: str) -> str:
    """Return the bare name of a contig, equal for all its aliases.

    Examples
    --------
    >>> [canonical(name) for name in ("chr1", "1", "NC_000001.11", "chrM", "MT", "chrIV")]
    ['1', '1', '1', 'MT', 'MT', 'IV']
    """
    bare = _LIBRARY_PREFIX.sub("", name)
    if bare in _MITOCHONDRION:
        return "MT"
    refseq = _REFSEQ_HUMAN.match(bare)
    if refseq:
        number = int(refseq.group(1))
        return {23: "X", 24: "Y"}.get(number, str(number))
    return bare


def match_contigs(
    wanted: Iterable[str], available: Iterable[str], *, what: str, partial: str = "warn"
) -> dict[str, str]:
    """Return, for each wanted contig that exists, its name in the other file.

    Parameters
    ----------
    wanted, available : iterables of str
        Contig names as the two files spell them.
    what : str
        The file that holds ``available``, for messages.
    partial : {"warn", "ignore"}
        What to do when only some contigs are found.

    Raises
    ------
    InputError
        No contig is shared, or two contigs of one file are aliases of each other.
    """
    names = list(dict.fromkeys(wanted))
    by_canonical = _index_aliases(available, what)
    exact = set(by_canonical.values())
    found = {
        name: name if name in exact else by_canonical[canonical(name)]
        for name in names
        if name in exact or canonical(name) in by_canonical
    }
    if not found:
        raise InputError(
            facts(
                what,
                found=f"contigs {_some(exact)}",
                expected=f"at least one of {_some(names)} under any of its aliases",
                fix="check that both files are of the same organism and assembly",
                count=0,
            )
        )
    missing = [name for name in names if name not in found]
    if missing and partial == "warn":
        warnings.warn(
            facts(
                what,
                found=f"{len(found)} of {len(names)} contigs",
                expected="all of them",
                fix="nothing, if these contigs are not needed",
                count=len(missing),
                examples=missing,
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    return found


def _index_aliases(names: Iterable[str], what: str) -> dict[str, str]:
    index: dict[str, str] = {}
    for name in names:
        other = index.setdefault(canonical(name), name)
        if other != name:
            raise InputError(
                facts(
                    what,
                    found=f"contigs {other!r} and {name!r}, two names of one contig",
                    expected="each contig once",
                    fix="remove one of them",
                )
            )
    return index


def compare_sizes(
    reference: Mapping[str, int], other: Mapping[str, int], *, what: str, exact: bool = True
) -> None:
    """Raise when two files that should share an assembly disagree on contig lengths.

    Parameters
    ----------
    reference : mapping of str to int
        Contig lengths of the FASTA.
    other : mapping of str to int
        Lengths in a bigWig or VCF header; with ``exact=False`` the largest position that a GTF or
        BED uses on each contig.
    what : str
        The second file, for the message.
    exact : bool
        Lengths must be equal; otherwise ``other`` must not exceed ``reference``.

    Raises
    ------
    AssemblyError
        A shared contig differs. The message names the first three and, where known, both
        assemblies.
    """
    lengths = {canonical(name): size for name, size in reference.items()}
    differing = [
        f"{name} {size:,} against {lengths[canonical(name)]:,}"
        for name, size in other.items()
        if canonical(name) in lengths
        and (size != lengths[canonical(name)] if exact else size > lengths[canonical(name)])
    ]
    if not differing:
        return
    theirs, ours = assembly_of(other) if exact else None, assembly_of(reference)
    raise AssemblyError(
        facts(
            what,
            found=f"{'contig lengths' if exact else 'positions'} of another assembly"
            + (f" ({theirs})" if theirs else ""),
            expected="those of the FASTA" + (f" ({ours})" if ours else ""),
            fix="use files of one assembly, or lift this one over",
            count=len(differing),
            examples=differing,
        )
    )


def assembly_of(sizes: Mapping[str, int]) -> str | None:
    """Return the known assembly whose contig lengths fit best, or None."""
    bare = {canonical(name): size for name, size in sizes.items()}
    hits = {
        assembly: sum(bare.get(name) == size for name, size in known.items())
        for assembly, known in ASSEMBLIES.items()
    }
    best = max(hits, key=lambda assembly: hits[assembly])
    return best if hits[best] else None


def assembly_named(name: str) -> str | None:
    """Return the known assembly that a name means, or None.

    >>> assembly_named("hg38"), assembly_named("GRCh38.p14"), assembly_named("R64-1-1")
    ('hg38/GRCh38', 'hg38/GRCh38', 'sacCer3/R64')
    """
    bare = _PATCH.sub("", name).lower()
    for known in ASSEMBLIES:
        if bare in (known.lower(), *known.lower().split("/")):
            return known
    return None


def same_assembly(first: str, second: str) -> bool:
    """Tell whether two names mean one assembly: hg38 = GRCh38, sacCer3 = R64."""
    return (assembly_named(first) or first) == (assembly_named(second) or second)


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
