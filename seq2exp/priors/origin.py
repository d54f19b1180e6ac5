"""What a gene prior says of its genes: split, usable window, held-out accuracy.

Shapes: G genes, K samples.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.contigs import canonical
from seq2exp.core.errors import Seq2ExpError
from seq2exp.core.intervals import tss_window
from seq2exp.dataset.edges import padded_bases
from seq2exp.dataset.store import Dataset
from seq2exp.training.metrics import pearson
from seq2exp.training.run import TrainedRun

__all__ = ["MIN_SAMPLES", "QUALITY", "gene_quality", "model_splits", "why_absent"]

logger = logging.getLogger(__name__)

MIN_SAMPLES = 3
QUALITY = (
    "Pearson correlation across the samples between label and prediction of a gene, each minus "
    f"the mean label of the training genes in that sample; genes outside train with {MIN_SAMPLES} "
    "known labels or more, NaN for all others"
)
_CENTRAL_BP = 1000
# Statuses that say where a gene lies among the splits, not that its window is wrong.
_SPLIT_STATUS = ("ok", "in no split", "in the buffer between splits")


def why_absent(run: TrainedRun, dataset: Dataset) -> NDArray[np.object_]:
    """Return for every gene of a dataset why its window cannot be used; empty where it can.

    Returns
    -------
    object array of str, shape (num_genes,)
    """
    genes = dataset.genes
    reason = np.full(len(genes), "", dtype=object)

    def mark(where: NDArray[np.bool_], text: NDArray[np.object_] | str) -> None:
        fresh = where & (reason == "")
        reason[fresh] = text if isinstance(text, str) else text[fresh]

    contigs = {str(name): canonical(str(name)) == "MT" for name in genes["contig"].unique()}
    mark(genes["contig"].astype(str).map(contigs).to_numpy(np.bool_), "mitochondrial")
    if "status" in genes.columns:
        status = genes["status"].astype(str)
        mark((~status.isin(_SPLIT_STATUS)).to_numpy(), status.to_numpy(dtype=object))
    rows = np.arange(len(genes), dtype=np.int64)
    if run.card.data.edge == "skip":
        mark(padded_bases(dataset, rows, run.card.data) > 0, "window leaves the contig")
    unknown = np.zeros(len(genes), dtype=np.bool_)
    for row in np.flatnonzero(reason == ""):
        contig, tss, strand = dataset.sites[int(row)]
        length = dataset.manifest.contigs[contig]
        window = tss_window(contig, tss, strand, length=_CENTRAL_BP, contig_length=length)
        unknown[row] = (dataset.codes(window) < 4).mean() < 0.5
    mark(unknown, "no known sequence around the TSS")
    return reason


def model_splits(run: TrainedRun, dataset: Dataset) -> tuple[NDArray[np.object_], str]:
    """Return the split that every gene had when the model was trained, and how it is known.

    On another dataset than that of the training, genes are looked up in the latter by id; where
    it is gone, or lacks the gene, genes on contigs with training genes count as train, because
    nothing shows that they were held out.
    """
    own = dataset.genes["split"].astype(str).to_numpy(dtype=object)
    if dataset.manifest.checksum == run.card.dataset_checksum:
        return own, "dataset of the training"
    touched = dataset.genes["contig"].isin(run.card.train_contigs).to_numpy()
    held_out = np.where(np.isin(own, ("valid", "excluded")), own, "test")
    split = np.where(touched, "train", held_out).astype(object)
    training = _training_dataset(run)
    if training is None:
        return split, "contigs with training genes, because the training dataset is not at hand"
    known = training.genes.set_index("gene_id")["split"].astype(str)
    looked_up = known.reindex(dataset.genes["gene_id"]).to_numpy(dtype=object)
    found = np.array([isinstance(one, str) for one in looked_up], dtype=np.bool_)
    return np.where(found, looked_up, split).astype(object), "training dataset, by gene id"


def _training_dataset(run: TrainedRun) -> Dataset | None:
    """Open the dataset the run was trained on; None where it is gone or is another one by now."""
    try:
        training = Dataset(run.dataset_path())
    except (Seq2ExpError, OSError, KeyError) as error:
        logger.debug("training dataset: %s", error)
        return None
    same = training.manifest.checksum == run.card.dataset_checksum
    return training if same else None


def gene_quality(
    observed_GK: NDArray[np.floating],
    predicted_GK: NDArray[np.floating],
    split: NDArray[np.object_],
) -> NDArray[np.float32]:
    """Return the held-out accuracy of every gene, as `QUALITY` defines it.

    One sample or two cannot tell how well a single gene is predicted: a small residual may be
    luck. So then nothing is known, and NaN is what is said.

    Parameters
    ----------
    observed_GK, predicted_GK : float arrays, shape (num_genes, num_samples)
        Labels (NaN where unknown) and predictions, in the same unit.
    split : object array of str, shape (num_genes,)
    """
    observed = np.asarray(observed_GK, np.float64)
    quality = np.full(len(observed), np.nan, dtype=np.float32)
    known = np.isfinite(observed)
    train = split == "train"
    if observed.shape[1] < MIN_SAMPLES or not known[train].any(axis=0).all():
        return quality
    level_K = np.nanmean(observed[train], axis=0)
    for gene in np.flatnonzero(~train & (known.sum(axis=1) >= MIN_SAMPLES)):
        k = known[gene]
        truth, guess = observed[gene, k] - level_K[k], predicted_GK[gene, k] - level_K[k]
        quality[gene] = pearson(truth, np.asarray(guess, np.float64))
    return quality


def sources_of(dataset: Dataset) -> dict[str, Any]:
    """Return annotation and TSS source of a dataset, as its manifest tells them."""
    found = [one for one in dataset.manifest.sources if one.role == "gtf"]
    annotation = ", ".join(f"{one.name} sha256:{one.sha256}" for one in found)
    settings = dataset.manifest.config.get("annotation", {})
    return {
        "annotation": annotation or "unknown",
        "tss_source": str(settings.get("tss", "unknown")),
    }
