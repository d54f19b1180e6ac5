"""The dataset directory on disk, format versions 1 and 2 (docs/dataset_format.md).

Only this module knows file names and the manifest's layout. ``data_prep`` writes through it, the
reader opens through it, so the two cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, facts
from seq2exp.core.files import read_json, safe_name, sha256, write_json
from seq2exp.dataset.format_genotypes import GenotypeInfo

__all__ = [
    "ELEMENT_COLUMNS",
    "FORMAT_VERSION",
    "GENE_COLUMNS",
    "SPLITS",
    "ContactInfo",
    "ExpressionInfo",
    "FeatureInfo",
    "FileInfo",
    "Manifest",
    "SourceFile",
    "TrackInfo",
    "contacts_path",
    "elements_path",
    "expression_path",
    "finish_manifest",
    "genes_path",
    "load_array",
    "manifest_path",
    "read_manifest",
    "read_table",
    "regions_path",
    "sequence_path",
    "skipped_tracks_path",
    "tracks_path",
    "verify",
    "write_table",
]

FORMAT_VERSION = 2
"""The newest layout: 2 with genotypes. What has none is written as 1, for older readers."""
T = TypeVar("T")
SPLITS = ("train", "valid", "test", "excluded")
ELEMENT_COLUMNS = ("set", "contig", "start", "end", "score")
GENE_COLUMNS = ("gene_id", "symbol", "contig", "tss", "strand", "biotype", "split")


@dataclass(frozen=True)
class TrackInfo:
    """One epigenomic track, in the order of the array's last axis."""

    name: str
    """Unique name, as configurations refer to it."""
    assay: str = ""
    """Assay, such as DNase or H3K27ac."""
    biosample: str = ""
    """Biosample, such as K562."""
    unit: str = ""
    """Unit of the stored values, after the transform."""
    statistic: str = "mean"
    """How the bases of a bin were summarised: mean or max."""
    nan: str = "zero"
    """What bases without data count as: zero or missing."""
    transform: str = "none"
    """Function applied to the binned values: none, log1p or arcsinh."""
    summary: dict[str, float] = field(default_factory=dict)
    """mean, std, min, max, quantile_99, covered_bases, zero_fraction over all stored contigs."""


@dataclass(frozen=True)
class ExpressionInfo:
    """The label table."""

    unit: str = ""
    """Unit before the transform, such as TPM."""
    transform: str = "none"
    """Function applied: none, log1p, log2p1 or log10p1."""
    samples: list[str] = field(default_factory=list)
    """Column names, in order."""


@dataclass(frozen=True)
class ContactInfo:
    """The per-gene contact profile: bin ``i`` spans ``[(i - n//2) * bin, ...)`` from the TSS."""

    source: str = "none"
    """none, power_law, table or hic."""
    bin_size: int = 0
    """Bin width in bases."""
    num_bins: int = 0
    """Number of bins, an even number, centred on the TSS, in genome direction."""
    unit: str = ""
    """Unit of the values."""


@dataclass(frozen=True)
class FeatureInfo:
    """One scalar gene feature: a column of genes.parquet."""

    name: str
    """Column name."""
    unit: str = ""
    """Unit, such as log10 bp."""
    source: str = "annotation"
    """What it was computed from: annotation, sequence or track. Sequence-only controls leave the
    last kind out."""


@dataclass(frozen=True)
class SourceFile:
    """An input file, so that a result can be traced to its data."""

    role: str
    """What it was used as, such as fasta or track:DNase."""
    name: str
    """File name without its folder."""
    size: int
    """Bytes."""
    sha256: str
    """Checksum of the content."""


@dataclass(frozen=True)
class FileInfo:
    """A file of the dataset: always checked by size, by checksum when asked."""

    size: int
    """Bytes."""
    sha256: str
    """Checksum of the content."""


