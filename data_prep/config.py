"""The data configuration: what ``configs/data/*.yaml`` may say.

Every path is relative to the ``source`` folder that :func:`data_prep.build.prepare` is given, or
absolute.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_prep.donor_config import DonorConfig, DonorExpressionConfig, GenotypeConfig
from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, facts

__all__ = [
    "AnnotationConfig",
    "ContactConfig",
    "DataConfig",
    "DonorConfig",
    "DonorExpressionConfig",
    "ElementConfig",
    "ExpressionConfig",
    "FeatureConfig",
    "GenotypeConfig",
    "RegionConfig",
    "SplitConfig",
    "TrackConfig",
]

_TRACK_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.+-]*\Z")


@dataclass(frozen=True)
class AnnotationConfig:
    """Genes and their transcription start sites."""

    gtf: str
    """GTF file, plain, gzip or bgzip."""
    tss: Literal["gene", "transcript"] = "gene"
    """gene: 5' end of the gene line. transcript: most 5' end of the chosen transcripts."""
    biotypes: list[str] = field(default_factory=list)
    """Keep genes of these biotypes only, such as protein_coding; all when empty."""
    transcript_sources: list[str] = field(default_factory=list)
    """Choose transcripts whose GTF source column is one of these; all when empty."""
    transcript_biotypes: list[str] = field(default_factory=list)
    """Choose transcripts of these biotypes; all when empty."""
    transcript_tags: list[str] = field(default_factory=list)
    """Choose transcripts that carry one of these tags, such as MANE_Select; all when empty."""
    bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be used: stop, or leave them out with a counted warning."""


@dataclass(frozen=True)
class TrackConfig:
    """One bigWig."""

    name: str
    """Unique name: letters, digits and ``_ . + -``."""
    path: str
    """bigWig file."""
    assay: str = ""
    """Assay, such as DNase or H3K27ac; the name when empty."""
    biosample: str = ""
    """Biosample, such as K562."""
    unit: str = ""
    """Unit of the values in the file, such as fold change over control."""
    statistic: Literal["mean", "max"] = "mean"
    """How the bases of a bin are summarised."""
    nan: Literal["zero", "missing", "error"] = "zero"
    """What a base without an entry is: a zero, an unknown value, or an error."""
    transform: Literal["none", "log1p", "arcsinh"] = "none"
    """Function applied to the binned values."""
    covered: str = ""
    """BED of the intervals that the assay covers; outside, the signal is unknown."""
    allow_constant: bool = False
    """Accept a track that has one value everywhere."""

    def __post_init__(self) -> None:
        if not _TRACK_NAME.match(self.name):
            raise ConfigError(
                facts(
                    "tracks.name",
                    found=repr(self.name),
                    expected="letters, digits and _ . + -, the first a letter or digit",
                    fix="rename the track",
                )
            )


@dataclass(frozen=True)
class ExpressionConfig:
    """The label table: one row per gene, one column per sample."""

    path: str
    """TSV or CSV (by suffix), plain or gzip, with a header."""
    columns: list[str] = field(default_factory=list)
    """Sample columns to use, in this order; every numeric column when empty."""
    ignore: list[str] = field(default_factory=lambda: ["symbol", "chrom"])
    """Columns that are no samples."""
    gene_column: str = "gene_id"
    """Column that holds the gene ids."""
    unit: str = ""
    """Unit of the file, such as TPM."""
    transform: Literal["none", "log1p", "log2p1", "log10p1"] = "none"
    """Function applied to the values."""


@dataclass(frozen=True)
class ContactConfig:
    """The contact profile of each gene."""

    source: Literal["none", "power_law", "table", "hic"] = "power_law"
    """power_law: distance alone. table: a file of contacts per gene. hic: a .hic file."""
    path: str = ""
    """Table or .hic file."""
    bin_size: int = 5000
    """Bin width in bases."""
    num_bins: int = 40
    """Number of bins around the TSS, even."""
    gamma: float = 0.87
    """Exponent of the power law."""
    scale: float = 5.3181
    """Natural logarithm of the power law at one base."""
    normalization: str = "VC"
    """Normalisation read from a .hic file."""

    def __post_init__(self) -> None:
        if self.bin_size < 1 or self.num_bins < 2 or self.num_bins % 2:
            raise ConfigError(
                facts(
                    "contacts",
                    found=f"bin_size {self.bin_size}, num_bins {self.num_bins}",
                    expected="a positive bin_size and an even, positive num_bins",
                    fix="change contacts.bin_size or contacts.num_bins",
                )
            )
        if bool(self.path) != (self.source in ("table", "hic")):
            raise ConfigError(
                facts(
                    "contacts.path",
                    found=f"{self.path!r} with source {self.source}",
                    expected="a path for table and hic, none otherwise",
                    fix="set contacts.source and contacts.path together",
                )
            )


@dataclass(frozen=True)
class FeatureConfig:
    """Scalar gene features, columns of genes.parquet."""

    lengths: bool = True
    """log10 lengths of CDS, UTRs, introns and gene, exon number and density."""
    gc: bool = True
    """GC fraction of the gene, its CDS, and the bases around the TSS."""
    promoter: bool = True
    """Mean of every track around the TSS, and their product where the assays allow."""
    promoter_bp: int = 500
    """Bases on either side of the TSS that count as promoter."""


