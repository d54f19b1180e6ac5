"""GenePrior: one row per gene of what a sequence model knows, and the file that carries it.

This module and those it imports need `core` only, so that models without sequence can read priors.

Shapes: G genes, D embedding width, C outputs, R columns of the element summary, S spots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.genes import strip_version
from seq2exp.priors.algebra import fit_whitening, joint_embedding
from seq2exp.priors.checks import (
    SPLITS,
    check_prior,
    describe,
    require_alike,
    require_origin,
    typed_slots,
)
from seq2exp.priors.controls import make_control
from seq2exp.priors.identity import (
    AlignReport,
    GeneMatch,
    combined_hash,
    gene_names,
    id_system,
    match_genes,
    text_of,
)
from seq2exp.priors.storage import read_slots, write_slots

__all__ = ["AlignReport", "GenePrior", "describe"]


@dataclass(frozen=True, eq=False)
class GenePrior:
    """What a sequence model knows of each gene; refuses parts that contradict each other.

    Attributes
    ----------
    gene_id : object array, shape (num_genes,)
        Unique, without Ensembl version.
    z : float32 array, shape (num_genes, width)
        Embedding; finite where `present`.
    symbol, split, contig, strand : object arrays, shape (num_genes,)
        Empty where unknown. `split` is that of the sequence model: train, valid, test, or excluded
        where the gene was in none. Hidden genes of a study should be valid or test genes.
    tss : int64 array, shape (num_genes,)
        0-based; -1 where unknown.
    present : bool array, shape (num_genes,)
        False: no usable window. Its rows of z, expr and reg are 0.
    quality : float32 array, shape (num_genes,)
        Held-out accuracy for the gene, as `meta["quality"]` defines it; NaN where unknown.
    expr : float32 array, shape (num_genes, outputs)
        Predicted expression per track or cell type, named by `expr_names`.
    reg : float32 array, shape (num_genes, columns)
        Regulatory-element summary, named by `reg_names`; NaN where unknown.
    meta : dict
        See `META_KEYS`; more keys are allowed.
    """

    gene_id: NDArray[np.object_]
    z: NDArray[np.float32]
    symbol: NDArray[np.object_]
    split: NDArray[np.object_]
    contig: NDArray[np.object_]
    tss: NDArray[np.int64]
    strand: NDArray[np.object_]
    present: NDArray[np.bool_]
    quality: NDArray[np.float32]
    expr: NDArray[np.float32]
    expr_names: tuple[str, ...] = ()
    reg: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    reg_names: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=describe)

    def __post_init__(self) -> None:
        check_prior(self)

    def __len__(self) -> int:
        return len(self.gene_id)

    @property
    def text(self) -> str:
        """What the prior holds, for people."""
        splits = ", ".join(
            f"{name} {int((self.split[self.present] == name).sum()):,}" for name in SPLITS
        )
        known = np.isfinite(self.quality)
        lines = [
            f"{int(self.present.sum()):,} of {len(self):,} genes with a prior ({splits})",
            f"embedding of {self.z.shape[1]} dimensions, {self.meta['layer']}",
            f"predicted expression: {', '.join(self.expr_names) or 'none'}",
            f"element summary: {', '.join(self.reg_names) or 'none'}",
            f"quality known for {int(known.sum()):,} genes"
            + (f", median {np.median(self.quality[known]):.3f}" if known.any() else ""),
            *(f"without window: {text}" for text in self.meta.get("absent", ())),
            *(f"note: {text}" for text in self.meta.get("notes", ())),
        ]
        return "\n".join(lines)

    # The file -------------------------------------------------------------------------------------

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write ``priors.h5ad``, atomically.

        Raises
        ------
        InputError
            The path exists and ``overwrite`` is False.
        """
        slots = {item.name: getattr(self, item.name) for item in fields(self)}
        write_slots(slots, path, overwrite=overwrite)

    @classmethod
    def load(
        cls, path: Path, *, assembly: str | None = None, id_system: str | None = None
    ) -> GenePrior:
        """Read and check ``priors.h5ad``.

        Parameters
        ----------
        path : Path
        assembly : str, optional
            What the caller works with; other names of the same assembly fit (hg38 = GRCh38).
        id_system : str, optional
            The same for gene ids: ``ensembl/ENSG``, ``sgd``, ... (`identity.id_system`), or
            ``ensembl`` for any species.

        Raises
        ------
        FormatError
            No AnnData file, a damaged one, one without the slots of a prior, an unknown
            format_version, genes named twice, shapes that do not fit, NaN in z of a present gene.
        AssemblyError
            The prior is of another assembly.
        InputError
            There is no such file, or the ids are of another system.
        """
        slots = read_slots(path)
        try:
            prior = cls(**typed_slots(slots))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None
        except (TypeError, ValueError) as error:
            raise FormatError(
                facts(
                    str(path),
                    found=f"values of a wrong type ({error})",
                    expected="the types of docs/priors.md",
                    fix="write the file with `seq2exp priors`",
                )
            ) from None
        require_origin(prior, Path(path), assembly=assembly, system=id_system)
        return prior

    # Genes ----------------------------------------------------------------------------------------

    def take(
        self, rows: Sequence[int] | NDArray[np.int64], *, names: Sequence[str] = ()
    ) -> GenePrior:
        """Return the rows asked for, each once, in that order.

        Row -1 is a gene without prior: rows of 0, `present` False, and the id that ``names`` (one
        per row) has there.
        """
        index = np.asarray(rows, dtype=np.int64)
        known = index >= 0
        source = index.clip(0)

        def pick(name: str, empty: object) -> NDArray[Any]:
            picked: NDArray[Any] = getattr(self, name)[source].copy()
            picked[~known] = empty
            return picked

        missing: dict[str, object] = dict.fromkeys(("symbol", "contig", "strand"), "")
        missing |= dict.fromkeys(("z", "expr", "reg"), 0)
        missing |= {"split": "excluded", "tss": -1, "present": False, "quality": np.nan}
        slots: dict[str, Any] = {name: pick(name, empty) for name, empty in missing.items()}
        ids = np.array([strip_version(name) for name in names], dtype=object)
        slots["gene_id"] = pick("gene_id", ids[~known] if names else "")
        return replace(self, **slots)

    def align(
        self,
        genes: Sequence[str],
        *,
        symbols: Sequence[str] | None = None,
        synonyms: Mapping[str, str | Sequence[str]] | None = None,
        min_coverage: float = 0.0,
        ambiguous: str = "error",
    ) -> tuple[GenePrior, AlignReport]:
        """Return the prior of the genes asked for, in their order, and how they were found.

        A gene is matched by id (versions do not count), then by exact symbol, then by synonym.
        Genes without a match keep their name, with rows of 0 and `present` False.

        Parameters
        ----------
        genes : sequence of str
            Ids or symbols, each once.
        symbols : sequence of str, optional
            Symbols of the same genes, where `genes` are ids.
        synonyms : mapping, optional
            From an old name to the id or symbol that stands for it, or to several.
        min_coverage : float
            Smallest share of genes that must end with a prior.
        ambiguous : str
            error: refuse genes that several rows claim; missing: leave them without prior.

        Raises
        ------
        InputError
            No gene has a prior, fewer than ``min_coverage``, a gene named twice, two names of one
            gene, several rows for one, missing values, or one text in place of a list.
        """
        names = gene_names(genes)
        match = match_genes(
            names,
            self.gene_id.tolist(),
            self.symbol.tolist(),
            wanted_symbols=symbols,
            synonyms=synonyms,
        )
        if match.ambiguous and ambiguous != "missing":
            raise _ambiguous(match)
        if not names:
            message = facts("genes to align", found="none", expected="genes", fix="name some")
            raise InputError(message)
        aligned = self.take(match.row, names=names)
        unmatched = np.array(match.row, dtype=np.int64) < 0
        if symbols is not None:
            symbol = aligned.symbol.copy()
            symbol[unmatched] = np.array(text_of(symbols), dtype=object)[unmatched]
            aligned = replace(aligned, symbol=symbol)
        coverage = float(aligned.present.mean())
        absent = tuple(aligned.gene_id[~unmatched & ~aligned.present].tolist())
        report = AlignReport(match, absent, coverage)
        self._require_coverage(names, report, min_coverage)
        return aligned, report

    def _require_coverage(
        self, names: Sequence[str], report: AlignReport, min_coverage: float
    ) -> None:
        if report.coverage > 0 and report.coverage >= min_coverage:
            return
        theirs, ours = id_system(names), self.meta["id_system"]
        wanted = f"at least {min_coverage:.1%}" if min_coverage else "at least one"
        raise InputError(
            facts(
                "genes to align",
                found=f"{report.text}; they look like {theirs} ids",
                expected=f"{wanted} with a prior; the prior has {ours} ids such as "
                + ", ".join(self.gene_id[:2]),
                fix="use a prior of the same species and id system, or give symbols or synonyms",
                count=len(report.match.missing),
                examples=report.match.missing,
            )
        )

    # What other models use ------------------------------------------------------------------------

    def transform(self, train_genes: Iterable[str] | NDArray[np.bool_]) -> GenePrior:
        """Return the prior with z whitened: at most 64 components of mean 0 and deviation 1.

        Mean, axes and deviations come from the present genes among ``train_genes`` alone.

        Parameters
        ----------
        train_genes : iterable of str, or bool array, shape (num_genes,)
            Ids of the training genes of the study, or which rows they are.

        Raises
        ------
        InputError
            Unknown ids, or fewer than two present training genes that differ.
        """
        train = self._rows(train_genes) & self.present
        distinct = len(np.unique(self.z[train], axis=0)) if train.any() else 0
        if distinct < 2:
            raise InputError(
                facts(
                    "train_genes",
                    found=f"{int(train.sum())} with a prior, {distinct} different",
                    expected="at least two different ones",
                    fix="give the training genes of the study by their gene ids",
                )
            )
        z = fit_whitening(self.z[train])(self.z)
        z[~self.present] = 0
        meta = self.meta | {"transform": f"PCA-whitened on {int(train.sum())} genes"}
        return replace(self, z=z.astype(np.float32), meta=meta)

    def _rows(self, genes: Iterable[str] | NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which rows are meant, shape (num_genes,)."""
        if isinstance(genes, np.ndarray) and genes.dtype == bool:
            if genes.shape != (len(self),):
                raise InputError(
                    facts(
                        "train_genes",
                        found=f"shape {genes.shape}",
                        expected=f"({len(self)},), one per gene",
                        fix="align the prior first, or give gene ids",
                    )
                )
            return genes
        known = {gene: row for row, gene in enumerate(self.gene_id)}
        names = [strip_version(str(gene)) for gene in genes]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(
                facts(
                    "train_genes",
                    found="genes that are not in the prior",
                    expected="its gene ids",
                    fix="align the prior to the panel first",
                    count=len(unknown),
                    examples=unknown,
                )
            )
        chosen = np.zeros(len(self), dtype=np.bool_)
        chosen[[known[name] for name in names]] = True
        return chosen

    def control(self, kind: str, seed: int, *, train: ArrayLike | None = None) -> GenePrior:
        """Return a prior of the same form that lacks what the model knows (docs/priors.md).

        Parameters
        ----------
        kind : str
            shuffled: rows of other genes of the same decile of training mean expression; random:
            Gaussian z of the same mean and covariance; nuisance: gene length, GC and training
            mean expression as z; coexp: co-expression over the training sections as z, a ceiling.
        seed : int
            Of shuffled and random.
        train : float array, shape (num_spots, num_genes) or (num_genes,), or pandas, optional
            Expression in the training sections, or its mean over them, columns or index by gene
            id where it is a frame or series. Without it, shuffled and nuisance take the mean of
            `expr` for the level of a gene; coexp needs it.

        Raises
        ------
        InputError
            Unknown kind, or what the kind needs is missing or of another shape.
        """
        parts = make_control(self, kind, seed, train=train)
        return replace(self, **parts)

    @staticmethod
    def mean(priors: Sequence[GenePrior]) -> GenePrior:
        """Return one prior for several seeds of one model.

        `expr` and `reg` are averaged, `quality` over the seeds that know it. The embeddings are
        put side by side: coordinates of different seeds have nothing to do with each other
        (`algebra.joint_embedding`). A gene is present where all seeds have it.

        Raises
        ------
        InputError
            Nothing to average, or priors of other genes, columns or datasets.
        """
        require_alike(priors)
        first = priors[0]
        if len(priors) == 1:
            return first
        present = np.logical_and.reduce([prior.present for prior in priors])
        reference = present & (first.split == "train")
        z = joint_embedding([p.z for p in priors], reference if reference.any() else present)
        expr = np.mean([p.expr.astype(np.float64) for p in priors], axis=0)
        reg = np.mean([p.reg.astype(np.float64) for p in priors], axis=0)
        for values in (z, expr, reg):
            values[~present] = 0
        stacked = np.stack([p.quality.astype(np.float64) for p in priors])
        count = np.isfinite(stacked).sum(axis=0)
        total = np.nan_to_num(stacked).sum(axis=0)
        quality = np.divide(total, count, out=np.full(len(first), np.nan), where=count > 0)
        hashes = combined_hash([str(prior.meta["model_sha256"]) for prior in priors])
        return replace(
            first,
            z=z,
            expr=expr.astype(np.float32),
            reg=reg.astype(np.float32),
            present=present,
            quality=quality.astype(np.float32),
            meta=first.meta | {"model_sha256": hashes, "members": len(priors)},
        )


def _ambiguous(match: GeneMatch) -> InputError:
    return InputError(
        facts(
            "genes to align",
            found="genes that several rows of the prior claim",
            expected="one row per gene",
            fix="give gene ids, or pass ambiguous='missing' to leave them without prior",
            count=len(match.ambiguous),
            examples=[f"{name} ({' or '.join(ids)})" for name, ids in match.ambiguous.items()],
        )
    )
