"""Groups of variants of an input scored together: from the input to a table, at any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.work import fingerprint
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.dataset.store import Dataset
from seq2exp.training.run import TrainedRun
from seq2exp.variants.claim import names_pending
from seq2exp.variants.command import EngineMaker, KeptOpen, Opened, header_of, model_sha256
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from seq2exp.variants.execute import Scorer, Share
from seq2exp.variants.joint import JointScorer, joint_columns
from seq2exp.variants.joint_groups import SHARD_SIZE, JointConfig, JointItems, find_items
from seq2exp.variants.joint_output import check_joint_output, write_joint
from seq2exp.variants.made import WORK
from seq2exp.variants.merge import Parts
from seq2exp.variants.outputs import check_outputs
from seq2exp.variants.scale import Identity, Job, Outcome, score_in_parts
from seq2exp.variants.shifts import with_shifts
from seq2exp.variants.source import VariantSource

__all__ = ["JointMaker", "check_joint", "joint_identity", "score_haplotypes"]


@dataclass(frozen=True)
class JointMaker:
    """Opens what scores groups in the process that scores; can be pickled.

    Attributes
    ----------
    engine : EngineMaker
    items : JointItems
    config : JointConfig
    genotypes : Path or None
        Folder with the genotypes of the samples that are named.
    """

    engine: EngineMaker
    items: JointItems
    config: JointConfig
    genotypes: Path | None

    def __call__(self, worker: int) -> Scorer:
        """Return what scores items, on the device of a worker."""
        engine, stack = self.engine.open(worker)
        calls = None if self.genotypes is None else Genotypes(self.genotypes)
        return KeptOpen(JointScorer(engine, self.items, self.config, calls), stack)


def check_joint(
    out: Path, config: ScoreConfig, *, inputs: list[Path], overwrite: bool = False
) -> None:
    """Raise before any work where joint scores cannot be made or written.

    Parameters
    ----------
    out : Path
    config : ScoreConfig
    inputs : list of Path
        Files that must not be written over.
    overwrite : bool
        The output may be replaced.

    Raises
    ------
    ConfigError
        Another ending, or a method that knows single changes only.
    InputError
        The path exists already, or its folder cannot be written to.
    """
    check_joint_output(out)
    check_outputs([out], inputs=inputs, overwrite=overwrite or names_pending([out]))
    if config.method != "exact":
        raise ConfigError(
            facts("--haplotype", found=f"it with --method {config.method}",
                  expected="exact scores: to first order joint is the sum",
                  fix="leave one of them out")
        )  # fmt: skip


def joint_identity(
    run: TrainedRun,
    dataset: Dataset,
    source: VariantSource,
    config: ScoreConfig,
    joint: JointConfig,
    *,
    genotypes: Path | None = None,
) -> Identity:
    """Return all that a table of joint scores depends on; as `score_haplotypes`."""
    plain = replace(config, context="reference", null_draws=0)
    plain = with_shifts(plain, run.card.data)
    echo = {**asdict(plain), **{f"joint_{name}": value for name, value in asdict(joint).items()}}
    echo |= {"shard_size": SHARD_SIZE}
    calls = "dataset" if genotypes is None else "input"
    echo |= {"genotypes": calls if joint.samples else ""}
    return Identity(source.sha256, model_sha256(run), dataset.manifest.checksum, echo)


def score_haplotypes(
    run: TrainedRun,
    dataset: Dataset,
    source: VariantSource,
    out: Path,
    config: ScoreConfig,
    joint: JointConfig,
    *,
    genotypes: Path | None = None,
    workers: int = 1,
    share: Share | None = None,
    overwrite: bool = False,
    restart: bool = False,
    keep_parts: bool = False,
    progress: bool = False,
) -> Outcome:
    """Score groups of variants and write their table; continues a killed call.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run.
    source : VariantSource
    out : Path
        ``.tsv``, ``.tsv.gz`` or ``.parquet``.
    config : ScoreConfig
        As for single variants; everything is compared to the reference.
    joint : JointConfig
    genotypes : Path, optional
        Folder with the genotypes of the samples that are named; by default those of the dataset.
    workers : int
        Processes on this machine.
    share : Share, optional
        Only a part of the work.
    overwrite, restart, keep_parts : bool
        Replace the output; throw the parts of an earlier call away; keep those of this one.
    progress : bool

    Returns
    -------
    Outcome

    Raises
    ------
    InputError, ConfigError
        No score is signed; and as `find_items`, `check_joint` and `score_in_parts` say.
    """
    check_joint(out, config, inputs=[source.path], overwrite=overwrite)
    identity = joint_identity(run, dataset, source, config, joint, genotypes=genotypes)
    plain = replace(config, context="reference", null_draws=0)
    calls = Genotypes(genotypes or dataset.root) if joint.samples else None
    with open_engine(run, dataset, plain) as engine:
        # With the shifts that are used.
        plain = engine.config
        columns = joint_columns(engine.scoring.computed)
        if not columns:
            raise ConfigError(
                facts("--haplotype", found="no signed score among " + ", ".join(config.scorers),
                      expected="one, since distances do not add up", fix="name one in --scores")
            )  # fmt: skip
        items = find_items(joint, source, engine, calls)
    header = header_of(run, dataset, identity.model_sha256, plain)
    header |= {"haplotype": ",".join(joint.which), "haplotype_overlap": joint.overlap}
    header[WORK] = fingerprint(identity.values())

    def write(parts: Parts, targets: Mapping[Path, Path]) -> None:
        for path, partial in targets.items():
            write_joint(path, partial, parts, columns, header)

    maker = EngineMaker(
        run.folder.absolute(), dataset.root.absolute(), plain, opened=Opened(run, dataset)
    )
    return score_in_parts(
        items,
        JointMaker(maker, items, joint, None if calls is None else calls.root),
        write,
        Job(
            outputs=[out],
            identity=identity,
            workers=workers,
            share=share,
            overwrite=overwrite,
            restart=restart,
            keep_parts=keep_parts,
        ),
        progress=progress,
    )
