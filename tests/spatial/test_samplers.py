from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError, Seq2ExpWarning
from seq2exp.spatial.samplers import SpotSampler, require_sections

SECTIONS = np.repeat([0, 1, 2], [50, 33, 20])


@pytest.mark.parametrize("negatives", ["any", "within_slide"])
def test_every_row_once_in_batches_of_like_size(negatives):
    sampler = SpotSampler(SECTIONS, batch_size=16, negatives=negatives)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(chain(*batches)) == list(range(103))
    assert 8 <= min(map(len, batches)) <= max(map(len, batches)) <= 16
    assert list(sampler) == batches
    sampler.set_epoch(1)
    assert list(sampler) != batches
    mixed = [len(set(SECTIONS[rows])) for rows in batches]
    assert max(mixed) == 1 if negatives == "within_slide" else min(mixed) > 1


def test_no_batch_of_a_single_spot():
    assert [len(rows) for rows in SpotSampler(np.zeros(3, int), batch_size=2)] == [3]


def test_a_section_of_one_spot_has_no_negatives():
    with pytest.warns(Seq2ExpWarning, match="1 in all"):
        sampler = SpotSampler(np.array([0, 0, 0, 1]), batch_size=4, negatives="within_slide")
    assert sorted(chain(*sampler)) == [0, 1, 2]
    with pytest.raises(InputError, match="at least two spots"):
        SpotSampler(np.array([0]), batch_size=4)


def test_a_hold_out_list_with_a_slip_is_refused():
    known = ["TENX111", "NCBI884", "TENX157"]
    require_sections(["TENX111", "TENX157"], known)
    with pytest.raises(ConfigError, match="a comma is missing between TENX111 and NCBI884"):
        require_sections(["TENX157", "TENX111NCBI884"], known)
    with pytest.raises(ConfigError, match=r"TENX11.*did you mean 'TENX111'"):
        require_sections(["TENX11"], known)
    with pytest.raises(ConfigError, match="each once"):
        require_sections(["TENX111", "TENX111"], known)
