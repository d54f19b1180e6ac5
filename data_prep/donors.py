"""Donors: who they are, and which of them every table has."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from data_prep.donor_config import DonorConfig
from data_prep.texttable import MISSING_CELLS, find_column, read_text_table
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts
from seq2exp.dataset.format_genotypes import DONOR_COLUMNS

__all__ = ["choose_donors", "choose_samples", "read_donors"]

_SEX = {"1": "male", "2": "female", "m": "male", "f": "female", "male": "male", "female": "female"}
_NOBODY = (*MISSING_CELLS, "0", "-9")


def read_donors(path: Path, config: DonorConfig) -> pd.DataFrame:
    """Return the donor table: the columns ``DONOR_COLUMNS``, texts, empty where unknown.

    Raises
    ------
    InputError
        Missing file or column, a donor twice or without a name, or a sex that is none.
    FormatError
        The file is damaged.
    """
    table = read_text_table(path, what="a table of donors")
    names = [str(name) for name in table.columns]
    columns = {}
    for key in DONOR_COLUMNS:
        wanted = getattr(config, key)
        if wanted:
            place = find_column(wanted, names, path, key=f"donors.{key}")
            columns[key] = table.iloc[:, place].str.strip()
        else:
            columns[key] = pd.Series("", index=table.index)
    # An SDRF has a row per file of reads: rows that say the same of a donor are one.
    frame = pd.DataFrame(columns).drop_duplicates(ignore_index=True)
    donors = frame["donor"]
    twice = sorted(set(donors[donors.duplicated()]))
    if twice or (donors == "").any():
        raise InputError(
            facts(
                str(path),
                found="donors used twice" if twice else "rows without a donor",
                expected="one row per donor, or rows that say the same",
                fix="remove or merge the rows",
                count=len(twice) or int((donors == "").sum()),
                examples=twice,
            )
        )
    for key in ("population", "family"):
        frame[key] = frame[key].mask(frame[key].isin(MISSING_CELLS), "")
    for key in ("father", "mother"):
        frame[key] = frame[key].mask(frame[key].isin(_NOBODY), "")
    return frame.assign(sex=_sexes(frame["sex"], path))


def _sexes(given: pd.Series, path: Path) -> pd.Series:
    unknown = given.str.lower().isin([*map(str.lower, _NOBODY), "unknown", "other", "u"])
    found = given.str.lower().map(_SEX).mask(unknown, "")
    if found.isna().any():
        raise InputError(
            facts(
                f"{path} column of donors.sex",
                found="values that are no sex",
                expected="male and female, M and F, 1 and 2, or NA",
                fix="mend them, or leave donors.sex empty",
                count=int(found.isna().sum()),
                examples=sorted(set(given[found.isna()])),
            )
        )
    return found


def choose_samples(
    files: Sequence[tuple[str, Sequence[str]]], include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the donors of the genotypes, and who is left out and why.

    Parameters
    ----------
    files : sequence of (str, sequence of str)
        Name and samples of every file; the order of the first file counts.
    include, exclude : sequences of str
        Donors; all are included when the first is empty.

    Raises
    ------
    InputError
        A name is in no file, or nobody is left.
    """
    everyone = list(dict.fromkeys(name for _, samples in files for name in samples))
    for key, chosen in (("include", include), ("exclude", exclude)):
        unknown = sorted(set(chosen) - set(everyone))
        if unknown:
            raise InputError(
                facts(
                    f"genotypes.{key}",
                    found="names that are no sample of the files",
                    expected=f"some of the {len(everyone)} samples, such as {everyone[0]}",
                    fix="correct the names, or give the file that lists them",
                    count=len(unknown),
                    examples=unknown,
                )
            )
    left_out: dict[str, str] = {}
    wanted = set(include) or set(everyone)
    for name in everyone:
        absent = [file for file, samples in files if name not in set(samples)]
        if name in exclude or name not in wanted:
            left_out[name] = "excluded by the configuration"
        elif absent:
            left_out[name] = f"no sample of {absent[0]}"
    donors = [name for name in everyone if name not in left_out]
    partly = [name for name, reason in left_out.items() if reason.startswith("no sample")]
    if partly and donors:
        warnings.warn(
            facts(
                "genotypes",
                found="donors that not every file has",
                expected="the same donors in all files",
                fix="nothing, if they are not needed; they are listed in "
                "genotypes/donors_left_out.tsv of the dataset",
                count=len(partly),
                examples=partly,
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    if not donors:
        raise InputError(
            facts(
                "genotypes",
                found="no donor that all files have and the configuration includes",
                expected="at least one",
                fix="check genotypes.include and exclude, and that the files are of one cohort",
            )
        )
    return donors, list(left_out.items())


def choose_donors(
    donors: Sequence[str], tables: Iterable[tuple[str, Sequence[str]]]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the donors that the genotypes and every table have, and who is left out and why.

    Parameters
    ----------
    donors : sequence of str
        Donors of the genotypes.
    tables : iterable of (str, sequence of str)
        Name and donors of every table.

    Raises
    ------
    InputError
        Nobody is in all of them.
    """
    kept = list(donors)
    left_out: list[tuple[str, str]] = []
    for what, names in tables:
        there, genotyped = set(names), set(donors)
        shared = [name for name in kept if name in there]
        if not shared:
            raise InputError(
                facts(
                    what,
                    found=f"donors such as {', '.join([*names][:3]) or 'none'}",
                    expected=f"some of those with genotypes, such as {', '.join(kept[:3])}",
                    fix="use one naming of donors; for names of assays see "
                    "donors.expression.cut_names_at and map",
                    count=0,
                )
            )
        without = [name for name in donors if name not in there]
        others = [name for name in names if name not in genotyped]
        left_out += [(name, f"not in {Path(what).name}") for name in without]
        left_out += [(name, "no genotypes") for name in others]
        if without or others:
            warnings.warn(
                facts(
                    what,
                    found=f"{len(names) - len(others)} of {len(names)} donors with genotypes, and "
                    f"{len(without)} donors with genotypes but not here",
                    expected="the same donors in all tables",
                    fix="nothing, if the others are not needed; they are listed in "
                    "genotypes/donors_left_out.tsv of the dataset",
                    count=len(without) + len(others),
                    examples=[*without[:2], *others[:2]],
                ),
                Seq2ExpWarning,
                stacklevel=2,
            )
        kept = shared
    return kept, list(dict(left_out).items())
