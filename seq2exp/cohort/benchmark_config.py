"""Configuration of the benchmark: one protocol, the models and baselines judged by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seq2exp.cohort.config import CohortConfig
from seq2exp.cohort.linear import LinearConfig
from seq2exp.cohort.report_table import BenchmarkPlan
from seq2exp.core.config import bind, to_dict
from seq2exp.core.errors import ConfigError, facts

__all__ = ["BenchmarkConfig", "model_config"]

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
# What all models share: otherwise they would be judged on other people, genes or targets.
_PROTOCOL = ("expression", "covariates", "splits", "genes")
RESERVED = ("untrained",)


@dataclass(frozen=True)
class BenchmarkConfig:
    """Everything `seq2exp cohort benchmark` needs beside the dataset."""

    cohort: CohortConfig = field(default_factory=CohortConfig)
    """Settings that all models share; splits, genes and expression cannot differ."""
    models: dict[str, Any] = field(default_factory=dict)
    """Name of each model, and the settings in which it differs from `cohort`. `start_from: @NAME`
    is the run of another model, which stands before it."""
    linear: LinearConfig = field(default_factory=LinearConfig)
    """Linear baselines."""
    learning_curve: list[float] = field(default_factory=list)
    """Shares of the training people that the linear models are fitted on once more, as rows such
    as enet@0.2; a model has people_share for that."""
    untrained: bool = True
    """Judge the first model with random weights too: a null that no training can have made."""
    block_bp: int = 0
    """Genes whose TSS lie in the same block of this length are resampled together, because linked
    variants make their correlations alike; 0 takes the length of the window."""
    plan: BenchmarkPlan = field(default_factory=BenchmarkPlan)
    """Resamples, permutations, and the model that baselines are compared with."""

    def __post_init__(self) -> None:
        if self.block_bp < 0:
            raise ConfigError(
                facts("block_bp", found=self.block_bp, expected=">= 0", fix="use 0, or a length")
            )
        if any(not 0 < share < 1 for share in self.learning_curve):
            raise ConfigError(
                facts(
                    "learning_curve",
                    found=str(self.learning_curve),
                    expected="shares between 0 and 1",
                    fix="leave 1 out: all people are fitted anyway",
                )
            )
        linear = self.linear.models
        for name, changes in self.models.items():
            problem = ""
            if not _NAME.match(name) or name in (*linear, *RESERVED):
                problem = "a name that a baseline has, or that is no file name"
            elif not isinstance(changes, Mapping):
                problem = f"{changes!r} instead of settings"
            elif set(changes) & set(_PROTOCOL):
                problem = f"{', '.join(sorted(set(changes) & set(_PROTOCOL)))} of its own"
            if problem:
                raise ConfigError(
                    facts(
                        f"models.{name}",
                        found=problem,
                        expected="a name, and settings of cohort other than "
                        + ", ".join(_PROTOCOL),
                        fix="move what all models share to cohort",
                    )
                )
        for place, name in enumerate(self.models):
            model_config(self, name, known=list(self.models)[:place])


def model_config(
    config: BenchmarkConfig, name: str, *, known: list[str], runs: str = ""
) -> CohortConfig:
    """Return the configuration of one model.

    Parameters
    ----------
    config : BenchmarkConfig
    name : str
    known : list of str
        Models before it, which it may start from.
    runs : str
        Folder of the runs, which stands in the place of ``@``.

    Raises
    ------
    ConfigError
        A setting is unknown or wrong, or the model starts from one that does not stand before it.
    """
    changes = dict(config.models[name])
    start = str(changes.get("start_from", ""))
    if start.startswith("@"):
        if start[1:] not in known:
            raise ConfigError(
                facts(
                    f"models.{name}.start_from",
                    found=start,
                    expected=f"one of {', '.join('@' + item for item in known) or 'none'}",
                    fix="put the model it starts from before it",
                )
            )
        changes["start_from"] = f"{runs}/{start[1:]}"
        changes.setdefault("model", {})
    values = _merged(to_dict(config.cohort), changes)
    if changes.get("start_from"):
        values["model"] = {"name": "seq2exp"}
    return bind(CohortConfig, values, where=f"models.{name}")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with changes, section by section; a model named anew is a new one."""
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        whole = key == "model" and isinstance(value, Mapping) and "name" in value
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not whole:
            out[key] = _merged(old, value)
        else:
            out[key] = value
    return out
