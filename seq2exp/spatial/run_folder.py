"""The folder of a spatial run: whom it serves, what stands in it, and whether it is intact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seq2exp.core.config import dump_yaml, load_config, to_dict
from seq2exp.core.errors import ConfigError, FormatError, InputError, Seq2ExpError, facts
from seq2exp.core.files import read_json, sha256, write_json
from seq2exp.spatial.config import SpatialConfig

__all__ = [
    "claim_run_folder",
    "read_run_manifest",
    "refuse_foreign",
    "require_intact",
    "undone_if_empty",
    "write_checksums",
]

_OURS = ("config.yaml", "manifest.json", "folds", "final")
_CHECKSUMS = "checksums.json"


def refuse_foreign(out: Path, *, ours: Sequence[str] = _OURS) -> None:
    """Refuse a folder that holds what no run writes, so that nothing of others is replaced.

    Parameters
    ----------
    out : Path
    ours : sequence of str
        Names that may be there; hidden files may.

    Raises
    ------
    ConfigError
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(facts(str(out), found="a file", expected="a folder", fix="rename one"))
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in names if not name.startswith(".") and name not in ours]
    if foreign:
        raise ConfigError(
            facts(
                str(out),
                found="a folder of other things",
                expected="a new folder, or a run that is continued",
                fix="give another --out",
                count=len(foreign),
                examples=foreign[:3],
            )
        )


def _begun(out: Path) -> bool:
    """Whether a fold was fitted here, or is half-way."""
    return any(any(out.glob(pattern)) for pattern in ("final", "folds/*", ".*.checkpoint.pt*"))


@contextmanager
def undone_if_empty(out: Path) -> Iterator[None]:
    """Take a new run folder away again where our error comes before the first fold is fitted."""
    new = not (out / _OURS[0]).exists()
    try:
        yield
    except Seq2ExpError:
        if new and out.is_dir() and not _begun(out):
            for name in (".lock", *_OURS[:2]):
                (out / name).unlink(missing_ok=True)
            for folder in (out / "folds", out):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        raise


def claim_run_folder(config: SpatialConfig, manifest: Mapping[str, Any], out: Path) -> None:
    """Write what a run is; refuse a folder with fitted folds of another one.

    Parameters
    ----------
    config : SpatialConfig
    manifest : mapping
        Plain values; ``cohort_sha256`` says which cohort.
    out : Path

    Raises
    ------
    ConfigError
    """
    known = out / "config.yaml"
    if known.is_file() and _begun(out):
        old = read_json(out / "manifest.json")
        same = to_dict(load_config(SpatialConfig, [known])) == to_dict(config)
        if not same or old.get("cohort_sha256") != manifest["cohort_sha256"]:
            raise ConfigError(
                facts(
                    f"run {out}",
                    found=f"a run of another {'cohort' if same else 'configuration'}",
                    expected="a new folder, or the same configuration and cohort",
                    fix="give another --out",
                )
            )
    dump_yaml(config, known)
    write_json(dict(manifest), out / "manifest.json")


def read_run_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished run.

    Raises
    ------
    InputError
        There is no run, or it is not finished.
    FormatError
        Its manifest is damaged.
    """
    path = folder / "manifest.json"
    if not path.is_file() or not (folder / "config.yaml").is_file():
        raise InputError(
            facts(
                str(folder),
                found="no spatial run",
                expected="a folder that `seq2exp spatial train` wrote",
                fix="check the path",
            )
        )
    manifest: Any = read_json(path)
    missing = [
        key
        for key, kind in (("state", str), ("folds", list), ("cohort", str), ("cohort_sha256", str))
        if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind)
    ]
    if missing:
        raise FormatError(
            facts(
                str(path),
                found=f"no {', '.join(missing)}",
                expected="what `seq2exp spatial train` wrote",
                fix="give the folder of a spatial run, or train again",
            )
        )
    if manifest["state"] != "finished":
        raise InputError(
            facts(
                str(folder),
                found="a run that is not finished",
                expected="a finished one",
                fix="run `seq2exp spatial train` again; it continues",
            )
        )
    found: dict[str, Any] = manifest
    return found


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file of a fitted fold into it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    write_json(sums, folder / _CHECKSUMS)


def require_intact(folder: Path) -> None:
    """Compare a fitted fold with its checksums: a changed weight would not show otherwise.

    Raises
    ------
    FormatError
        The fold is missing, or a file is missing or changed.
    """
    fix = "restore it, or delete this fold and run `seq2exp spatial train` again; it continues"
    if not (folder / "model.safetensors").is_file():
        raise FormatError(
            facts(str(folder), found="no model.safetensors", expected="a fitted fold", fix=fix)
        )
    sums = folder / _CHECKSUMS
    if not sums.is_file():  # a fold of before there were checksums
        return
    for name, expected in read_json(sums).items():
        path = folder / name
        if not path.is_file() or sha256(path) != expected:
            raise FormatError(
                facts(
                    str(path),
                    found="another content" if path.is_file() else "no such file",
                    expected=f"the file that {_CHECKSUMS} lists",
                    fix=fix,
                )
            )
