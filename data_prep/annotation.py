"""GTF to gene table: one row per gene, with its TSS and what its transcripts are like.

GTF counts from 1 and includes the end; everything here is 0-based half-open.
"""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.config import AnnotationConfig
from seq2exp.core.errors import FormatError, InputError, Seq2ExpWarning, facts
from seq2exp.core.genes import ENSEMBL_VERSION

__all__ = ["Annotation", "read_annotation", "strip_version"]

_COLUMNS = ("contig", "source", "feature", "start", "end", "score", "strand", "frame", "attributes")
_FEATURES = ("gene", "transcript", "exon", "CDS", "stop_codon")


@dataclass(frozen=True)
class Annotation:
    """Genes of a GTF."""

    genes: pd.DataFrame
    """gene_id, symbol, contig, tss, strand, biotype, gene_start, gene_end, status, then num_exons,
    cds_length, utr5_length, utr3_length, intron_length, num_cds (float, NaN where unknown)."""
    cds: pd.DataFrame
    """gene_id, start, end of the coding intervals of the transcript that the lengths describe."""
    counts: dict[str, int]
    """Rows and genes that were left out, by reason."""
    max_end: dict[str, int]
    """Largest position used on each contig, to compare with the FASTA."""


def strip_version(ids: pd.Series) -> pd.Series:
    """Return Ensembl ids without their version: ENSG00000100266.12 is ENSG00000100266.

    Only Ensembl's own form is touched; other ids may hold a dot that means something.
    """
    return ids.str.replace(ENSEMBL_VERSION, r"\1\2", regex=True)


def read_annotation(path: Path, config: AnnotationConfig) -> Annotation:
    """Return the gene table of a GTF.

    Parameters
    ----------
    path : Path
        Plain, gzip or bgzip GTF with gene lines; transcript lines too when ``config.tss`` is
        ``transcript``.
    config : AnnotationConfig

    Raises
    ------
    InputError
        Missing file, bad rows (unless skipped), a gene id twice, or no gene left.
    FormatError
        The file is damaged or no GTF.
    """
    rows = _read_rows(Path(path))
    rows, num_bad = _drop_bad(rows, path, config)
    _parse_attributes(rows)
    max_end = rows.groupby("contig", sort=False)["end"].max()
    genes, counts = _genes(rows, path, config)
    transcripts = _choose_transcripts(rows[rows["gene_id"].isin(genes["gene_id"])], config)
    if config.tss == "transcript":
        genes = _move_tss(genes, transcripts, path)
    structure, cds = _structure(rows, transcripts)
    genes = genes.merge(structure, on="gene_id", how="left", validate="one_to_one")
    order = np.lexsort((genes["gene_id"], genes["tss"], genes["contig"]))
    return Annotation(
        genes=genes.iloc[order].reset_index(drop=True),
        cds=cds,
        counts={"gtf_bad_rows": num_bad, **counts},
        max_end={str(name): int(end) for name, end in max_end.items()},
    )


def _read_rows(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="a GTF", fix="check the path")
        )
    try:
        raw = path.read_bytes()
        text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        frame = pd.read_csv(
            io.BytesIO(_without_comments(text)),
            sep="\t",
            header=None,
            names=[*_COLUMNS, "extra"],
            index_col=False,
            dtype=str,
            quoting=3,
            keep_default_na=False,
            na_values=[""],
        )
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"text that cannot be read ({error})",
                expected="a GTF with nine tab-separated columns",
                fix="restore or download the file again",
            )
        ) from error
    if frame.empty:
        raise InputError(
            facts(str(path), found="no row", expected="gene lines", fix="check the file")
        )
    return frame


def _without_comments(text: bytes) -> bytes:
    """Cut the header, and comments between rows where there are any."""
    while text.startswith(b"#"):
        text = text[text.find(b"\n") + 1 :] if b"\n" in text else b""
    if b"\n#" in text:
        text = b"\n".join(line for line in text.split(b"\n") if not line.startswith(b"#"))
    return text


