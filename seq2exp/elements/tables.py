"""Tables of other people: text or Parquet, with whatever header, as columns of known meaning.

Every layout is read by the names of its columns. Names are compared without case and without
anything but letters and digits, so that ``target_site.chr`` and ``Target Site Chr`` are one.
``ALIASES`` lists what is known; its sources:

* ENCODE distal-regulation CRISPR benchmark (Gschwind et al. 2023, doi 10.1101/2023.11.09.563812;
  column list in EngreitzLab/CRISPR_comparison, resources/crispr_data/README.md, and the header of
  ENCFF968BZL): chrom chromStart chromEnd name EffectSize ... measuredGeneSymbol
  measuredGeneEnsemblId (or measuredEnsemblID) Significant pValueAdjusted ValidConnection CellType
  Regulated. The older form of that repository: chrPerturbationTarget startPerturbationTarget
  endPerturbationTarget GeneSymbol.
* Fulco et al. 2019 (Nat. Genet. 51, 1664), Supplementary Table 6a saved as text: chr start end
  Gene "Fraction change in gene expr" "Adjusted p-value" Significant. Its line of title is skipped.
* Gasperini et al. 2019 (Cell 176, 377), GEO GSE120861 all_deg_results: target_site.chr
  target_site.start target_site.stop ENSG gene_short_name fold_change.transcript_remaining
  pvalue.empirical.adjusted site_type; and Table S2: chr.candidate_enhancer ...
  Diff_expression_test_fold_change, the share of transcript that remains.
* ABC model (Fulco et al. 2019; broadinstitute/ABC-Enhancer-Gene-Prediction, EnhancerPredictions*):
  chr start end class TargetGene TargetGeneEnsembl_ID TargetGeneTSS ABC.Score.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.contigs import assembly_named, same_assembly
from seq2exp.core.errors import AssemblyError, FormatError, InputError, facts

__all__ = [
    "ALIASES",
    "Table",
    "check_assembly",
    "intervals_of",
    "read_table",
    "read_text",
    "stated_assembly",
]

ALIASES: dict[str, tuple[str, ...]] = {
    "chrom": (
        "chrom", "chr", "chromosome", "chrom1", "chrperturbationtarget", "targetsitechr",
        "chrcandidateenhancer", "enhchr", "contig", "seqname",
    ),
    "start": (
        "chromstart", "start", "start1", "startperturbationtarget", "targetsitestart",
        "startcandidateenhancer", "enhstart",
    ),
    "end": (
        "chromend", "end", "stop", "end1", "endperturbationtarget", "targetsitestop",
        "stopcandidateenhancer", "enhend",
    ),
    "gene_id": (
        "measuredgeneensemblid", "measuredensemblid", "targetgeneensemblid", "ensemblid", "ensg",
        "geneensemblid", "geneid",
    ),
    "symbol": (
        "measuredgenesymbol", "genesymbol", "targetgene", "genename", "geneshortname",
        "targetgeneshort", "gene", "symbol",
    ),
    "effect": (
        "effectsize", "fractionchangeingeneexpr", "fractionchangeingeneexpression", "effect",
    ),
    "remaining": ("foldchangetranscriptremaining", "diffexpressiontestfoldchange"),
    "significant": ("significant",),
    "regulated": ("regulated",),
    "p_adjusted": (
        "pvalueadjusted", "adjustedpvalue", "pvalueempiricaladjusted", "pvaladjalltests",
        "diffexpressiontestempiricaladjustedpval", "padj", "fdr", "qvalue",
    ),
    "valid": ("validconnection", "includeinmodel"),
    "cell": ("celltype",),
    "site": ("sitetype",),
    "score": ("abcscore", "score"),
}  # fmt: skip
"""Role of a column to its known names, lower case, letters and digits only; first wins."""

_INTERVAL = {"chrom", "start", "end"}
_HEADER_WITHIN = 20
_NOTHING = ["", "NA", "NaN", "nan", "None", "not_applicable"]
_NAMED = re.compile(
    r"\b(?:assembly|genome[ _-]?(?:build|version)?|reference|build|db)\b\W{0,3}([\w.-]+)", re.I
)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of known meaning.

    Attributes
    ----------
    frame : DataFrame
        Some of the keys of :data:`ALIASES`; text, or what Parquet holds. The index is the number
        of the line in the file, or of the row of a Parquet table.
    header : list of str
        All column names of the file.
    assembly : str or None
        Assembly that a comment line states.
    path : Path
    """

    frame: pd.DataFrame
    header: list[str]
    assembly: str | None
    path: Path

    def require(self, *roles: str) -> None:
        """Raise unless every role has a column; the message names those that are missing.

        Raises
        ------
        FormatError
        """
        _require(self.path, self.header, set(self.frame.columns), roles)