@dataclass(frozen=True)
class Manifest:
    """Everything about a dataset that is not an array or a table."""

    assembly: str
    """Assembly name as the user gave it."""
    contigs: dict[str, int]
    """Stored contigs and their lengths in bases."""
    bin_size: int
    """Bin width of the tracks in bases."""
    tracks: list[TrackInfo] = field(default_factory=list)
    """Tracks in array order."""
    track_dtype: str = "float16"
    """float16 or float32."""
    expression: ExpressionInfo = field(default_factory=ExpressionInfo)
    """Label unit, transform and samples."""
    contacts: ContactInfo = field(default_factory=ContactInfo)
    """Contact profile, if any."""
    features: list[FeatureInfo] = field(default_factory=list)
    """Scalar gene features."""
    sources: list[SourceFile] = field(default_factory=list)
    """Input files."""
    config: dict[str, Any] = field(default_factory=dict)
    """The resolved data configuration."""
    counts: dict[str, int] = field(default_factory=dict)
    """Genes by split, dropped rows by reason, ambiguous bases and so on."""
    package_version: str = ""
    """seq2exp version that wrote the dataset."""
    genotypes: GenotypeInfo | None = None
    """Genotypes of donors, if any."""
    files: dict[str, FileInfo] = field(default_factory=dict)
    """Every other file, by its path inside the dataset."""
    format_version: int = 1
    """Layout version: 2 with genotypes, else 1."""

    @property
    def checksum(self) -> str:
        """Checksum of the dataset: that of its files' checksums, in order."""
        import hashlib

        lines = "".join(f"{name} {info.sha256}\n" for name, info in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def manifest_path(root: Path) -> Path:
    """Return the path of the manifest."""
    return root / "manifest.json"


def sequence_path(root: Path, contig: str) -> Path:
    """Return the path of a contig's base codes: uint8, shape (contig_length,)."""
    return root / "sequence" / f"{safe_name(contig)}.npy"


def tracks_path(root: Path, contig: str) -> Path:
    """Return the path of a contig's tracks: float, shape (ceil(length / bin_size), num_tracks)."""
    return root / "tracks" / f"{safe_name(contig)}.npy"


def genes_path(root: Path) -> Path:
    """Return the path of the gene table."""
    return root / "genes.parquet"


def expression_path(root: Path) -> Path:
    """Return the path of the label table: gene_id, then one float32 column per sample."""
    return root / "expression.parquet"


def contacts_path(root: Path) -> Path:
    """Return the path of the contact profiles: float32, shape (num_genes, num_contact_bins)."""
    return root / "contacts.npy"


def regions_path(root: Path) -> Path:
    """Return the path of the excluded regions: contig, start, end, reason."""
    return root / "regions.parquet"


def elements_path(root: Path) -> Path:
    """Return the path of the candidate elements: set, contig, start, end, score."""
    return root / "elements.parquet"


def skipped_tracks_path(root: Path) -> Path:
    """Return where the tracks that `prepare` left out are listed; not there when there are none."""
    return Path(root) / "skipped_tracks.json"


def write_table(
    frame: pd.DataFrame, path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a table as Parquet with page checksums, so that a flipped byte is seen when read."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    extra = {key.encode(): value.encode() for key, value in (metadata or {}).items()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **extra})
    pq.write_table(table, path, write_page_checksum=True)


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet table and verify its page checksums.

    Raises
    ------
    FormatError
        The file is missing, truncated or damaged.
    """
    try:
        frame: pd.DataFrame = (
            pq.ParquetFile(path, page_checksum_verification=True).read().to_pandas()
        )
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError) as error:
        # Arrow checks its pages, but not the names and the pandas notes beside them.
        raise _damaged(path, str(error)) from error
    return frame


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map an array read-only.

    Raises
    ------
    FormatError
        The file is missing, truncated, or holds Python objects.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, TokenError) as error:
        # The header of an array is Python text, with all the ways in which that can be broken.
        raise _damaged(path, str(error)) from error
    return array


def finish_manifest(root: Path, manifest: Manifest) -> Manifest:
    """Record size and checksum of every file under ``root`` and write the manifest last."""
    files = {
        path.relative_to(root).as_posix(): FileInfo(path.stat().st_size, sha256(path))
        for path in sorted(root.rglob("*"))
        if path.is_file() and path != manifest_path(root)
    }
    version = 1 if manifest.genotypes is None else 2
    complete = dataclasses.replace(manifest, files=files, format_version=version)
    values = dataclasses.asdict(complete)
    if complete.genotypes is None:
        # Readers of version 1 refuse keys that they do not know.
        del values["genotypes"]
    write_json(values, manifest_path(root))
    return complete


def read_manifest(root: Path) -> Manifest:
    """Read and check the manifest of a dataset.

    Raises
    ------
    FormatError
        ``root`` is no dataset, the manifest is damaged, or its format is newer than this package.
    """
    path = manifest_path(Path(root))
    if not path.is_file():
        raise FormatError(
            facts(
                str(root),
                found="no manifest.json",
                expected="a dataset directory",
                fix="give the folder that `seq2exp prepare` wrote",
            )
        )
    values = read_json(path)
    version = values.get("format_version") if isinstance(values, dict) else None
    if version is None and (path.parent / "config.yaml").is_file():
        raise FormatError(
            facts(
                str(root),
                found="a run, which `seq2exp train` wrote",
                expected="a dataset directory",
                fix="give the folder that `seq2exp prepare` wrote",
            )
        )
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise FormatError(
            facts(
                str(path),
                found=f"format_version {version!r}",
                expected=f"an integer, at most {FORMAT_VERSION}",
                fix="update seq2exp, or prepare the dataset again",
            )
        )
    try:
        manifest = _bind(Manifest, values)
    except (TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if manifest.bin_size < 1:
        raise _damaged(path, f"bin_size {manifest.bin_size}")
    return manifest


def _bind(cls: type[T], values: Any) -> T:  # noqa: ANN401
    """Build a dataclass from JSON values, nested ones included.

    The configuration binder copies the whole value for each list item: minutes for a hundred
    tracks. A manifest is written by this package, so plain types are all there is to check.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - hints.keys()) if isinstance(values, dict) else [repr(values)]
    if unknown:
        message = f"unknown entry {unknown[0]} in {cls.__name__}"
        raise ValueError(message)
    return cls(**{name: _typed(hints[name], value) for name, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:  # noqa: ANN401
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if value is None else _typed(inner[0], value)
    if dataclasses.is_dataclass(hint):
        return _bind(typing.cast("type", hint), value)
    if origin is list and isinstance(value, list):
        return [_typed(inner[0], item) for item in value]
    if origin is dict and isinstance(value, dict):
        return {str(key): _typed(inner[1], item) for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or (hint in (int, float, str) and type(value) is hint):
        return value
    message = f"{value!r} instead of {hint}"
    raise TypeError(message)


def verify(root: Path, manifest: Manifest, *, checksums: bool = False) -> None:
    """Check that every file of the manifest is there and whole.

    Parameters
    ----------
    root : Path
    manifest : Manifest
    checksums : bool
        Also compare SHA-256 (reads everything); sizes are always compared.

    Raises
    ------
    FormatError
        A file is missing, or differs in size or checksum.
    """
    for name, info in manifest.files.items():
        path = Path(root) / name
        if not path.is_file():
            raise _damaged(path, "no such file")
        if path.stat().st_size != info.size:
            raise _damaged(path, f"{path.stat().st_size} bytes instead of {info.size}")
        if checksums and sha256(path) != info.sha256:
            raise _damaged(path, "content that differs from its checksum")


def _damaged(path: Path, found: str) -> FormatError:
    return FormatError(
        facts(
            str(path),
            found=found,
            expected="the file that `seq2exp prepare` wrote",
            fix="restore it from a copy or prepare the dataset again",
        )
    )
