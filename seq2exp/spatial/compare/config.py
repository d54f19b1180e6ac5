"""What `seq2exp spatial compare` may be told: one protocol, and systems with their own settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seq2exp.core.config import bind, load_config, load_yaml, merge, require_known, to_dict
from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.files import safe_name
from seq2exp.spatial.config import EncoderConfig, Protocol, SpatialConfig, SpatialFitConfig
from seq2exp.spatial.evaluation import DEPTH
from seq2exp.spatial.systems.registry import CLOSED, SYSTEMS, system_config

__all__ = [
    "CompareConfig",
    "Contender",
    "SystemChoice",
    "contenders",
    "encoder_label",
    "open_bank",
    "plain_protocol",
    "protocol_of",
    "seeded",
]

OWN = ("system", "fit", "trained_encoder")
"""What a system decides itself; everything else of its configuration is the protocol."""
_PIXELS = "pixel_densities"


@dataclass(frozen=True)
class CompareConfig(Protocol):
    """A protocol, and the systems that are compared under it."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """What makes features of patches, for all systems that read features. A system may still train
    an encoder of its own on the same patches (``trained_encoder`` of its file), or read their
    pixels (``encoder: {name: pixel_densities}``)."""
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Systems by name, each with ``config`` (a YAML file with its settings; by default
    ``configs/spatial/NAME.yaml``), ``system`` and ``fit`` (settings that replace those of the
    file). Without any: every system there is."""
    reference: str = "ridge"
    """System that the others are compared with; it is added where it is missing."""
    num_seeds: int = 1
    """Trainings of every system that has a seed."""
    num_resamples: int = 1000
    """Of the bootstrap over patients and genes."""
    bootstrap_seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.num_seeds, self.num_resamples, self.bootstrap_seed + 1) < 1:
            raise ConfigError(
                facts(
                    "comparison",
                    found=f"num_seeds {self.num_seeds}, num_resamples {self.num_resamples}, "
                    f"bootstrap_seed {self.bootstrap_seed}",
                    expected="1 or more, 1 or more, 0 or more",
                    fix="change it",
                )
            )


@dataclass(frozen=True)
class SystemChoice:
    """Where the settings of a system come from."""

    config: str = ""
    """YAML file, as ``spatial train`` reads it."""
    system: dict[str, Any] = field(default_factory=dict)
    """Settings that replace those of the file."""
    fit: dict[str, Any] = field(default_factory=dict)
    """The same for training."""


@dataclass(frozen=True)
class Contender:
    """A system under the protocol of a comparison."""

    name: str
    """In the table."""
    config: SpatialConfig
    """What is trained."""

    @property
    def has_seed(self) -> bool:
        """Whether another seed gives another training."""
        return str(self.config.system["name"]) not in CLOSED


def contenders(
    config: CompareConfig,
    *,
    shipped: Path,
    chosen: Sequence[str] = (),
    files: Mapping[str, Path] | None = None,
) -> list[Contender]:
    """Return the systems of a comparison; nothing is trained.

    Parameters
    ----------
    config : CompareConfig
    shipped : Path
        Folder that holds ``NAME.yaml`` of the systems of the package.
    chosen : sequence of str
        Only these, in this order; all of the configuration by default.
    files : mapping of str to Path, optional
        Configurations by name; names that were not chosen are added.

    Raises
    ------
    ConfigError
        An unknown system, a setting it does not have, or a file that asks for another protocol.
    """
    files = dict(files or {})
    names = list(dict.fromkeys([*(chosen or config.systems or SYSTEMS), *files]))
    if config.reference not in names:
        names.insert(0, config.reference)
    found = []
    for name in names:
        if safe_name(name) != name or name == DEPTH:
            raise ConfigError(
                facts(
                    "name of a system",
                    found=name,
                    expected="letters, digits and . _ - only, and not that of a control",
                    fix="give it another name",
                )
            )
        where = f"systems.{name}"
        choice = bind(SystemChoice, config.systems.get(name) or {}, where=where)
        path = files.get(name) or (Path(choice.config) if choice.config else None)
        found.append(Contender(name, _resolved(config, name, path, choice, shipped)))
    return found