def read_table(path: Path) -> Table:
    """Read a table with a header: TSV or CSV, plain, gzip or bgzip, or Parquet.

    Lines that start with ``##`` are comments. The header is the first line that names contig,
    start and end; it may begin with ``#``, and lines of title may stand above it.

    Raises
    ------
    InputError
        The file is missing or empty.
    FormatError
        It is damaged, no text, or has no header with contig, start and end.
    """
    path = Path(path)
    if path.suffix.lower() in (".parquet", ".pq"):
        return _parquet(path)
    lines = read_text(path).split("\n")
    number, separator, header = _find_header(lines, path)
    roles = _roles(header)
    body = lines[number + 1 :]
    tabs = separator == "\t"
    if tabs:
        _refuse_long_lines(body, len(header), number + 2, path)
    try:
        frame = pd.read_csv(
            io.StringIO("\n".join(body)),
            sep=separator,
            dtype=str,
            header=None,
            names=list(range(len(header))),
            usecols=sorted(roles.values()) if tabs else None,
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
            skip_blank_lines=False,
            na_values=_NOTHING,
            keep_default_na=False,
            index_col=False,
            on_bad_lines="error",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise _damaged(path, str(error).strip()) from error
    frame = frame[list(roles.values())].set_axis(list(roles), axis=1)
    frame = frame.apply(lambda column: column.str.strip(' "')) if tabs and len(frame) else frame
    frame.index = pd.RangeIndex(number + 2, number + 2 + len(frame), name="line")
    comment = frame["chrom"].fillna("#").str.startswith("#") & frame["start"].isna()
    return Table(frame[~comment], header, stated_assembly(lines[: number + 1]), path)


def read_text(path: Path) -> str:
    """Return the text of a plain, gzip or bgzip file.

    Raises
    ------
    InputError
        The file is missing or empty.
    FormatError
        It is damaged or no text.
    """
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a file", fix="check the path")
        )
    raw = path.read_bytes()
    if raw[:2] == b"PK":
        raise _damaged(path, "a ZIP archive, such as an .xlsx workbook", fix="save it as TSV")
    try:
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    if not text.strip():
        raise InputError(
            facts(str(path), found="an empty file", expected="intervals", fix="check the file")
        )
    return text.replace("\r\n", "\n").rstrip("\n")


def stated_assembly(lines: list[str]) -> str | None:
    """Return the assembly that comment, track or browser lines state, if it is a known one.

    >>> stated_assembly(["##assembly=hg19", "chr1 1 2"])
    'hg19'
    """
    for line in lines:
        if not line.startswith(("#", "track", "browser")):
            continue
        for name in _NAMED.findall(line):
            if assembly_named(name):
                return str(name)
    return None


def check_assembly(stated: str | None, ours: str, path: Path) -> None:
    """Raise when a file states another assembly than the dataset has.

    Raises
    ------
    AssemblyError
    """
    if stated is None or same_assembly(stated, ours):
        return
    raise AssemblyError(
        facts(
            str(path),
            found=f"a file that says it is of {stated}",
            expected=f"{ours}, the assembly of the dataset",
            fix="use a file of that assembly, or lift this one over",
        )
    )