def _drop_bad(rows: pd.DataFrame, path: Path, config: AnnotationConfig) -> tuple[pd.DataFrame, int]:
    """Keep the features we use; refuse or leave out rows that cannot be used."""
    whole = rows["attributes"].notna() & rows["extra"].isna()
    used = rows["feature"].isin(_FEATURES) | ~whole
    rows = rows[used].copy()
    start = pd.to_numeric(rows["start"], errors="coerce")
    end = pd.to_numeric(rows["end"], errors="coerce")
    known_id = rows["attributes"].str.contains(r"(?:^|[;\s])gene_id\s+\"[^\"]+\"", na=False)
    bad = {
        "not nine columns": ~whole[used],
        "start or end": ~((start >= 1) & (end >= start)),
        "strand": ~rows["strand"].isin(["+", "-"]),
        "no gene_id": ~known_id,
    }
    any_bad = np.logical_or.reduce([mask.to_numpy() for mask in bad.values()])
    if any_bad.any():
        reasons = ", ".join(f"{int(mask.sum())} {why}" for why, mask in bad.items() if mask.any())
        _report_bad(path, config, reasons, rows.index[any_bad], int(any_bad.sum()))
    rows = rows[~any_bad]
    # Categories make grouping cheap; int64 coordinates are 0-based from here on.
    return rows.assign(
        start=start[~any_bad].astype("int64") - 1, end=end[~any_bad].astype("int64")
    ), int(any_bad.sum())


def _report_bad(
    path: Path, config: AnnotationConfig, reasons: str, index: pd.Index, count: int
) -> None:
    message = facts(
        str(path),
        found=f"rows that cannot be used ({reasons})",
        expected="contig, source, feature, 1 <= start <= end, strand + or -, gene_id",
        fix="mend the rows, or set annotation.bad_rows: skip",
        count=count,
        examples=[f"data row {row + 1}" for row in index[:3]],
    )
    if config.bad_rows == "error":
        raise InputError(message)
    warnings.warn(message, Seq2ExpWarning, stacklevel=4)


def _parse_attributes(rows: pd.DataFrame) -> None:
    attributes = rows["attributes"]
    rows["gene_id"] = strip_version(_attribute(attributes, "gene_id"))
    rows["transcript_id"] = _attribute(attributes, "transcript_id")


def _attribute(attributes: pd.Series, *names: str) -> pd.Series:
    found = pd.Series(pd.NA, index=attributes.index, dtype=object)
    for name in names:
        values = attributes.str.extract(rf"(?:^|[;\s]){name}\s+\"([^\"]*)\"", expand=False)
        found = found.where(found.notna(), values)
    return found


def _genes(
    rows: pd.DataFrame, path: Path, config: AnnotationConfig
) -> tuple[pd.DataFrame, dict[str, int]]:
    lines = rows[rows["feature"] == "gene"]
    frame = pd.DataFrame(
        {
            "gene_id": lines["gene_id"],
            "symbol": _attribute(lines["attributes"], "gene_name", "gene"),
            "contig": lines["contig"],
            "strand": lines["strand"],
            "biotype": _attribute(lines["attributes"], "gene_biotype", "gene_type"),
            "gene_start": lines["start"],
            "gene_end": lines["end"],
        }
    )
    frame["symbol"] = frame["symbol"].fillna(frame["gene_id"])
    frame["biotype"] = frame["biotype"].fillna("")
    kept = frame[frame["biotype"].isin(config.biotypes)] if config.biotypes else frame
    if kept.empty:
        _refuse_no_gene(path, config, frame)
    _refuse_twice(kept, path)
    kept = kept.assign(tss=_five_prime(kept["gene_start"], kept["gene_end"], kept["strand"]))
    return kept.assign(status="ok"), {"gtf_genes_of_other_biotype": len(frame) - len(kept)}


def _refuse_no_gene(path: Path, config: AnnotationConfig, frame: pd.DataFrame) -> None:
    known = sorted(frame["biotype"].unique())
    raise InputError(
        facts(
            str(path),
            found=f"{len(frame)} gene lines" + (f" of biotype {', '.join(known[:5])}"),
            expected="genes" + (f" of biotype {config.biotypes}" if config.biotypes else ""),
            fix="check annotation.biotypes; files without gene lines need them added",
            count=0,
        )
    )


def _refuse_twice(genes: pd.DataFrame, path: Path) -> None:
    twice = genes.loc[genes["gene_id"].duplicated(), "gene_id"]
    if len(twice):
        raise InputError(
            facts(
                str(path),
                found="gene ids used twice (versions left out)",
                expected="one gene line per gene",
                fix="remove the copies",
                count=len(twice),
                examples=list(twice[:3]),
            )
        )


def _five_prime(start: pd.Series, end: pd.Series, strand: pd.Series) -> NDArray[np.int64]:
    """Return the 0-based first transcribed base: the start on plus, the last base on minus."""
    return np.where(strand == "+", start, end - 1).astype(np.int64)


