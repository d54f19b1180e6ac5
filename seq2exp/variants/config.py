"""What is scored, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seq2exp.core.errors import ConfigError, facts
from seq2exp.variants.contexts import FLANK
from seq2exp.variants.judge import REF_POLICIES, RefPolicy

__all__ = ["ScoreConfig"]


@dataclass(frozen=True)
class ScoreConfig:
    """Which scores of a variant are computed, and in which way."""

    scorers: tuple[str, ...] = ()
    """Names of scores; the usual ones of the model when empty."""
    samples: tuple[str, ...] = ()
    """Labels of the model that are scored; all when empty."""
    genes: tuple[str, ...] = ()
    """Gene ids or symbols; all genes with the variant in their window when empty."""
    method: Literal["exact", "gradient"] = "exact"
    """exact: both alleles go through the model. gradient: first-order change of the prediction,
    one backward pass for all substitutions of a window."""
    ref_policy: RefPolicy = "flag"
    """What is done where REF is not what the genome says."""
    max_indel: int = 1000
    """Longest insertion or deletion, in bases."""
    edge: Literal["pad", "skip"] = "pad"
    """Windows that reach beyond a contig. pad: with N, said in edge_status; skip: not scored."""
    strands: Literal["auto", "forward", "both"] = "auto"
    """From which strand windows are read. auto: both for models that were made for both."""
    shifts: tuple[int, ...] = ()
    """Bases by which windows are moved; scores are averaged over them. When empty: none and a third
    of a bin in either direction, where the models were trained on windows moved as far."""
    indel_shifts: tuple[int, ...] = ()
    """The same for insertions and deletions, which move all bases behind them against the bins.
    When empty: `shifts` if these are named, else 16 that lie evenly over a bin."""
    ensemble: Literal["pred", "score"] = "pred"
    """What is averaged over members, strands and shifts."""
    mask_bp: int = 501
    """Width around the variant in which masks and tracks are compared."""
    element_threshold: float | None = None
    """Smallest mask of an element; the highest 5 % of the free bins of a window when not given."""
    batch_size: int = 32
    """Sequences per pass; changes speed, not numbers beyond rounding."""
    null_draws: int = 0
    """Shuffles of the surroundings in which every change is scored again, for p-values."""
    null_flank: int = FLANK
    """Bases on either side of a variant that are shuffled."""
    seed: int = 0
    """Draws what is random."""
    context: Literal["reference", "carriers", "dataset"] = "reference"
    """What else the sequences hold. carriers: what the haplotypes of carriers hold, by the
    genotypes of the input. dataset: the same by the genotypes of the dataset."""
    carriers: tuple[str, ...] = ()
    """Samples whose haplotypes count; all when empty."""
    max_carriers: int = 20
    """Most carriers of a variant whose haplotypes are looked at, drawn by the seed; 0 for all."""
    phase: Literal["error", "random"] = "error"
    """Heterozygous calls without phase. error: refused. random: the two alleles are dealt to the
    two haplotypes by a hash of seed, sample and position."""

    def __post_init__(self) -> None:
        checks = {
            "ref_policy": (self.ref_policy in REF_POLICIES, "one of " + ", ".join(REF_POLICIES)),
            "max_indel": (self.max_indel >= 0, "0 or more"),
            "shifts": (len(set(self.shifts)) == len(self.shifts), "different numbers"),
            "indel_shifts": (
                len(set(self.indel_shifts)) == len(self.indel_shifts),
                "different numbers",
            ),
            "mask_bp": (self.mask_bp >= 1, "1 or more"),
            "null_draws": (self.null_draws >= 0, "0 or more"),
            "null_flank": (self.null_flank >= 1, "1 or more"),
            "null": (
                not self.null_draws or self.method == "exact",
                "none with --method gradient, which knows small changes only",
            ),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "max_carriers": (self.max_carriers >= 0, "0 or more"),
            "context": (
                self.context == "reference" or (self.method == "exact" and not self.null_draws),
                "reference with --method gradient and with --null, which know no other",
            ),
            "element_threshold": (
                self.element_threshold is None or 0 < self.element_threshold <= 1,
                "0 < value <= 1",
            ),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"--{name.replace('_', '-')}",
                        found=getattr(self, name, "shuffle"),
                        expected=expected,
                        fix="change it",
                    )
                )
