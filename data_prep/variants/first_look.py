"""The first records of a VCF against the genome: enough to see another assembly at once."""

from __future__ import annotations

from data_prep.donor_config import GenotypeConfig
from data_prep.genome import Genome, read_bases
from data_prep.variants.judge import REF_REASONS, Found, wrong_ref
from data_prep.variants.records import Line, read_lines, strand_hints
from seq2exp.core.errors import Seq2ExpError
from seq2exp.variation.alleles import Allele, classify, ref_status
from seq2exp.variation.vcf_file import VcfFile
from seq2exp.variation.vcf_names import ContigNames

__all__ = ["first_look"]

_RECORDS = 200
_TEXT = 1 << 22
_SPAN = 1 << 21
_ENOUGH = 10
_MOST = 0.5


def first_look(
    file: VcfFile, genome: Genome, names: ContigNames, config: GenotypeConfig
) -> list[Seq2ExpError]:
    """Return the problem that most of the first records have, before hours of reading.

    A few wrong records are left for the whole file to count.

    Parameters
    ----------
    file : VcfFile
    genome : Genome
    names : ContigNames
    config : GenotypeConfig

    Raises
    ------
    FormatError
        A line is no record.
    """
    with file.open() as handle:
        end = min(file.start + _TEXT, file.size)
        lines = next(read_lines(handle, file.start, end, name=str(file.path)), [])
    lines = [line for line in lines if names.known(line.contig)][:_RECORDS]
    # One stretch of the genome: the first contig, as far as is quickly read.
    lines = [
        line
        for line in lines
        if line.contig == lines[0].contig and 0 <= line.position - lines[0].position < _SPAN
    ]
    found = _compare(lines, genome, names) if lines else Found()
    wrong = sum(found.reasons[reason] for reason in REF_REASONS if reason != "ref_has_n")
    num = found.counts["alleles"]
    if num < _ENOUGH or wrong <= max(_MOST, config.max_mismatch) * num:
        return []
    return wrong_ref(found, config, f"{file.path}, its first {len(lines)} records")


def _compare(lines: list[Line], genome: Genome, names: ContigNames) -> Found:
    found = Found()
    contig = names.known(lines[0].contig)
    if contig is None:
        return found
    start = min(max(lines[0].position, 0), genome.sizes[contig])
    last = max(line.position + len(line.ref) for line in lines)
    codes = read_bases(genome, contig, start, max(min(last, genome.sizes[contig]), start))
    reasons, positions, refs = [], [], []
    for line in lines:
        alts = [alt for alt in line.alts if classify(line.ref, alt) in ("snv", "mnv")]
        for alt in alts:
            reason = ref_status(Allele(line.position - start, line.ref, alt), codes)
            found.counts["alleles"] += 1
            reasons.append("" if reason == "ok" else reason)
            positions.append(line.position - start)
            refs.append(line.ref)
            if reason != "ok":
                found.reasons[reason] += 1
                shown = found.examples.setdefault(reason, [])
                shown.append(f"{line.contig}:{line.position + 1} {line.ref[:20]}>{alt[:20]}")
    found.hints.update(strand_hints(reasons, positions, refs, codes))
    return found