@dataclass(frozen=True)
class SplitConfig:
    """Which genes are held out: whole contigs (``IX``) or regions (``22:43000000-44000000``)."""

    valid: list[str] = field(default_factory=list)
    """Contigs or 0-based half-open regions of the validation genes."""
    test: list[str] = field(default_factory=list)
    """Contigs or regions of the test genes."""
    train: list[str] = field(default_factory=list)
    """Contigs or regions of the training genes; everything else when empty."""
    buffer_bp: int = 0
    """Genes whose TSS is closer than this to a region of another split are excluded: half of the
    longest window that the model may see."""


@dataclass(frozen=True)
class RegionConfig:
    """Where signal and labels may be trusted."""

    exclude: list[str] = field(default_factory=list)
    """BED files, whole contigs (``Mito``) and 0-based half-open regions (``XII:451000-491000``)."""
    include: str = ""
    """BED of the real bases; everything outside it counts as excluded."""


@dataclass(frozen=True)
class ElementConfig:
    """One set of candidate elements: a file of intervals, or runs of one of the tracks."""

    name: str
    """Unique name: letters, digits and ``_ . + -``."""
    bed: str = ""
    """BED or narrowPeak file, plain or gzip, lines in any order; intervals that overlap are
    joined."""
    min_signal: float = 0.0
    """Of a narrowPeak: smallest signal (column 7) of a kept interval; 0 keeps all."""
    min_log10_q: float = 0.0
    """Of a narrowPeak: smallest -log10 q (column 9) of a kept interval; 0 keeps all."""
    track: str = ""
    """Name of a track whose stored bins are called, in place of a file."""
    quantile: float = 0.95
    """A bin is kept from this quantile of the training bins on (contigs with training genes,
    outside the validation and test regions)."""
    max_gap_bp: int = 0
    """Runs at most this far apart are joined."""
    min_length_bp: int = 150
    """Shorter runs are dropped."""

    def __post_init__(self) -> None:
        checks = {
            "name": (bool(_TRACK_NAME.match(self.name)), "letters, digits and _ . + -"),
            "bed": (bool(self.bed) != bool(self.track), "either bed or track, for each set"),
            "min_signal": (self.min_signal == 0 or bool(self.bed), "0 without a bed"),
            "min_log10_q": (self.min_log10_q == 0 or bool(self.bed), "0 without a bed"),
            "quantile": (0 < self.quantile < 1, "0 < value < 1"),
            "max_gap_bp": (self.max_gap_bp >= 0, ">= 0"),
            "min_length_bp": (self.min_length_bp >= 1, ">= 1"),
        }
        for key, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"elements.{key}",
                        found=repr(getattr(self, key)),
                        expected=expected,
                        fix="change it",
                    )
                )


@dataclass(frozen=True)
class DataConfig:
    """One dataset: genome, genes, tracks, labels, and how they are split."""

    assembly: str
    """Name of the assembly, recorded with the dataset."""
    fasta: str
    """Genome, plain or bgzip FASTA."""
    annotation: AnnotationConfig
    """Genes."""
    tracks: list[TrackConfig] = field(default_factory=list)
    """Epigenomic tracks, in order; may be empty."""
    expression: ExpressionConfig | None = None
    """Labels; may be left out."""
    contacts: ContactConfig = field(default_factory=ContactConfig)
    """Contact profiles."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    """Scalar features."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Train, validation and test genes."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    """Excluded and included regions."""
    elements: list[ElementConfig] = field(default_factory=list)
    """Named sets of candidate elements, for masks that read them; may be empty."""
    genotypes: GenotypeConfig | None = None
    """Genotypes of donors; may be left out."""
    donors: DonorConfig | None = None
    """Who the donors are and what they express; needs genotypes."""
    contigs: list[str] = field(default_factory=list)
    """Contigs to store; those with genes when empty."""
    bin_size: int = 128
    """Bases per stored bin."""
    track_dtype: Literal["float16", "float32"] = "float16"
    """Storage type of the tracks."""
    bad_tracks: Literal["error", "skip"] = "error"
    """What to do with a track that cannot be used: stop, or leave it out, with a warning and a line
    in skipped_tracks.json of the dataset."""

    def __post_init__(self) -> None:
        if not 1 <= self.bin_size <= 100_000:
            raise ConfigError(
                facts(
                    "bin_size",
                    found=self.bin_size,
                    expected="between 1 and 100000 bases",
                    fix="use 16, 32, 64 or 128",
                )
            )
        if self.donors is not None and self.genotypes is None:
            raise ConfigError(
                facts(
                    "donors",
                    found="donors without genotypes",
                    expected="the section genotypes beside the section donors",
                    fix="add genotypes.vcf, or give the expression as the section expression",
                )
            )
        for key in ("tracks", "elements"):
            names = [item.name for item in getattr(self, key)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ConfigError(
                    facts(
                        key,
                        found="names used twice",
                        expected=f"unique names of {key}",
                        fix=f"rename the {key}",
                        count=len(twice),
                        examples=twice,
                    )
                )
        for item in self.elements:
            if item.track:
                known = [track.name for track in self.tracks]
                what = f"elements {item.name}: track"
                require_known(what, item.track, known, expected="the name of a track")

    def resolve(self, path: str, source: Path) -> Path:
        """Return where a path of this configuration lies."""
        return (source / Path(path).expanduser()).absolute()