def _choose_transcripts(rows: pd.DataFrame, config: AnnotationConfig) -> pd.DataFrame:
    lines = rows[(rows["feature"] == "transcript") & rows["transcript_id"].notna()]
    keep = np.ones(len(lines), dtype=bool)
    if config.transcript_sources:
        keep &= lines["source"].isin(config.transcript_sources).to_numpy()
    if config.transcript_biotypes:
        kinds = _attribute(lines["attributes"], "transcript_biotype", "transcript_type")
        keep &= kinds.isin(config.transcript_biotypes).to_numpy()
    if config.transcript_tags:
        tags = lines["attributes"].str.findall(r"(?:^|[;\s])tag\s+\"([^\"]*)\"")
        wanted = set(config.transcript_tags)
        keep &= np.array([bool(wanted & set(found)) for found in tags], dtype=bool)
    return lines[keep]


def _move_tss(genes: pd.DataFrame, transcripts: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Take the most 5' end of the chosen transcripts; genes without one keep theirs, marked."""
    bounds = transcripts.groupby("gene_id").agg(first=("start", "min"), last=("end", "max"))
    bounds = bounds.reindex(genes["gene_id"])
    known = bounds["first"].notna().to_numpy()
    if not known.any():
        raise InputError(
            facts(
                str(path),
                found="no transcript line that annotation.transcript_* chooses",
                expected="at least one per gene, because annotation.tss is transcript",
                fix="loosen annotation.transcript_*, or use tss: gene",
                count=0,
            )
        )
    first = bounds["first"].fillna(0).to_numpy(dtype=np.int64)
    last = bounds["last"].fillna(1).to_numpy(dtype=np.int64)
    moved = np.where(genes["strand"] == "+", first, last - 1)
    return genes.assign(
        tss=np.where(known, moved, genes["tss"]),
        status=np.where(known, genes["status"], "no chosen transcript"),
    )


def _structure(rows: pd.DataFrame, transcripts: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return lengths of one transcript per gene: longest CDS, then longest, then first by id."""
    parts = rows[rows["transcript_id"].isin(transcripts["transcript_id"])]
    exons = parts[parts["feature"] == "exon"]
    coding = parts[parts["feature"] == "CDS"]
    per = transcripts.set_index("transcript_id")[["gene_id", "start", "end", "strand"]]
    per = per[~per.index.duplicated()]
    per["exonic"] = _total(exons).reindex(per.index)
    per["num_exons"] = exons.groupby("transcript_id").size().reindex(per.index)
    per["cds_length"] = _total(coding).reindex(per.index)
    per["num_cds"] = coding.groupby("transcript_id").size().reindex(per.index)
    per = per[per["exonic"].notna()].reset_index()
    per = per.sort_values(
        ["gene_id", "cds_length", "exonic", "transcript_id"],
        ascending=[True, False, False, True],
        na_position="last",
    ).drop_duplicates("gene_id")
    per["intron_length"] = per["end"] - per["start"] - per["exonic"]
    _add_utr(per, exons, parts[parts["feature"].isin(["CDS", "stop_codon"])])
    columns = ["num_exons", "num_cds", "cds_length", "utr5_length", "utr3_length", "intron_length"]
    chosen = coding[coding["transcript_id"].isin(per["transcript_id"])]
    return (
        per[["gene_id", *columns]].astype(dict.fromkeys(columns, "float64")),
        chosen[["gene_id", "start", "end"]].reset_index(drop=True),
    )


def _total(rows: pd.DataFrame) -> pd.Series:
    return (rows["end"] - rows["start"]).groupby(rows["transcript_id"]).sum()


def _add_utr(per: pd.DataFrame, exons: pd.DataFrame, coding: pd.DataFrame) -> None:
    """Add the exonic bases before the first and behind the last coding base, stop included."""
    bounds = coding.groupby("transcript_id").agg(first=("start", "min"), last=("end", "max"))
    here = exons[exons["transcript_id"].isin(bounds.index)]
    low = here["transcript_id"].map(bounds["first"]).to_numpy(dtype=float)
    high = here["transcript_id"].map(bounds["last"]).to_numpy(dtype=float)
    before = (np.minimum(here["end"], low) - here["start"]).clip(lower=0)
    behind = (here["end"] - np.maximum(here["start"], high)).clip(lower=0)
    left = per["transcript_id"].map(before.groupby(here["transcript_id"]).sum())
    right = per["transcript_id"].map(behind.groupby(here["transcript_id"]).sum())
    plus = per["strand"] == "+"
    per["utr5_length"] = np.where(plus, left, right)
    per["utr3_length"] = np.where(plus, right, left)