def _resolved(
    config: CompareConfig, name: str, path: Path | None, choice: SystemChoice, shipped: Path
) -> SpatialConfig:
    """Return the configuration of a system under the protocol, with everything checked."""
    protocol = protocol_of(config)
    if path is None and (shipped / f"{name}.yaml").is_file():
        path = shipped / f"{name}.yaml"
    if path is not None:
        own = load_config(SpatialConfig, [path])
        _require_protocol(own, protocol, stated=load_yaml(path), path=path)
    else:
        if "name" not in choice.system:
            expected = "a system, or a name with a configuration (--config-of NAME=FILE)"
            require_known("systems", name, list(SYSTEMS), expected=expected)
        own = SpatialConfig(system={"name": name})
    system = choice.system
    if system.get("name", own.system["name"]) == own.system["name"]:
        system = merge(own.system, system)
    system_config(system)
    fit = merge(to_dict(own.fit), choice.fit)
    fitted = bind(SpatialFitConfig, fit, where=f"systems.{name}.fit")
    if own.encoder.name == _PIXELS:
        protocol["encoder"] = own.encoder
    return SpatialConfig(**protocol, system=system, fit=fitted, trained_encoder=own.trained_encoder)


def protocol_of(config: Protocol) -> dict[str, Any]:
    """Return what a run takes from the protocol, by field of :class:`SpatialConfig`."""
    own = {part.name for part in dataclasses.fields(config)}
    names = [part.name for part in dataclasses.fields(SpatialConfig) if part.name not in OWN]
    return {name: getattr(config, name) for name in names if name in own}


def plain_protocol(config: Protocol) -> dict[str, Any]:
    """Return the protocol as values that JSON can hold."""
    values = to_dict(config)
    return {name: values[name] for name in protocol_of(config)}


def _require_protocol(
    own: SpatialConfig, protocol: Mapping[str, Any], *, stated: Mapping[str, Any], path: Path
) -> None:
    """Refuse a file that asks for other labels, genes, folds or features than the comparison."""
    other = [key for key in protocol if key in stated and getattr(own, key) != protocol[key]]
    if own.encoder.name == _PIXELS:
        other = [key for key in other if key != "encoder"]
    if other:
        raise ConfigError(
            facts(
                str(path),
                found=f"{other[0]}: {stated[other[0]]}, which is not that of the comparison",
                expected="settings of system and fit; the protocol is one for all systems",
                fix=f"take {', '.join(other)} out of the file, or set it for the comparison",
                count=len(other),
            )
        )


def encoder_label(encoder: EncoderConfig) -> str:
    """Return a short name of an encoder, its weights and sizes, or of embeddings."""
    given = Path(encoder.embeddings)
    parts = [given.parent.name or given.stem] if encoder.embeddings else [encoder.name]
    parts += [Path(encoder.weights).stem] if encoder.weights else []
    parts += [f"{encoder.px}px"] if encoder.px else []
    parts += ["centred"] if encoder.center == "section" else []
    return "-".join(parts)


def open_bank(system: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose bank answers with other sections of a patient, unless they say how."""
    return merge({"retrieval": {"exclude": "section"}}, system)


def seeded(contender: Contender, seed: int) -> SpatialConfig:
    """Return the configuration of a training with other seeds; 0 leaves it as it is.

    Members take consecutive seeds, so trainings are as many seeds apart: none shares a member.
    """
    config = contender.config
    system = dict(config.system)
    known = {part.name for part in dataclasses.fields(SYSTEMS[str(system["name"])])}
    if seed and "seed" in known:
        system["seed"] = system_config(system).seed + seed
    first = config.fit.seed + seed * config.fit.members
    fit = dataclasses.replace(config.fit, seed=first)
    return dataclasses.replace(config, system=system, fit=fit)
