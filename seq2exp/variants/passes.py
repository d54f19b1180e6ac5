"""Forward passes for the sequences of one gene: every member of a run in every view.

The reference is seen once per gene, member and view, and what a model can share among its edits is
computed with it (:mod:`seq2exp.models.rerun`). A sequence whose window is that of the reference
needs no pass: it has the numbers of the reference, bit for bit.

Shapes: E members times views, S sequences, K outputs, N bins, T predicted tracks, D width of the
read-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seq2exp.dataset.samples import Batch, GeneSamples
from seq2exp.models.output import ModelCall, Seq2ExpOutput
from seq2exp.models.registry import has_mask
from seq2exp.models.rerun import Shared, changed_bins
from seq2exp.training.module import batch_call
from seq2exp.variants.contexts import Flanks
from seq2exp.variants.judge import Put
from seq2exp.variants.views import GeneView, Sequences, View, open_view
from seq2exp.variation.coordinates import move_bins

__all__ = ["GenePasses", "Predicted", "concatenated"]


_PARTS = ("expression", "fixed", "mask", "tracks", "embedding")


@dataclass(frozen=True, eq=False)
class Predicted:
    """What the models say of some sequences of a gene.

    Attributes
    ----------
    expression_ESK : float64 array
        In the unit of the labels.
    fixed_ESK : float64 array or None
        Under the mask of the reference, moved with the bases; None without a mask.
    mask_ESN : float32 array or None
        Mean of the posterior, on the bins of the window of the reference in genome direction; NaN
        where a sequence has no base for them. None without a mask.
    tracks_ESNT : float32 array or None
        Raw tracks that the generator predicts, on the same bins; None where it predicts none.
    embedding_ESD : float64 array
        Pooled state.
    tss_deleted_S : bool array
    """

    expression_ESK: NDArray[np.float64]
    fixed_ESK: NDArray[np.float64] | None
    mask_ESN: NDArray[np.float32] | None
    tracks_ESNT: NDArray[np.float32] | None
    embedding_ESD: NDArray[np.float64]
    tss_deleted_S: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Member:
    """One model in one view of a gene, after it has seen the reference."""

    model: nn.Module
    view: GeneView
    call: ModelCall
    output: Seq2ExpOutput
    shared: Shared | None


class GenePasses:
    """Members of a run in all views of one gene.

    Parameters
    ----------
    models : sequence of Module
        On `device` and in evaluation mode, without gradients.
    samples : GeneSamples
        What the models read.
    row : int
        Row of the gene table.
    views : sequence of View
    device : str
    fixed : bool
        Also predict under the mask of the reference.
    share : bool
        Use what models offer to share; False runs every window in full.

    Attributes
    ----------
    promoter : (int, int)
        Bins whose mask is always 1.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        samples: GeneSamples,
        row: int,
        views: Sequence[View],
        *,
        device: str = "cpu",
        fixed: bool = True,
        share: bool = True,
    ) -> None:
        self.row, self.device, self.bin_size = row, device, samples.config.bin_size
        self.views = [open_view(samples, row, view) for view in views]
        promoters = [getattr(model, "promoter", (0, 0)) for model in models]
        self.promoter: tuple[int, int] = promoters[0]
        self.masked = all(has_mask(model) for model in models)
        self.fixed = fixed and self.masked
        self.members = [
            self._look_at(model, view, share=share) for view in self.views for model in models
        ]
        self.has_tracks = all(member.output.tracks_BNU is not None for member in self.members)

    def _look_at(self, model: Any, view: GeneView, *, share: bool) -> _Member:  # noqa: ANN401
        call = batch_call(view.batch.to(self.device))
        shared = model.share(call) if share and hasattr(model, "share") else None
        if shared is None:
            return _Member(model, view, call, model.one_strand(call), None)
        # What is shared holds the output of the window without edits: it is not run again.
        num_bins = call.codes_BL.shape[1] // self.bin_size
        unchanged_1N = torch.zeros(1, num_bins, dtype=torch.bool, device=call.codes_BL.device)
        return _Member(model, view, call, shared(call, unchanged_1N), shared)

    def reference(self) -> Predicted:
        """Return what the models say of the window as it is: one sequence."""
        outputs = [member.output for member in self.members]
        expression = _numbers(outputs, "expression_BK")
        masks = tracks = None
        if self.masked:
            masks = self._forwards(_numbers(outputs, "mean_BN"))
        if self.has_tracks:
            tracks = self._forwards(_numbers(outputs, "tracks_BNU"))
        return Predicted(
            expression,
            expression.copy() if self.fixed else None,
            masks,
            tracks,
            _numbers(outputs, "embedding_BD"),
            np.zeros(1, dtype=np.bool_),
        )

    def _forwards(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Turn bins of members (axis 2) into genome direction."""
        found = values.astype(np.float32)
        for number, member in enumerate(self.members):
            if member.view.window.reverse:
                found[number] = found[number][:, ::-1]
        return found

    def predict(self, sequences: Sequence[Put], *, flanks: Flanks | None = None) -> Predicted:
        """Run sequences that hold some alleles.

        Parameters
        ----------
        sequences : sequence of tuples of Allele
            As many as fit into a batch.
        flanks : Flanks, optional
            Run each sequence once per draw of other bases around its alleles, draws of a sequence
            together.
        """
        if flanks is not None:
            sequences = [put for put in sequences for _ in flanks.before_KF]
        found = [self._in_view(view, sequences, flanks) for view in self.views]
        return Predicted(
            np.concatenate([part.expression_ESK for part in found]),
            _joined([part.fixed_ESK for part in found]),
            _joined([part.mask_ESN for part in found]),
            _joined([part.tracks_ESNT for part in found]),
            np.concatenate([part.embedding_ESD for part in found]),
            found[0].tss_deleted_S,
        )

    def _in_view(
        self, view: GeneView, sequences: Sequence[Put], flanks: Flanks | None
    ) -> Predicted:
        put = view.put(sequences, flanks=flanks)
        batch = put.batch.to(self.device)
        members = [member for member in self.members if member.view is view]
        changed_SN = changed_bins(batch_call(batch), members[0].call, bin_size=self.bin_size)
        rows, num = changed_SN.any(1).nonzero()[:, 0], len(sequences)
        some = _some(batch, rows)
        found: dict[str, list[NDArray[Any]]] = {name: [] for name in _PARTS}
        for member in members:
            output = _run(member, batch_call(some), changed_SN[rows]) if len(rows) else None
            found["expression"].append(_filled(member, output, rows, num, "expression_BK"))
            found["embedding"].append(_filled(member, output, rows, num, "embedding_BD"))
            if self.has_tracks:
                found["tracks"].append(
                    self._on_reference(_filled(member, output, rows, num, "tracks_BNU"), put)
                )
            if self.masked:
                found["mask"].append(
                    self._on_reference(
                        _filled(member, output, rows, num, "mean_BN")[..., None], put
                    )[..., 0]
                )
            if self.fixed:
                other = None
                if output is not None:
                    mask_BN = self._held(member, output, put, rows.cpu().numpy())
                    other = _run(member, batch_call(some, mask_BN), changed_SN[rows])
                found["fixed"].append(_filled(member, other, rows, num, "expression_BK"))
        stacked = {name: np.stack(parts) if parts else None for name, parts in found.items()}
        return Predicted(
            np.stack(found["expression"]),
            stacked["fixed"],
            stacked["mask"],
            stacked["tracks"],
            np.stack(found["embedding"]),
            put.built.tss_deleted_H,
        )

    def _held(
        self, member: _Member, output: Seq2ExpOutput, put: Sequences, rows: NDArray[np.int64]
    ) -> Tensor:
        """Mask of the reference on the bins of each sequence.

        It moves with the bases; bins that come from beyond the window keep their own mask.
        """
        held_BN = member.output.mask_BN.expand(len(rows), -1).clone()
        moved = put.moved[rows]
        if moved.any():
            reference_N1 = member.output.mask_BN[0, :, None].float().cpu().numpy()
            window = member.view.window
            if window.reverse:
                reference_N1 = reference_N1[::-1]
            bins_SN1 = move_bins(
                put.built.segments,
                reference_N1,
                start=window.start,
                bin_size=self.bin_size,
                out_bin_size=self.bin_size,
            )
            there = torch.from_numpy(np.flatnonzero(moved)).to(held_BN.device)
            bins_BN = torch.from_numpy(bins_SN1[rows[moved], :, 0]).to(held_BN)
            own_BN = output.mask_BN[there]
            found_BN = torch.where(bins_BN.isnan(), own_BN, bins_BN)
            if getattr(member.model.config, "gate", "") == "pack":
                found_BN = found_BN.round()
            held_BN[there] = found_BN
        return held_BN

    def _on_reference(self, values_SNT: NDArray[np.float64], put: Sequences) -> NDArray[np.float32]:
        """Lay values of sequences on the bins of the reference, in genome direction."""
        values = values_SNT.astype(np.float32)
        if put.moved.any():
            for track in range(values.shape[2]):
                aligned = put.built.masks_to_reference(
                    np.ascontiguousarray(values[..., track]),
                    bin_size=self.bin_size,
                    out_bin_size=self.bin_size,
                )
                values[put.moved, :, track] = aligned[put.moved]
        return values[:, ::-1] if put.built.window.reverse else values


def concatenated(first: Predicted, second: Predicted) -> Predicted:
    """Return the predictions of the sequences of both, in this order."""

    def both(name: str) -> Any:  # noqa: ANN401  an array or None
        parts = [getattr(part, name) for part in (first, second)]
        return None if parts[0] is None else np.concatenate(parts, axis=1)

    return Predicted(
        both("expression_ESK"),
        both("fixed_ESK"),
        both("mask_ESN"),
        both("tracks_ESNT"),
        both("embedding_ESD"),
        np.concatenate([first.tss_deleted_S, second.tss_deleted_S]),
    )


def _some(batch: Batch, rows: Tensor) -> Batch:
    return Batch(**{name: values[rows] for name, values in vars(batch).items()})


def _run(member: _Member, call: ModelCall, changed_SN: Tensor) -> Seq2ExpOutput:
    if member.shared is not None:
        return member.shared(call, changed_SN)
    model: Any = member.model
    output: Seq2ExpOutput = model.one_strand(call)
    return output


def _filled(
    member: _Member, output: Seq2ExpOutput | None, rows: Tensor, num: int, name: str
) -> NDArray[np.float64]:
    """Values of all sequences: those that were run, and the reference's for the others."""
    reference = getattr(member.output, name).double()
    values = reference.expand(num, *reference.shape[1:]).clone()
    if output is not None:
        values[rows] = getattr(output, name).double()
    found: NDArray[np.float64] = values.cpu().numpy()
    return found


def _numbers(outputs: Sequence[Seq2ExpOutput], name: str) -> NDArray[np.float64]:
    stacked = torch.stack([getattr(output, name).double() for output in outputs])
    numbers: NDArray[np.float64] = stacked.cpu().numpy()
    return numbers


def _joined(parts: Sequence[NDArray[Any] | None]) -> Any:  # noqa: ANN401  an array or None
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None
