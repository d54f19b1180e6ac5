from __future__ import annotations

import errno
import os
import signal

import pytest

from seq2exp.core.errors import InputError
from seq2exp.core.work import (
    fingerprint,
    sweep,
    system_errors,
    terminate_as_interrupt,
    work_folder,
    work_folders,
)


def test_the_mark_changes_with_any_value_and_not_with_the_order():
    values = {"a": 1, "b": {"c": [1, 2]}}
    assert fingerprint(values) == fingerprint({"b": {"c": [1, 2]}, "a": 1})
    assert len(fingerprint(values)) == 16
    others = [{**values, "a": 2}, {**values, "b": {"c": [2, 1]}}, {**values, "d": None}]
    assert len({fingerprint(other) for other in [values, *others]}) == 4


@pytest.mark.parametrize("name", ["out", "out.vcf.gz", "star*[x]?", "\u00fc"])
def test_folders_of_other_outputs_are_left_alone(tmp_path, name):
    out = tmp_path / name
    ours = [work_folder(out, fingerprint({"x": x})) for x in (1, 2)]
    near = [work_folder(tmp_path / other, "0" * 16) for other in (f"{name}.gz", f"{name}2", "o")]
    near.append(tmp_path / f".{name}.notes.work")
    for path in ours + near:
        path.mkdir()
    assert work_folders(out) == sorted(ours)
    sweep(out, keep=ours[1])
    assert work_folders(out) == [ours[1]]
    sweep(out, keep=None)
    assert sorted(tmp_path.iterdir()) == sorted(near)


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "found a full disk"), (errno.EDQUOT, "found a full disk"),
     (errno.EROFS, "Read-only file system")],
)  # fmt: skip
def test_what_the_system_refuses_is_said_with_the_place(tmp_path, number, words):
    with pytest.raises(InputError, match=words) as error, system_errors(tmp_path / "out"):
        raise OSError(number, os.strerror(number), "/the/place")
    assert str(error.value).startswith("/the/place")
    with pytest.raises(InputError, match="/out: found"), system_errors(tmp_path / "out"):
        raise OSError(number, os.strerror(number))


def test_sigterm_is_an_interrupt_inside_only():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminate_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
