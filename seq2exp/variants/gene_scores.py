"""Scores of the alleles of one gene, whose reference is run once.

Shapes: C comparisons, V columns of scores, K draws of a null.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from seq2exp.variants.arrays import compare
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.contexts import Flanks, shuffled_flanks, variant_random
from seq2exp.variants.elements import ElementBins
from seq2exp.variants.gradient_passes import GradientPasses
from seq2exp.variants.judge import Judged, Put
from seq2exp.variants.passes import GenePasses, Predicted, concatenated
from seq2exp.variants.scoring import Scoring

__all__ = ["GeneScores"]

Floats = NDArray[np.float32]


class GeneScores:
    """Scores comparisons of sequences of one gene.

    Parameters
    ----------
    passes : GenePasses or GradientPasses
    scoring : Scoring
    config : ScoreConfig

    Attributes
    ----------
    elements : ElementBins
        Where the mask of the reference calls elements.
    """

    def __init__(
        self, passes: GenePasses | GradientPasses, scoring: Scoring, config: ScoreConfig
    ) -> None:
        self.passes, self.scoring, self.config = passes, scoring, config
        self.reference: Predicted = passes.reference()
        self.elements = ElementBins(passes, self.reference, threshold=config.element_threshold)

    def score(
        self, cases: Sequence[Judged], widths: Sequence[int] | None = None
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Score comparisons; where memory is short, fewer at once.

        Parameters
        ----------
        cases : sequence of Judged
        widths : sequence of int, optional
            Bases around each in which masks and tracks are compared; as configured by default.

        Returns
        -------
        values_CV : float32 array
            Columns `Scoring.computed`.
        tss_deleted_C : bool array
            One of the two sequences lacks the TSS.
        """
        widths = [self.config.mask_bp] * len(cases) if widths is None else widths
        try:
            return self._score(cases, widths)
        except torch.OutOfMemoryError:
            if len(cases) == 1:
                raise
            torch.cuda.empty_cache()
            middle = len(cases) // 2
            parts = (slice(middle), slice(middle, None))
            halves = [self.score(cases[part], widths[part]) for part in parts]
            values, deleted = zip(*halves, strict=True)
            return np.concatenate(values), np.concatenate(deleted)

    def _score(
        self, cases: Sequence[Judged], widths: Sequence[int]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        distinct: dict[Put, int] = {(): 0}
        for case in cases:
            for put in (case.before, case.after):
                distinct.setdefault(put, len(distinct))
        predicted = self.reference
        if len(distinct) > 1:
            more = self.passes.predict(list(distinct)[1:])
            predicted = concatenated(predicted, more)
        pairs = [(distinct[case.before], distinct[case.after]) for case in cases]
        deleted_C = predicted.tss_deleted_S[np.array(pairs)].any(axis=1)
        return self._values(predicted, pairs, cases, widths), deleted_C

    def _values(
        self,
        predicted: Predicted,
        pairs: Sequence[tuple[int, int]],
        cases: Sequence[Judged],
        widths: Sequence[int],
    ) -> Floats:
        compared = compare(
            predicted,
            pairs,
            [case.span[0] for case in cases],
            [member.view.window for member in self.passes.members],
            bin_size=self.passes.bin_size,
            widths=widths,
        )
        return self.scoring.score(compared, np.array([case.sign for case in cases]))

    def draw(self, case: Judged) -> Floats:
        """Score one comparison in shuffled surroundings.

        Parameters
        ----------
        case : Judged

        Returns
        -------
        float32 array, shape (draws, V)
            The same for one seed, whatever else is scored.
        """
        flanks = self._flanks(case)
        step = max(1, self.config.batch_size // 2)
        found = []
        for first in range(0, self.config.null_draws, step):
            some = Flanks(
                flanks.before_KF[first : first + step],
                flanks.after_KF[first : first + step],
                flanks.start,
                flanks.end,
            )
            num = len(some.before_KF)
            predicted = self.passes.predict([case.before, case.after], flanks=some)
            pairs = [(draw, num + draw) for draw in range(num)]
            widths = [self.config.mask_bp] * num
            found.append(self._values(predicted, pairs, [case] * num, widths))
        return np.concatenate(found)

    def _flanks(self, case: Judged) -> Flanks:
        alleles = (*case.before, *case.after)
        start = min((allele.position for allele in alleles), default=case.span[0])
        ends = [allele.position + len(allele.ref) for allele in alleles]
        view = self.passes.views[0]
        contig = view.window.contig
        last = alleles[-1] if alleles else None
        random = variant_random(
            self.config.seed,
            contig,
            start,
            last.ref if last else "",
            last.alt if last else "",
        )
        return shuffled_flanks(
            view.samples.dataset.contig_codes(contig),
            start,
            max(ends, default=case.span[1]),
            random=random,
            num=self.config.null_draws,
            flank=self.config.null_flank,
        )
