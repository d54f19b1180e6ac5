"""What all parts of the files hold together, and whether it may be stored."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.donor_config import GenotypeConfig
from data_prep.variants.tasks import EXAMPLES
from seq2exp.core.errors import AssemblyError, InputError, Seq2ExpError, Seq2ExpWarning, facts
from seq2exp.variation.vcf_file import VcfFile
from seq2exp.variation.vcf_names import ContigNames

__all__ = ["REF_REASONS", "Found", "judge", "judge_copies", "sum_up", "wrong_ref"]

REF_REASONS = ("mismatch", "swapped", "out_of_bounds", "ref_has_n")
_CLEAN = (
    '`bcftools norm -m -any IN | bcftools view -e \'ALT="." || REF=ALT || '
    'REF~"[^ACGTacgt]" || ALT~"[^ACGTacgt]"\' -Oz -o OUT`'
)
_HOW_TO_MEND = {
    "ploidy": "leave out the donors with genotypes.exclude",
    "no_genotypes": "`bcftools view -i 'FORMAT/GT!=\"\"' -Oz -o OUT IN`",
    "duplicate_conflict": "`bcftools norm -d exact -Oz -o OUT IN`",
}
_WORDS = {
    "symbolic": "symbolic alleles and breakends",
    "star": "* alleles",
    "missing_alt": "records without ALT",
    "ref_block": "reference blocks",
    "allele_non_acgt": "alleles with letters other than ACGT",
    "alt_equals_ref": "ALT equal to REF",
    "ploidy": "calls of more than two alleles",
    "no_genotypes": "records without GT",
    "too_long": "too long insertions and deletions",
    "duplicate": "copies of a variant with the same genotypes",
    "duplicate_conflict": "copies of a variant with other genotypes",
    "mismatch": "REF that is not what the genome says",
    "swapped": "REF and ALT swapped",
    "out_of_bounds": "positions outside the contig",
    "ref_has_n": "REF where the genome has N",
}


@dataclass
class Found:
    """Sums over all shards."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    hints: Counter[str] = field(default_factory=Counter)
    alleles: Counter[str] = field(default_factory=Counter)
    """Alleles by contig of the dataset."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Records by contig that the dataset does not store."""
    unsorted: int = 0
    """Records that begin before the one in front of them, and contigs that come back."""

    @property
    def ploidy(self) -> int:
        """1 when every call is haploid."""
        return 1 if self.counts["calls_haploid"] and not self.counts["calls_diploid"] else 2


def sum_up(infos: Sequence[Sequence[dict[str, Any]]], names: ContigNames) -> Found:
    """Add up what the shards of each file say about themselves.

    Parameters
    ----------
    infos : sequence of sequences
        For each file, the information of its shards in order.
    names : ContigNames
    """
    found = Found()
    for shards in infos:
        seen: set[str] = set()
        last: tuple[str, int] | None = None
        for info in shards:
            found.counts.update(info["counts"])
            found.reasons.update(info["reasons"])
            found.hints.update(info["hints"])
            for reason, examples in info["examples"].items():
                shown = found.examples.setdefault(reason, [])
                shown += examples[: EXAMPLES - len(shown)]
            for batch in info["batches"]:
                found.alleles[batch["contig"]] += batch["alleles"]
            for contig, first, end, falls, num_records in info["runs"]:
                if names.stored(contig) is None:
                    found.elsewhere[contig] += num_records
                found.unsorted += falls
                if last is None or last[0] != contig:
                    found.unsorted += contig in seen
                elif first < last[1]:
                    found.unsorted += 1
                seen.add(contig)
                last = contig, end
    return found


def judge(
    found: Found, config: GenotypeConfig, files: Sequence[VcfFile], names: ContigNames
) -> list[Seq2ExpError]:
    """Return every reason not to store the genotypes; warn of what is left out or repaired."""
    what = _what(files)
    problems: list[Seq2ExpError] = []
    kept = found.counts["alleles"] - sum(found.reasons.values())
    if not found.counts["records"]:
        return [_nothing_shared(found, what, names)]
    problems += _unsupported(found, config, what)
    problems += wrong_ref(found, config, what)
    if not kept and not problems:
        problems.append(
            InputError(
                facts(
                    what,
                    found="no variant that can be used: "
                    + ", ".join(f"{n:,} {_WORDS[r]}" for r, n in found.reasons.items()),
                    expected="at least one",
                    fix="check the file, and genotypes.max_indel",
                )
            )
        )
    if not problems:
        _warn(found, config, what, names)
    return problems


def judge_copies(
    copies: Sequence[dict[str, list[Any]]], config: GenotypeConfig, files: Sequence[VcfFile]
) -> Counter[str]:
    """Refuse copies of a variant whose genotypes differ, unless they may be skipped; else warn.

    Parameters
    ----------
    copies : sequence of dict
        For each contig, by reason: the number of copies, then examples.
    config : GenotypeConfig
    files : sequence of VcfFile

    Returns
    -------
    Counter
        Copies by reason.
    """
    total: Counter[str] = Counter()
    for reason in ("duplicate_conflict", "duplicate"):
        found = [contig[reason] for contig in copies if reason in contig]
        if not found:
            continue
        total[reason] = sum(count for count, *_ in found)
        may = reason == "duplicate" or config.on_unsupported == "skip"
        message = facts(
            _what(files),
            found=_WORDS[reason] + " (in normal form)",
            expected="each variant once",
            fix="nothing: the first one is kept, the others are listed in genotypes/rejects.tsv"
            if may
            else f"{_HOW_TO_MEND[reason]}, or genotypes.on_unsupported: skip keeps the first",
            count=total[reason],
            examples=[text for _, *examples in found for text in examples],
        )
        if not may:
            raise InputError(message)
        warnings.warn(message, Seq2ExpWarning, stacklevel=2)
    return total


