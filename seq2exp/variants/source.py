"""Variants to be scored, in shards: surveyed once, then read again at any place.

Shapes: S shards.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.textfile import SeekableText
from seq2exp.dataset.store import Dataset
from seq2exp.variants.columns import ALLELE_COLUMNS, UNKNOWN_ID
from seq2exp.variants.lookup import look_up
from seq2exp.variants.preflight import check
from seq2exp.variants.rows import Row
from seq2exp.variants.survey import Survey, survey
from seq2exp.variants.texts import VariantText, open_variant_text, words_text
from seq2exp.variation.alleles import CLASSES, STATUSES, normalise_all
from seq2exp.variation.vcf_names import ContigNames

__all__ = ["SHARD_SIZE", "Shard", "VariantSource", "open_source"]

SHARD_SIZE = 1024


@dataclass(frozen=True)
class Shard:
    """A run of records that is read, scored and written together.

    Attributes
    ----------
    number : int
    first_record, num_records : int
    num_alleles : int
        Rows of its table of alleles.
    start, end : int
        Offsets in the text, half-open.
    """

    number: int
    first_record: int
    num_records: int
    num_alleles: int
    start: int
    end: int


class VariantSource:
    """Variants of a file or of the command line, read shard by shard.

    Holds paths and numbers only, a few bytes per thousand records, and can be pickled; the file is
    opened by each process for itself.

    Parameters
    ----------
    text : VariantText
    found : Survey
    dataset : Dataset

    Attributes
    ----------
    kind : str
        ``vcf`` or ``table``.
    path : Path
        The user's file, for messages; ``--variant`` for words.
    num_records, num_alleles : int
    sorted : bool
        Each contig in one piece and positions that never fall, so that output can be indexed.
    sha256 : str
        Checksum of the input, and of what ids were looked up in.
    contigs : dict of str to int
        Records by contig as written, in the order of the file.
    notes : list of str
        What is odd about the input but does no harm.
    """

    def __init__(self, text: VariantText, found: Survey, dataset: Dataset) -> None:
        self.text = text
        self.kind = "vcf" if text.columns is None else "table"
        self.path = text.path
        self.num_records, self.num_alleles = found.num_records, found.num_alleles
        self.sorted = found.sorted
        self.sha256 = text.sha256
        self.contigs = found.contigs
        self.notes = found.notes
        self.shard_size = found.shard_size
        self.names = ContigNames(dataset.manifest.contigs, dataset.manifest.contigs)
        self._root = dataset.root
        self._dataset: Dataset | None = dataset
        self._start_S = np.append(found.start_S, text.size)
        self._alleles_S = found.alleles_S
        self._handle: tuple[int, SeekableText] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_dataset": None}

    @property
    def dataset(self) -> Dataset:
        """The genome."""
        if self._dataset is None:
            self._dataset = Dataset(self._root)
        return self._dataset

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return len(self._alleles_S)

    @property
    def shards(self) -> list[Shard]:
        """All shards, in the order of the input."""
        return [self.shard(number) for number in range(self.num_shards)]

    def shard(self, number: int) -> Shard:
        """Return the shard of a number."""
        first = number * self.shard_size
        size = min(self.shard_size, self.num_records - first)
        start, end = (int(offset) for offset in self._start_S[number : number + 2])
        return Shard(number, first, size, int(self._alleles_S[number]), start, end)

    @property
    def header(self) -> list[bytes]:
        """Lines of the header of a VCF, without line ends; none for a table."""
        if self.kind != "vcf":
            return []
        text = self._text().read(0, self.text.start).removeprefix(b"\xef\xbb\xbf")
        return [line.rstrip(b"\r") for line in text.split(b"\n") if line.strip()]

    def lines(self, shard: Shard) -> Iterator[bytes]:
        """Yield the text of the records of a shard, without line ends."""
        for _, line in self.text.lines(self._text(), shard.start, shard.end):
            yield line

    def read(self, shard: Shard) -> pd.DataFrame:
        """Return the alleles of a shard, normalised, with the status of their REF.

        Parameters
        ----------
        shard : Shard

        Returns
        -------
        DataFrame
            Columns ``seq2exp.variants.columns.ALLELE_COLUMNS``; rows in the order of the input.
        """
        rows = [self.text.row(line) for line in self.lines(shard)]
        alts = [row.alts.split(",") for row in rows]
        counts = [len(each) for each in alts]
        which = np.repeat(np.arange(len(rows)), counts)
        numbers = np.concatenate([_numbers(each) for each in alts])
        picked = [rows[i] for i in which]
        frame = pd.DataFrame(
            {
                "record": shard.first_record + which,
                "allele": numbers,
                "position": np.array([row.position for row in picked], dtype=np.int64),
                **{name: _texts(picked, name) for name in ("chrom", "id", "ref")},
                "alt": pd.Series([alt for each in alts for alt in each], dtype=object),
                "gene": _texts(picked, "gene"),
                "haplotype": pd.Series(
                    [name for row in rows for name in _haplotypes(row)], dtype=object
                ),
            }
        )
        for name, values in self._judged(frame).items():
            frame[name] = values
        return frame[list(ALLELE_COLUMNS)].astype(ALLELE_COLUMNS)

    def _judged(self, frame: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Return the columns that depend on the genome."""
        size = len(frame)
        out: dict[str, NDArray[Any]] = {
            name: np.empty(size, dtype=object)
            for name in ("contig", "norm_ref", "norm_alt", "variant_type", "ref_status")
        }
        out["norm_position"] = np.empty(size, dtype=np.int64)
        out["was_normalised"] = np.empty(size, dtype=bool)
        kinds, statuses = np.array(CLASSES, dtype=object), np.array(STATUSES, dtype=object)
        for chrom, group in frame.groupby("chrom", sort=False):
            at = group.index.to_numpy()
            contig = self.names.stored(str(chrom))
            found = normalise_all(
                group["position"].to_numpy(np.int64),
                group["ref"].tolist(),
                group["alt"].tolist(),
                reference_codes=None if contig is None else self.dataset.contig_codes(contig),
            )
            out["contig"][at] = contig
            out["norm_position"][at] = found.position_M
            out["norm_ref"][at] = found.refs
            out["norm_alt"][at] = found.alts
            out["variant_type"][at] = kinds[found.class_M]
            out["ref_status"][at] = statuses[found.status_M]
            out["was_normalised"][at] = found.changed_M
        if self.text.columns is not None and self.text.columns.look_up:
            lost = (frame["chrom"] == ".") & (frame["position"] == -1) & (frame["id"] != ".")
            out["ref_status"][lost.to_numpy()] = UNKNOWN_ID
        return out

    def _text(self) -> SeekableText:
        """Return the open text of this process."""
        process = os.getpid()
        if self._handle is None or self._handle[0] != process:
            self._handle = process, self.text.open()
        return self._handle[1]

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        if self._handle is not None and self._handle[0] == os.getpid():
            self._handle[1].close()
        self._handle = None