def intervals_of(table: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and ends of a table, 0-based half-open.

    Raises
    ------
    FormatError
        A value is no whole number, negative, or start is not below end; line numbers are given.
    """
    found = {}
    for role in ("start", "end"):
        values = pd.to_numeric(table.frame[role], errors="coerce").to_numpy(np.float64)
        wrong = ~np.isfinite(values) | (values != np.floor(np.nan_to_num(values)))
        _refuse(table, wrong, role, f"whole numbers in column {role}")
        found[role] = values.astype(np.int64)
    _refuse(table, found["start"] < 0, "start", "starts of 0 or more")
    _refuse(table, found["start"] >= found["end"], "start", "start < end (0-based half-open)")
    return found["start"], found["end"]


def _refuse(table: Table, wrong: NDArray[np.bool_], role: str, expected: str) -> None:
    if not wrong.any():
        return
    bad = table.frame[wrong]
    places = zip(bad.index, bad["chrom"], bad["start"], bad["end"], strict=True)
    shown = [f"line {n}: {chrom}:{start}-{end}" for n, chrom, start, end in places]
    raise FormatError(
        facts(
            str(table.path),
            found=f"{role} {bad[role].iloc[0]!r}",
            expected=expected,
            fix="mend the lines",
            count=int(wrong.sum()),
            examples=shown,
        )
    )


def _plain(name: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _roles(header: list[str]) -> dict[str, int]:
    """Return, for each role that the header has, the place of its column."""
    plain = [_plain(name) for name in header]
    found = {}
    for role, names in ALIASES.items():
        place = next((plain.index(name) for name in names if name in plain), None)
        if place is not None:
            found[role] = place
    return found


def _require(path: Path, header: list[str], known: set[str], roles: Sequence[str]) -> None:
    missing = [role for role in roles if role not in known]
    if not missing:
        return
    wanted = [f"{role} (such as {', '.join(ALIASES[role][:3])})" for role in missing]
    raise FormatError(
        facts(
            str(path),
            found=f"columns {', '.join(header[:12]) or 'none'}",
            expected=f"also {'; '.join(wanted)}",
            fix="rename the columns, or name the kind of the file with --kind",
            count=len(missing),
        )
    )


def _find_header(lines: list[str], path: Path) -> tuple[int, str, list[str]]:
    """Return the number of the header line, what separates its columns, and the columns."""
    best: list[str] = []
    for number, line in enumerate(lines[:_HEADER_WITHIN]):
        if not line.strip() or line.startswith("##"):
            continue
        separator = "\t" if "\t" in line else ","
        header = [
            cell.strip() for cell in next(csv.reader([line.lstrip("#")], delimiter=separator))
        ]
        if _roles(header).keys() >= _INTERVAL:
            return number, separator, header
        if len(_roles(header)) > len(_roles(best)) or not best:
            best = header
    _require(path, best, set(_roles(best)), sorted(_INTERVAL))
    raise _damaged(path, "no header")


def _refuse_long_lines(lines: list[str], width: int, first: int, path: Path) -> None:
    long = [n for n, line in enumerate(lines, first) if line.count("\t") >= width]
    if long:
        raise FormatError(
            facts(
                str(path),
                found=f"more than {width} columns in line {long[0]}",
                expected=f"{width}, as in the header",
                fix="mend the lines",
                count=len(long),
            )
        )


def _parquet(path: Path) -> Table:
    import pyarrow as pa

    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a table", fix="check the path")
        )
    try:
        frame = pd.read_parquet(path)
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise _damaged(path, str(error)) from error
    header = [str(name) for name in frame.columns]
    roles = _roles(header)
    chosen = frame.iloc[:, list(roles.values())].set_axis(list(roles), axis=1)
    chosen.index = pd.RangeIndex(1, len(chosen) + 1, name="line")
    table = Table(chosen, header, None, path)
    table.require(*sorted(_INTERVAL))
    return table


def _damaged(path: Path, found: str, *, fix: str = "restore the file") -> FormatError:
    return FormatError(facts(str(path), found=found, expected="a table of text", fix=fix))