def _what(files: Sequence[VcfFile]) -> str:
    more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
    return f"{files[0].path}{more}"


def _nothing_shared(found: Found, what: str, names: ContigNames) -> InputError:
    return InputError(
        facts(
            what,
            found=f"records on {', '.join([*found.elsewhere][:3])} only",
            expected="records on contigs with genes, such as " + ", ".join([*names.kept][:3]),
            fix="check that genome, genes and genotypes are of one assembly",
            count=0,
        )
    )


def _unsupported(found: Found, config: GenotypeConfig, what: str) -> list[Seq2ExpError]:
    chosen = {
        reason: count
        for reason, count in found.reasons.items()
        if reason not in (*REF_REASONS, "too_long")
    }
    if config.on_unsupported == "skip":
        return []
    problems: list[Seq2ExpError] = []
    of_alleles = {reason: n for reason, n in chosen.items() if reason not in _HOW_TO_MEND}
    groups = [of_alleles, *({r: n} for r, n in chosen.items() if r in _HOW_TO_MEND)]
    for group in groups:
        if not group:
            continue
        fix = _HOW_TO_MEND.get(next(iter(group)), _CLEAN)
        problems.append(
            InputError(
                facts(
                    what,
                    found="what cannot be stored: "
                    + ", ".join(f"{count:,} {_WORDS[reason]}" for reason, count in group.items()),
                    expected="REF and ALT that are sequences, one or two alleles in each call",
                    fix=f"{fix}, or genotypes.on_unsupported: skip",
                    count=sum(group.values()),
                    examples=[text for reason in group for text in found.examples[reason]],
                )
            )
        )
    return problems


def wrong_ref(found: Found, config: GenotypeConfig, what: str) -> list[Seq2ExpError]:
    """Return the error about REF that is not what the genome says, unless it may be skipped."""
    wrong = {reason: found.reasons[reason] for reason in REF_REASONS if found.reasons[reason]}
    if not wrong:
        return []
    counted = sum(count for reason, count in wrong.items() if reason != "ref_has_n")
    checked = max(found.counts["alleles"] - found.reasons["ref_has_n"], 1)
    share = counted / checked
    if config.ref_mismatch == "skip" and share <= config.max_mismatch:
        return []
    fix = f"{_likely_cause(found, counted, checked)}; `bcftools norm -c x -f GENOME` or"
    fix += " genotypes.ref_mismatch: skip leaves them out"
    limit = f" at most {config.max_mismatch:.2%}" if config.ref_mismatch == "skip" else ""
    kind = AssemblyError if share > 0.5 else InputError
    return [
        kind(
            facts(
                what,
                found=f"{share:.1%} of {checked:,} alleles with a REF that does not fit: "
                + ", ".join(f"{count:,} {_WORDS[reason]}" for reason, count in wrong.items()),
                expected=f"{limit or 'none'}, each REF the bases of the genome",
                fix=fix,
                count=sum(wrong.values()),
                examples=[text for reason in wrong for text in found.examples[reason]],
            )
        )
    ]


def _likely_cause(found: Found, counted: int, checked: int) -> str:
    """Say what such a pattern of wrong REF usually comes from."""
    if counted and found.reasons["swapped"] > 0.9 * counted:
        return "REF and ALT are swapped, as PLINK does for major alleles: `bcftools norm -c s`"
    single = found.hints["wrong_single"]
    if single >= 3 and found.hints["other_strand"] > 0.9 * single:
        return "REF is the base of the other strand: flip the variants"
    if counted > 0.5 * checked:
        return "use the genome of the assembly that the variants were called on"
    if found.reasons["ref_has_n"] > counted:
        return "use a genome without masked bases"
    return "use the genome that the variants were called on"


def _warn(found: Found, config: GenotypeConfig, what: str, names: ContigNames) -> None:
    if found.reasons:
        _tell(
            what,
            found="alleles that are left out: "
            + ", ".join(f"{count:,} {_WORDS[reason]}" for reason, count in found.reasons.items()),
            expected="variants that can be stored",
            fix="nothing, if this was meant; read genotypes/rejects.tsv in the dataset",
            count=sum(found.reasons.values()),
            examples=[text for examples in found.examples.values() for text in examples],
        )
    if found.unsorted:
        _tell(
            what,
            found="records that are not in order",
            expected="contigs in one piece and positions that never fall",
            fix="nothing: they were sorted; `bcftools sort` does it for good",
            count=found.unsorted,
        )
    unknown = {name: n for name, n in found.elsewhere.items() if names.known(name) is None}
    if unknown:
        _tell(
            what,
            found="records on contigs that the genome does not have",
            expected="contigs of the FASTA under any alias",
            fix="nothing, if these contigs are not needed",
            count=sum(unknown.values()),
            examples=[*unknown],
        )


def _tell(what: str, **words: Any) -> None:  # noqa: ANN401
    warnings.warn(facts(what, **words), Seq2ExpWarning, stacklevel=3)
