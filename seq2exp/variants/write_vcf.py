"""Results as VCF: the lines of the input with more INFO, or lines made from a table.

Shapes: A alleles, N rows (pairs of allele and gene), R records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seq2exp.variants.columns import ScoreColumn, info_keys
from seq2exp.variants.judge import STATUSES
from seq2exp.variants.result import Part, score_texts, texts
from seq2exp.variants.source import VariantSource
from seq2exp.variants.write_table import meaning, open_text_output
from seq2exp.variation.alleles import SEQUENCE_CLASSES

__all__ = ["VcfWriter"]

_FIELDS = {
    "S2E_STATUS": ("A", "String", "What became of the allele: " + ", ".join(STATUSES)),
    "S2E_GENE": ("A", "String", "Gene with the largest absolute {default}; . for none"),
    "S2E_NGENES": ("A", "Integer", "Genes whose window holds the allele"),
    "S2E_DISTANCE": (
        "A",
        "Integer",
        "Bases from the TSS of S2E_GENE, more than 0 downstream in the direction of transcription",
    ),
    "S2E_IN_ELEMENT": ("A", "Integer", "1 inside an element of S2E_GENE, 0 outside"),
}
_ENTRY = ("gene_id", "symbol", "gene_strand", "distance_to_tss", "status", "score_status",
          "in_element", "context", "num_haplotypes")  # fmt: skip
_ENTRY_NAMES = ("ALT", "gene_id", "symbol", "strand", "distance", "status", "score_status",
                "in_element", "context", "num_haplotypes")  # fmt: skip
_OURS = (b"##INFO=<ID=S2E_", b"##seq2exp_variants=")
_CONTIG = re.compile(rb"^##contig=<(?:.*,)?ID=([^,>]+)", re.IGNORECASE)
_RESERVED = {letter: f"%{ord(letter):02X}" for letter in (*"%,;=|", " ", "\t", "\r", "\n", '"')}
_NOT_IN_ENTRY = re.compile("[" + re.escape("".join(_RESERVED)) + "]")
_TBI_END = (1 << 29) - 1
_INFO = 7


class VcfWriter:
    """A VCF with scores in INFO.

    Parameters
    ----------
    path : Path
        Where to write.
    source : VariantSource
    columns : sequence of ScoreColumn
        The first of kind ``score`` chooses the gene of an allele.
    header : mapping
        Metadata.
    blocked : bool
        Write bgzip.
    """

    def __init__(
        self,
        path: Path,
        source: VariantSource,
        columns: Sequence[ScoreColumn],
        header: Mapping[str, Any],
        *,
        blocked: bool,
    ) -> None:
        self.path, self.blocked = path, blocked
        self._source, self._columns = source, columns
        self._keys = info_keys(columns)
        self._default = next((c.name for c in columns if c.kind == "score"), None)
        sizes = source.dataset.manifest.contigs
        self._sizes = {
            name: sizes.get(str(source.names.stored(name)), 0) for name in source.contigs
        }
        self._seen: set[str] = set()
        self._last: tuple[str, int] = ("", 0)
        self._end = 0
        self.in_order = True
        self._out = open_text_output(path, blocked=blocked)
        self._out.write(b"\n".join(self._header(header)) + b"\n")

    def _header(self, header: Mapping[str, Any]) -> list[bytes]:
        """Return the lines of the header: those of the input without ours, then ours."""
        given = self._source.header or [b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
        lines = [line for line in given[:-1] if not line.startswith(_OURS)]
        if not lines or not lines[0].startswith(b"##fileformat="):
            lines.insert(0, b"##fileformat=VCFv4.2")
        stated = {
            found[1].decode("utf-8", "replace") for found in map(_CONTIG.match, lines) if found
        }
        sizes = self._source.dataset.manifest.contigs
        for name in self._source.contigs:
            if name not in stated:
                contig = self._source.names.stored(name)
                length = "" if contig is None else f",length={sizes[contig]}"
                lines.append(f"##contig=<ID={_plain(name)}{length}>".encode())
        lines += [line.encode() for line in self._info_lines()]
        lines += [
            f'##seq2exp_variants=<ID={_key(key)},Value="{_quoted(value)}">'.encode()
            for key, value in header.items()
        ]
        return [*lines, given[-1]]

    def _info_lines(self) -> list[str]:
        line = '##INFO=<ID={},Number={},Type={},Description="{}">'
        default = self._default or "score"
        found = [
            line.format(key, number, kind, _quoted(words.format(default=default)))
            for key, (number, kind, words) in _FIELDS.items()
        ]
        found += [
            line.format(self._keys[c.name], "A", "Float", _quoted(f"{meaning(c)}; of S2E_GENE"))
            for c in self._columns
        ]
        names = [*_ENTRY_NAMES, *(self._keys[c.name].removeprefix("S2E_") for c in self._columns)]
        words = "One entry per ALT and gene; a dot is missing. Format: " + "|".join(names)
        return [*found, line.format("S2E_ALL", ".", "String", words)]

    def write(self, part: Part) -> None:
        """Write the records of a part."""
        alleles = part.alleles
        first_R = np.flatnonzero(np.diff(alleles["record"].to_numpy(), prepend=-1))
        infos = self._infos(part, first_R)
        if self._source.kind == "vcf":
            heads = alleles.iloc[first_R]
            places = list(zip(heads["chrom"].tolist(), heads["position"].tolist(), strict=True))
            lines = (
                _with_info(line, info)
                for line, info in zip(self._source.lines(part.shard), infos, strict=True)
            )
        else:
            fixed = [_fixed(alleles[a:b]) for a, b in pairwise([*first_R.tolist(), len(alleles)])]
            places = [(chrom, position) for chrom, position, *_ in fixed]
            lines = (
                "\t".join((chrom, str(position), label, ref, alts, ".", ".", info)).encode()
                for (chrom, position, label, ref, alts), info in zip(fixed, infos, strict=True)
            )
        for chrom, position in places:
            self._follow(chrom, position)
        refs = alleles["ref"].str.len().to_numpy() + alleles["position"].to_numpy()
        self._end = max(self._end, int(refs.max()))
        self._out.write(b"\n".join(lines) + b"\n")

    def _follow(self, chrom: str, position: int) -> None:
        """Notice records that are out of order."""
        if chrom != self._last[0]:
            self.in_order &= chrom not in self._seen
            self._seen.add(chrom)
        elif position < self._last[1]:
            self.in_order = False
        self._last = chrom, position

    def _infos(self, part: Part, first_R: NDArray[np.int64]) -> list[str]:
        """Return what is added to INFO, per record."""
        scores = part.scores
        best = self._best_rows(part)
        genes = np.add.reduceat((scores["gene_row"].to_numpy() >= 0).astype(np.int64), part.first_A)
        chosen = scores.iloc[best]
        fields = {
            "S2E_STATUS": _texts(chosen["status"]),
            "S2E_GENE": _encoded(_texts(chosen["gene_id"])),
            "S2E_NGENES": [str(number) for number in genes.tolist()],
            "S2E_DISTANCE": _texts(chosen["distance_to_tss"]),
            "S2E_IN_ELEMENT": _texts(chosen["in_element"]),
        }
        for column in self._columns:
            values = chosen[column.name].to_numpy(np.float32)
            fields[self._keys[column.name]] = score_texts(values, missing=".").to_pylist()
        entries = self._entries(part)
        ends = np.append(first_R, len(part.alleles)).tolist()
        row_ends = np.append(part.first_A, len(scores))[ends].tolist()
        keys = list(fields)
        if len(first_R) == len(part.alleles):
            joined = list(fields.values())
        else:
            joined = [[",".join(v[a:b]) for a, b in pairwise(ends)] for v in fields.values()]
        everything = [",".join(entries[a:b]) for a, b in pairwise(row_ends)]
        return [
            ";".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
            + f";S2E_ALL={entry}"
            for *values, entry in zip(*joined, everything, strict=True)
        ]

    def _best_rows(self, part: Part) -> NDArray[np.int64]:
        """Return, per allele, the row with the largest absolute default score, or the first."""
        if self._default is None:
            return part.first_A
        size = np.abs(part.scores[self._default].to_numpy(np.float32))
        size = np.where(np.isnan(size), -1, size)
        order = np.lexsort((np.arange(len(size)), -size, part.allele_N))
        return order[part.first_A]

    def _entries(self, part: Part) -> list[str]:
        """Return the entry of S2E_ALL of every row."""
        alts = pa.array(_encoded(part.alleles["alt"].tolist()), pa.string())
        cells = [pc.take(alts, pa.array(part.allele_N))]
        cells += [pa.array(_encoded(_texts(part.scores[name])), pa.string()) for name in _ENTRY]
        cells += [
            score_texts(part.scores[column.name].to_numpy(np.float32), missing=".")
            for column in self._columns
        ]
        entries: list[str] = pc.binary_join_element_wise(*cells, "|").to_pylist()
        return entries

    def close(self) -> None:
        """Finish the file; a second time does nothing."""
        if not self._out.closed:
            self._out.close()

    def index(self) -> Path | None:
        """Index the finished file; None where it is plain or out of order.

        The index is a ``.csi`` where a contig is too long for a ``.tbi``.
        """
        if not (self.blocked and self.in_order):
            return None
        import pysam

        far = (
            max([self._end, *self._sizes.values(), *self._source.text.lengths.values()]) > _TBI_END
        )
        made = self.path.with_name(self.path.name + (".csi" if far else ".tbi"))
        level = pysam.set_verbosity(0)
        try:
            pysam.tabix_index(str(self.path), preset="vcf", force=True, csi=far, keep_original=True)
        except OSError:
            # htslib has rules of its own on coordinates; the file is whole without an index.
            made.unlink(missing_ok=True)
            return None
        finally:
            pysam.set_verbosity(level)
        return made


def _with_info(line: bytes, info: str) -> bytes:
    """Return a line of a VCF with more INFO, instead of what an earlier run has written there."""
    parts = line.split(b"\t", _INFO + 1)
    kept = parts[_INFO]
    if b"S2E_" in kept:
        kept = b";".join(field for field in kept.split(b";") if not field.startswith(b"S2E_"))
    parts[_INFO] = info.encode() if kept in (b"", b".") else kept + b";" + info.encode()
    return b"\t".join(parts)


def _fixed(alleles: pd.DataFrame) -> tuple[str, int, str, str, str]:
    """Return CHROM, POS, ID, REF and ALT of a record of a table."""
    row = {str(name): value for name, value in alleles.iloc[0].items()}
    position, ref, alts = row["position"], row["ref"], ",".join(alleles["alt"])
    normal = row["ref_status"] == "ok" and row["variant_type"] in SEQUENCE_CLASSES
    if len(alleles) == 1 and "-" in (ref, alts) and normal:
        # A VCF has no gaps: the base beside an insertion or deletion stands in both alleles.
        position, ref, alts = (row[name] for name in ("norm_position", "norm_ref", "norm_alt"))
    label = re.sub(r"[\s;,]", "_", row["id"])
    ref = "N" if ref == "." else _plain(ref)
    return _plain(row["chrom"]), max(position + 1, 0), label, ref, _plain(alts)


def _plain(text: str) -> str:
    return re.sub(r"\s", "_", text)


def _texts(values: pd.Series) -> list[str]:
    array = pa.array(values, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    found: list[str] = [text or "." for text in texts(array, missing=".").to_pylist()]
    return found


def _encoded(values: list[str]) -> list[str]:
    """Return texts as they may stand in INFO: reserved characters as % and two digits."""
    return [
        _NOT_IN_ENTRY.sub(lambda found: _RESERVED[found[0]], value)
        if _NOT_IN_ENTRY.search(value)
        else value
        for value in values
    ]


def _key(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)


def _quoted(value: object) -> str:
    """Return a value as it may stand between quotes in a header."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return " ".join(text.replace("\\", "/").replace('"', "'").split())
