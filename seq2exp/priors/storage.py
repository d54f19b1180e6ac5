"""priors.h5ad: the slots of a gene prior in an AnnData file, written whole or not at all.

::

    obs       index gene_id; symbol, contig, tss, strand, split, quality, present
    X         predicted expression, var index = names of the outputs
    obsm      embedding; elements (absent without columns)
    uns       seq2exp: what the prior is; seq2exp_elements: names of the columns of elements
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import atomic_file

__all__ = ["read_slots", "write_slots"]

_TEXT = ("symbol", "contig", "strand", "split")
_OBS = (*_TEXT, "tss", "quality", "present")
_UNS, _NAMES = "seq2exp", "seq2exp_elements"
# The first eight bytes of every HDF5 file.
_HDF5 = b"\x89HDF\r\n\x1a\n"


def write_slots(slots: Mapping[str, Any], path: Path, *, overwrite: bool) -> None:
    """Write the slots of a prior, by their short names, as an AnnData file."""
    import anndata

    obs = pd.DataFrame({name: slots[name] for name in _OBS})
    obs.index = pd.Index(slots["gene_id"].astype(object), name="gene_id")
    obsm = {"embedding": slots["z"]}
    uns: dict[str, Any] = {_UNS: dict(slots["meta"])}
    if slots["reg_names"]:
        obsm["elements"] = slots["reg"]
        uns[_NAMES] = list(slots["reg_names"])
    data = anndata.AnnData(
        X=slots["expr"],
        obs=obs,
        var=pd.DataFrame(index=pd.Index(list(slots["expr_names"]), dtype=object)),
        obsm=obsm,
        uns=uns,
    )
    with atomic_file(Path(path), overwrite=overwrite) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.write_h5ad(partial, compression="gzip")


def read_slots(path: Path) -> dict[str, Any]:
    """Read the slots of a prior by their short names; what they hold is not looked at.

    Raises
    ------
    InputError
        There is no such file.
    FormatError
        The file is damaged, no AnnData file, or lacks slots of a prior.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            facts(
                str(path),
                found="a folder" if path.is_dir() else "no such file",
                expected="a gene prior",
                fix="check the path, or write one with `seq2exp priors RUN --out priors.h5ad`",
            )
        )
    with path.open("rb") as handle:
        if handle.read(len(_HDF5)) != _HDF5:
            raise _damaged(path, "no HDF5 file", "an .h5ad file")
    import anndata

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = anndata.read_h5ad(path)
    except Exception as error:  # noqa: BLE001 - h5py and anndata raise many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _damaged(path, f"no readable AnnData ({reason})", "a whole .h5ad file") from None
    missing = [f"obs[{name!r}]" for name in _OBS if name not in data.obs]
    missing += [] if "embedding" in data.obsm else ["obsm['embedding']"]
    missing += [] if isinstance(data.uns.get(_UNS), Mapping) else [f"uns[{_UNS!r}]"]
    missing += [] if data.X is not None else ["X"]
    if missing:
        raise _damaged(
            path,
            f"an AnnData file without {', '.join(missing)}",
            "the slots of a gene prior (docs/priors.md)",
        )
    return _slots(data)


def _slots(data: Any) -> dict[str, Any]:  # noqa: ANN401 - AnnData is imported late
    expr = data.X.toarray() if hasattr(data.X, "toarray") else data.X
    reg = data.obsm.get("elements")
    return {
        "gene_id": _text(data.obs_names),
        **{name: _text(data.obs[name]) for name in _TEXT},
        "tss": data.obs["tss"].to_numpy(),
        "quality": data.obs["quality"].to_numpy(),
        "present": data.obs["present"].to_numpy(),
        "z": np.asarray(data.obsm["embedding"]),
        "expr": np.asarray(expr),
        "expr_names": tuple(str(name) for name in data.var_names),
        "reg": np.zeros((data.n_obs, 0), np.float32) if reg is None else np.asarray(reg),
        "reg_names": tuple(str(name) for name in data.uns.get(_NAMES, ())),
        "meta": {str(key): _plain(value) for key, value in data.uns[_UNS].items()},
    }


def _text(values: Any) -> np.ndarray[Any, np.dtype[np.object_]]:  # noqa: ANN401
    return np.array([str(value) for value in values], dtype=object)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value of uns as plain Python: arrays become lists, numpy scalars numbers."""
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return value


def _damaged(path: Path, found: str, expected: str) -> FormatError:
    fix = "copy the file again, or write it with `seq2exp priors`"
    return FormatError(facts(str(path), found=found, expected=expected, fix=fix))