def _numbers(alts: list[str]) -> NDArray[np.int32]:
    """Return the numbers of the ALTs of a record: from 1, but 0 for a record without one."""
    first = 0 if alts == ["."] else 1
    return np.arange(first, first + len(alts), dtype=np.int32)


def _haplotypes(row: Row) -> list[str]:
    """Return the haplotypes of every ALT: one for each, or the same for all."""
    names, num_alts = row.haplotype.split(","), row.alts.count(",") + 1
    if len(names) != num_alts:
        return [row.haplotype] * num_alts
    return ["" if name == "." else name for name in names]


def _texts(rows: list[Row], name: str) -> pd.Series:
    return pd.Series([getattr(row, name) for row in rows], dtype=object)


def open_source(
    path: Path | Sequence[str],
    *,
    dataset: Dataset,
    zero_based: bool | None = None,
    lookup: Path | None = None,
    gene_column: str | None = None,
    shard_size: int = SHARD_SIZE,
    max_mismatch: float = 0.05,
    cache: Path | None = None,
) -> VariantSource:
    """Survey variants and return where to read them; everything that is wrong is named at once.

    Parameters
    ----------
    path : Path or sequence of str
        VCF, BCF, TSV, CSV, a list of words, or Parquet, texts also gzip or bgzip; or the words
        themselves: ``chr1:100:A>G``, ``chr1_100_A_G_b38``, ``1-100-A-G``, ``1:100:A:G``, rsIDs.
    dataset : Dataset
        Genome and names of contigs.
    zero_based : bool or None
        Base of the positions of a table whose column of positions does not name it.
    lookup : Path, optional
        VCF or table with id, chromosome, position and alleles, for variants named by id only.
    gene_column : str, optional
        Column of a table with the genes to which variants are restricted.
    shard_size : int
        Records per shard.
    max_mismatch : float
        Most alleles, as a share, whose REF may not be what the genome says; 1 accepts all.
    cache : Path, optional
        Folder for copies of gzip, BCF and Parquet files; by default one that goes with the source.

    Raises
    ------
    InputError
        Missing, empty or other files, tables without the columns needed, rows that are no variants,
        no contig of the dataset, or ids that cannot be looked up.
    AssemblyError
        Contig lengths or most bases are those of another genome.
    FormatError
        Truncated or damaged file.
    ConfigError
        The base of positions is not stated.
    """
    temporary = None
    if cache is None:
        temporary = tempfile.mkdtemp(prefix="seq2exp_variants_")
        cache = Path(temporary)
    try:
        assembly = dataset.manifest.assembly
        if isinstance(path, str | Path):
            text = open_variant_text(
                Path(path),
                cache=cache,
                zero_based=zero_based,
                gene_column=gene_column,
                look_up=lookup is not None,
                assembly=assembly,
            )
        else:
            text = words_text(path, cache=cache, look_up=lookup is not None, assembly=assembly)
        text = look_up(text, lookup, cache=cache, zero_based=zero_based)
        source = VariantSource(text, survey(text, shard_size=shard_size), dataset)
        check(source, max_mismatch=max_mismatch)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if temporary is not None:
        weakref.finalize(source, shutil.rmtree, temporary, ignore_errors=True)
    return source
