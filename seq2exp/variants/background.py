"""Where a score lies among those of common variants, scored once with the same model.

A background keeps, for every column of scores, variant class and distance band, a sample of the
scores of (variant, gene) pairs: those whose key has the smallest hashes (a bottom-k sample). So it
does not depend on the order of rows, shards or files, takes bounded memory, and holds all pairs
where there are fewer than its capacity.

A score is compared with pairs of its class and band; where these are fewer than `MIN_PAIRS`, with
its class at any distance; where that is too few, with all; and where even that is too few it has
no quantile (NaN). Classes: substitutions (SNV, MNV) and indels (insertions, deletions, delins).
Bands of abs(distance to the TSS): `BANDS`.

Quantiles count ties half: ``(scores below + half of the equal ones) / n``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import ConfigError, FormatError, InputError, facts
from seq2exp.core.files import atomic_file
from seq2exp.variants.columns import ScoreColumn

__all__ = [
    "BANDS",
    "CAPACITY",
    "KEY_COLUMNS",
    "MIN_PAIRS",
    "Background",
    "BackgroundBuilder",
    "variant_group",
]

BANDS = (0, 1_000, 5_000, 20_000, 100_000)
"""Lower ends of the bands of distance, bases."""
CAPACITY = 10_000
"""Pairs that a background keeps of each class and band."""
MIN_PAIRS = 100
"""Fewest pairs that a quantile is taken from."""
KEY_COLUMNS = ("chrom", "norm_position", "norm_ref", "norm_alt", "gene_id")
"""Columns that say which pair a row is."""

_GROUPS = {"snv": "substitution", "mnv": "substitution", "ins": "indel", "del": "indel",
           "delins": "indel"}  # fmt: skip
_FORMAT = "seq2exp background of variant scores"
_VERSION = 1

Floats = NDArray[np.float64]
Cell = tuple[str, int]


def variant_group(variant_type: str) -> str:
    """Return the class of variants that one is compared with; empty for what is not scored."""
    return _GROUPS.get(variant_type, "")


class BackgroundBuilder:
    """Collects the scores of common variants from tables, in any order.

    Parameters
    ----------
    columns : sequence of ScoreColumn
        Columns of the tables; scores themselves are kept, of other kinds nothing.
    model_hash : str
        Of the model that made the scores, and of how they were made.
    capacity : int
        Pairs to keep of each class and band.
    seed : int
        Of the hashes.
    """

    def __init__(
        self,
        columns: Sequence[ScoreColumn],
        *,
        model_hash: str,
        capacity: int = CAPACITY,
        seed: int = 0,
    ) -> None:
        self.names = [column.name for column in columns if column.kind == "score"]
        self.model_hash, self.capacity, self.seed = model_hash, capacity, seed
        self._kept: dict[Cell, tuple[NDArray[np.uint64], NDArray[np.float32]]] = {}
        if capacity < MIN_PAIRS or not self.names:
            raise ConfigError(
                facts("background of scores", found=f"{capacity} pairs of {len(self.names)} scores",
                      expected=f"at least {MIN_PAIRS} pairs, at least one score",
                      fix="raise the capacity, or name scores")
            )  # fmt: skip

    def add(self, table: pd.DataFrame) -> None:
        """Add rows of (variant, gene) pairs.

        Parameters
        ----------
        table : DataFrame
            ``KEY_COLUMNS``, ``variant_type``, ``distance_to_tss`` and all scores. Rows without a
            gene, a distance or any score are left out; a pair that comes twice counts once.

        Raises
        ------
        InputError
            A column is missing.
        """
        needed = [*KEY_COLUMNS, "variant_type", "distance_to_tss", *self.names]
        if missing := [name for name in needed if name not in table]:
            raise InputError(
                facts("table of common variants", found=f"no column {missing[0]}",
                      expected="the long table that seq2exp variants writes",
                      fix="score the common variants with the same scores", count=len(missing))
            )  # fmt: skip
        values = table[self.names].to_numpy(np.float32)
        groups = table["variant_type"].astype(str).map(variant_group).to_numpy(object)
        bands = _bands(table["distance_to_tss"])
        usable = (groups != "") & (bands >= 0) & ~np.isnan(values).all(1)
        if not usable.any():
            return
        keys = self._keys(table.loc[usable, list(KEY_COLUMNS)])
        groups, bands, values = groups[usable], bands[usable], values[usable]
        for group in sorted(set(groups)):
            for band in np.unique(bands[groups == group]).tolist():
                here = (groups == group) & (bands == band)
                self._keep((str(group), band), keys[here], values[here])

    def build(self) -> Background:
        """Return the background of what was added.

        Raises
        ------
        InputError
            Fewer pairs than a quantile needs.
        """
        total = sum(len(keys) for keys, _ in self._kept.values())
        if total < MIN_PAIRS:
            raise InputError(
                facts("background of scores", found=f"{total} scored pairs of variant and gene",
                      expected=f"at least {MIN_PAIRS}", fix="score more common variants",
                      count=total)
            )  # fmt: skip
        cells = {cell: values for cell, (_, values) in sorted(self._kept.items())}
        return Background(self.names, cells, model_hash=self.model_hash)

    def _keys(self, rows: pd.DataFrame) -> NDArray[np.uint64]:
        texts = (
            "\t".join((str(self.seed), *map(str, row))) for row in rows.itertuples(index=False)
        )
        digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
        return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)

    def _keep(self, cell: Cell, keys: NDArray[np.uint64], values: NDArray[np.float32]) -> None:
        if cell in self._kept:
            keys = np.concatenate([self._kept[cell][0], keys])
            values = np.concatenate([self._kept[cell][1], values])
        keys, first = np.unique(keys, return_index=True)
        kept = slice(self.capacity)
        self._kept[cell] = keys[kept], values[first[kept]]


class Background:
    """Scores of common variants by class and band.

    Parameters
    ----------
    names : sequence of str
        Columns of scores.
    cells : dict
        Scores of each (class, band), float32 arrays of shape (pairs, scores).
    model_hash : str
        Of the model that made them.
    """

    def __init__(
        self, names: Sequence[str], cells: dict[Cell, NDArray[np.float32]], *, model_hash: str
    ) -> None:
        self.names, self.cells, self.model_hash = list(names), cells, model_hash
        self._sorted: dict[tuple[str, str, int, bool], Floats] = {}

    @property
    def num_pairs(self) -> int:
        """Pairs of variant and gene that are kept."""
        return sum(len(values) for values in self.cells.values())

    def sizes(self) -> list[tuple[str, str, int]]:
        """Return class, band in bases and number of pairs that are kept."""
        edges = [*BANDS, None]
        return [
            (group, f"{edges[band]}-{edges[band + 1] or ''} bp", len(values))
            for (group, band), values in self.cells.items()
        ]

    def quantiles(
        self, name: str, score_B: ArrayLike, *, variant_type: Iterable[str], distance: ArrayLike,
        signed: bool = False,
    ) -> Floats:  # fmt: skip
        """Return the place of each score among those of common variants, shape (B,).

        Parameters
        ----------
        name : str
            Column of the scores.
        score_B : float array
        variant_type : iterable of str
            One for each score.
        distance : int array
            Of each, to the TSS; NaN or masked where unknown.
        signed : bool
            From -1 to 1, of the scores with their sign. Otherwise from 0 to 1, of absolute values.

        Raises
        ------
        InputError
            The background holds no such score.
        """
        if name not in self.names:
            raise InputError(
                facts("background of scores", found=f"no scores {name}",
                      expected="those it was built for: " + ", ".join(self.names[:5]),
                      fix="score the common variants with the same scores")
            )  # fmt: skip
        # As tables keep scores, so that a common variant ties with itself.
        score = np.asarray(score_B, np.float32).astype(np.float64)
        score = score if signed else np.abs(score)
        groups = np.array([variant_group(kind) for kind in variant_type], dtype=object)
        bands = _bands(distance)
        found = np.full(score.shape, np.nan)
        known = ~np.isnan(score) & (groups != "")
        for group, band in sorted(
            set(zip(groups[known].tolist(), bands[known].tolist(), strict=True))
        ):
            here = known & (groups == group) & (bands == band)
            values = self._values(name, group, band, signed=signed)
            if values.size >= MIN_PAIRS:
                low, high = (
                    np.searchsorted(values, score[here], side) for side in ("left", "right")
                )
                found[here] = (low + high) / 2 / values.size
        return 2 * found - 1 if signed else found

    def _values(self, name: str, group: str, band: int, *, signed: bool) -> Floats:
        """Return sorted scores of the narrowest match that is large enough, else of all."""
        key = (name, group, band, signed)
        if key not in self._sorted:
            column = self.names.index(name)
            fits = (
                lambda cell: cell == (group, band),
                lambda cell: cell[0] == group,
                lambda cell: True,
            )
            values = np.empty(0)
            for fit in fits:
                parts = [rows[:, column] for cell, rows in self.cells.items() if fit(cell)]
                values = np.concatenate([values[:0], *parts]).astype(np.float64)
                values = values[~np.isnan(values)]
                if values.size >= MIN_PAIRS:
                    break
            self._sorted[key] = np.sort(values if signed else np.abs(values))
        return self._sorted[key]

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write a Parquet file, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [(group, band, len(values)) for (group, band), values in self.cells.items()]
        repeats = [size for _, _, size in rows]
        table = pa.table(
            {
                "variant_group": np.repeat([group for group, _, _ in rows], repeats),
                "band": np.repeat(np.array([band for _, band, _ in rows], np.int32), repeats),
                **{
                    f"score:{name}": np.concatenate([v[:, i] for v in self.cells.values()])
                    for i, name in enumerate(self.names)
                },
            }
        )
        facts_of = {"format": _FORMAT, "version": _VERSION, "model_hash": self.model_hash,
                    "bands": BANDS, "names": self.names}  # fmt: skip
        table = table.replace_schema_metadata({"seq2exp": json.dumps(facts_of)})
        with atomic_file(path, overwrite=overwrite) as partial:
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)

    @classmethod
    def load(cls, path: Path, *, model_hash: str) -> Background:
        """Read a background, which must be of this very model.

        Raises
        ------
        InputError
            There is no file, or it is of another model: its scores have another scale.
        FormatError
            The file is damaged or something else.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        if not path.is_file():
            raise InputError(
                facts(str(path), found="no such file", expected="a background of scores",
                      fix="score common variants with this model first")
            )  # fmt: skip
        try:
            table = pq.read_table(path, page_checksum_verification=True)
            told = json.loads((table.schema.metadata or {})[b"seq2exp"])
            if (told["format"], told["version"], tuple(told["bands"])) != (
                _FORMAT,
                _VERSION,
                BANDS,
            ):
                raise KeyError("format")
            names = [str(name) for name in told["names"]]
            values = np.stack([table[f"score:{name}"].to_numpy() for name in names], axis=1)
            groups = np.array(table["variant_group"].to_pylist(), dtype=object)
            bands = table["band"].to_numpy()
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise FormatError(
                facts(str(path), found=_other_file(path, error),
                      expected=f"a {_FORMAT}, version {_VERSION}",
                      fix="make it with `seq2exp variants background`")
            ) from error  # fmt: skip
        if told["model_hash"] != model_hash:
            raise InputError(
                facts(str(path),
                      found=f"scores of another model, or made in another way "
                      f"({str(told['model_hash'])[:12]})",
                      expected="those of this model with the same --method, --ensemble, "
                      f"--strands, --shifts, --mask-bp and --context ({model_hash[:12]})",
                      fix="score the common variants with this run and these options")
            )  # fmt: skip
        cells = {
            (group, band): values[(groups == group) & (bands == band)].astype(np.float32)
            for group, band in sorted(set(zip(groups.tolist(), bands.tolist(), strict=True)))
        }
        return cls(names, cells, model_hash=model_hash)


def _other_file(path: Path, error: Exception) -> str:
    """Say what a file is that is no background."""
    import pyarrow.parquet as pq

    try:
        told = pq.read_schema(path).metadata or {}
    except (ValueError, OSError):
        return f"a file that is no Parquet, or damaged ({type(error).__name__})"
    if b"seq2exp.variants" in told:
        return "scored variants"
    return f"another Parquet file ({type(error).__name__}: {str(error)[:60]})"


def _bands(distance: ArrayLike | pd.Series) -> NDArray[np.int64]:
    """Return the band of each distance, -1 where it is unknown."""
    values = np.abs(pd.Series(distance, dtype="Float64").to_numpy(np.float64, na_value=np.nan))
    place = np.searchsorted(BANDS, values, side="right") - 1
    return np.where(np.isnan(values), -1, place)
