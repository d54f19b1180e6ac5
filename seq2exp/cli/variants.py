"""Score variants: changes of predicted expression and of regulatory elements, VCF in, VCF out.

docs/variants.md describes the command; further pages the scores, the files and large inputs.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2exp import __version__
from seq2exp.cli import options

if TYPE_CHECKING:
    from seq2exp.dataset.store import Dataset
    from seq2exp.training.run import TrainedRun
    from seq2exp.variants.config import ScoreConfig
    from seq2exp.variants.execute import Share
    from seq2exp.variants.joint_groups import JointConfig
    from seq2exp.variants.scale import Outcome
    from seq2exp.variants.source import VariantSource


logger = logging.getLogger(__name__)

_DRAWS, _FLANK, _FEW_DRAWS = 99, 1024, 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    options.add_run(parser)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--vcf", type=Path, metavar="FILE", help="VCF or BCF, plain or compressed")
    given.add_argument(
        "--table", type=Path, metavar="FILE",
        help="TSV, CSV or Parquet with chrom, pos, ref, alt; or one variant or rsID per line",
    )  # fmt: skip
    given.add_argument(
        "--variant", action="append", metavar="VARIANT",
        help="chr1:100:A>G, 1-100-A-G or an rsID; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, action="append", type=Path, metavar="FILE",
        help=".vcf, .vcf.gz, .tsv, .tsv.gz or .parquet; may be repeated",
    )  # fmt: skip
    parser.add_argument("--long", action="store_true", help="tables with one row per score")
    _add_reading(parser)
    _add_scoring(parser)
    _add_haplotypes(parser)
    _add_significance(parser)
    _add_work(parser)
    options.add_overwrite(parser)
    options.add_json(parser)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input")
    group.add_argument(
        "--coordinates", type=int, choices=(0, 1),
        help="number of the first base, for tables that do not say it",
    )  # fmt: skip
    group.add_argument(
        "--lookup", type=Path, metavar="FILE", help="where rsIDs are found: a VCF or a table"
    )
    group.add_argument(
        "--gene-column", metavar="NAME", help="column with the gene that each variant is scored for"
    )
    group.add_argument(
        "--ref-policy", default="flag", choices=("flag", "strict", "use-vcf-ref", "drop-swapped"),
        help="what to do where REF is not what the genome says (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--max-mismatch", type=options.share, default=0.05, metavar="SHARE",
        help="largest share of alleles that may not fit the genome (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--max-indel", type=int, default=1000, metavar="BP",
        help="longest insertion or deletion that is scored (%(default)s)",
    )  # fmt: skip


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores")
    group.add_argument(
        "--scores", metavar="NAMES", help="names with commas (default: the usual ones of the model)"
    )
    group.add_argument(
        "--method", default="exact", choices=("exact", "gradient"),
        help="exact: a pass per allele; gradient: first order, all substitutions at once",
    )  # fmt: skip
    group.add_argument(
        "--sample", action="append", default=[], metavar="NAME",
        help="label that is scored; may be repeated (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--gene", action="append", default=[], metavar="ID",
        help="gene id or symbol; may be repeated (default: all whose window holds the variant)",
    )  # fmt: skip
    group.add_argument(
        "--edge", default="pad", choices=("pad", "skip"),
        help="windows that reach beyond a contig (%(default)s)",
    )  # fmt: skip
    options.add_views(group)
    group.add_argument(
        "--ensemble", default="pred", choices=("pred", "score"),
        help="average predictions or scores (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--mask-bp", type=int, default=501, metavar="BP",
        help="width around the variant in which masks and tracks are compared (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--element-threshold", type=float, metavar="MASK",
        help="smallest mask of an element (default: the highest 5 %% of a window)",
    )  # fmt: skip


def _add_haplotypes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("haplotypes")
    group.add_argument(
        "--context", default="reference", choices=("reference", "carriers", "dataset"),
        help="what else the sequences hold: nothing, or what the haplotypes of carriers hold, by "
        "the genotypes of the input or of the dataset (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--carrier", action="append", default=[], metavar="SAMPLE",
        help="sample that counts as carrier; may be repeated (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--max-carriers", type=int, default=20, metavar="N",
        help="carriers of a variant that are looked at, drawn by the seed; 0 for all (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--phase", default="error", choices=("error", "random"),
        help="heterozygous calls without phase: refused, or dealt by a hash (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--haplotype", action="append", default=[], metavar="WHICH",
        help="score variants together: input (groups it names), all (of a window), or a sample "
        "(what each of its haplotypes carries); may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--haplotype-out", type=Path, metavar="FILE",
        help=".tsv, .tsv.gz or .parquet with joint scores and epistasis",
    )  # fmt: skip
    group.add_argument(
        "--haplotype-overlap", default="skip", choices=("skip", "first"),
        help="variants of a group that cannot stand together: the group is not scored, or the "
        "first ones apply (%(default)s)",
    )  # fmt: skip


def _add_significance(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("significance")
    group.add_argument(
        "--null", choices=("shuffle",),
        help="p-values: the same change in shuffled surroundings",
    )  # fmt: skip
    group.add_argument(
        "--null-draws", type=options.counted, metavar="N",
        help=f"shuffles per variant and gene ({_DRAWS}); each costs two passes",
    )  # fmt: skip
    group.add_argument(
        "--null-flank", type=options.counted, metavar="BP",
        help=f"bases on either side that are shuffled ({_FLANK})",
    )  # fmt: skip
    group.add_argument(
        "--background", type=Path, metavar="FILE",
        help="quantiles among common variants: what `variants background` wrote",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=options.seeded, default=0, help="draws shuffles and carriers (%(default)s)"
    )


def _add_work(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("work")
    group.add_argument(
        "--batch-size", type=options.counted, default=32, help="sequences per pass (%(default)s)"
    )
    group.add_argument("--workers", type=options.counted, default=1, help="processes (%(default)s)")
    group.add_argument(
        "--shard", metavar="I/N", help="only the I-th of N shares, for arrays of jobs"
    )
    group.add_argument(
        "--restart", action="store_true", help="throw the parts of an earlier run away"
    )
    group.add_argument("--keep-parts", action="store_true", help="leave the work folder")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.variants.claim import names_pending
    from seq2exp.variants.copies import input_copies
    from seq2exp.variants.execute import parse_share
    from seq2exp.variants.joint_command import check_joint
    from seq2exp.variants.outputs import check_outputs

    _check_idle(args)
    config = _config(args)
    _tell_steps(config.null_draws)
    share = parse_share(args.shard) if args.shard else None
    inputs = [] if args.variant else [args.vcf or args.table]
    # A share may find outputs of the same work, which is known once the input is read.
    overwrite = args.overwrite or share is not None
    check_outputs(args.out, inputs=inputs, overwrite=overwrite or names_pending(args.out))
    joint = _joint_config(args)
    if joint is not None:
        check_joint(args.haplotype_out, config, inputs=inputs, overwrite=overwrite)
    with input_copies(args.out[0]) as copies:
        _score(args, config, joint, share, copies)


def _score(
    args: argparse.Namespace,
    config: ScoreConfig,
    joint: JointConfig | None,
    share: Share | None,
    copies: Path,
) -> None:
    from seq2exp.core.files import refuse_existing
    from seq2exp.training.run import open_run
    from seq2exp.variants.command import score_variants
    from seq2exp.variants.joint_command import score_haplotypes
    from seq2exp.variants.source import open_source

    trained = open_run(args.run_folder)
    dataset = trained.open_dataset(args.data)
    source = open_source(
        args.variant or args.vcf or args.table,
        dataset=dataset,
        zero_based=None if args.coordinates is None else args.coordinates == 0,
        lookup=args.lookup,
        gene_column=args.gene_column,
        max_mismatch=1.0 if args.ref_policy == "use-vcf-ref" else args.max_mismatch,
        cache=copies,
    )
    for note in source.notes:
        logger.info("%s: %s", source.path, note)
    # It waits aside until all is done: a killed command finds it there, and not in the way.
    aside, mark = None, ""
    if joint is not None:
        mark = _joint_mark(args, trained, dataset, source, config, joint)
        aside = args.haplotype_out.absolute().with_name(f".{mark}.joint.{args.haplotype_out.name}")
    if share is not None and _is_done(args, trained, dataset, source, config, mark, aside):
        return
    together = None
    with _genotypes(args, dataset, source, joint, aside) as genotypes:
        work: dict[str, Any] = {
            "genotypes": genotypes,
            "workers": args.workers,
            "share": share,
            "overwrite": args.overwrite,
            "restart": args.restart,
            "keep_parts": args.keep_parts,
            "progress": not args.quiet,
        }
        if joint is not None and aside is not None and (args.restart or not aside.exists()):
            aside.unlink(missing_ok=True)
            together = score_haplotypes(trained, dataset, source, aside, config, joint, **work)
        scored = score_variants(
            trained, dataset, source, args.out, config,
            background=args.background, long=args.long, **work,
        )  # fmt: skip
    outcome = scored.outcome
    if outcome.rank:
        return
    if outcome.idle:
        print(f"nothing to do: {outcome.idle}")
        return
    print(scored.summary.line() if source.num_records else _nothing_in(source))
    _say(outcome, args.out)
    if aside is not None and outcome.merged and aside.exists():
        refuse_existing(args.haplotype_out, overwrite=args.overwrite)
        aside.replace(args.haplotype_out)
        _say(outcome, [args.haplotype_out])
    if together is not None:
        counts = together.counts.get("score_status", {})
        num = sum(number for name, number in counts.items() if name.startswith("scored"))
        print(f"{together.num_rows:,} pairs of group and gene, {num:,} scored")
    if genotypes is not None and outcome.merged and not args.keep_parts:
        _remove_genotypes(genotypes)
    options.write_rows(
        args,
        {"run": str(args.run_folder), "data": str(dataset.root), "input": str(source.path)},
        scored.summary.rows(),
    )
    if args.ref_policy != "use-vcf-ref":
        scored.summary.refuse_mismatch(args.max_mismatch, what=str(source.path))


def _nothing_in(source: VariantSource) -> str:
    return f"no records in {source.path}: the outputs have their headers and no rows"


def _is_done(
    args: argparse.Namespace,
    run: TrainedRun,
    dataset: Dataset,
    source: VariantSource,
    config: ScoreConfig,
    joint_mark: str,
    aside: Path | None,
) -> bool:
    """Tell whether the outputs of a share are there already; refuse those of other work."""
    from seq2exp.core.files import refuse_existing
    from seq2exp.core.work import fingerprint
    from seq2exp.variants.claim import names_pending
    from seq2exp.variants.command import identity_of
    from seq2exp.variants.made import made_of
    from seq2exp.variants.scale import MADE

    identity = identity_of(run, dataset, source, config, background=args.background, long=args.long)
    done = made_of(args.out, fingerprint(identity.values()))
    if aside is not None:
        # Aside it is about to get its name, from who made the others.
        done = done and (made_of([args.haplotype_out], joint_mark) or aside.exists())
        if not done:
            refuse_existing(args.haplotype_out, overwrite=args.overwrite)
    if done:
        print(f"nothing to do: {MADE}")
        return True
    overwrite = args.overwrite or names_pending(args.out)
    for out in args.out:
        refuse_existing(out, overwrite=overwrite)
    return False


def _check_idle(args: argparse.Namespace) -> None:
    """Refuse an option that would change nothing, as its user believes otherwise."""
    from seq2exp.core.errors import ConfigError, facts

    if args.carrier and args.context == "reference":
        raise ConfigError(
            facts("--carrier", found="a sample and --context reference",
                  expected="--context carriers or dataset", fix="add one, or leave out --carrier")
        )  # fmt: skip
    for option, value in (("--null-draws", args.null_draws), ("--null-flank", args.null_flank)):
        if value is not None and not args.null:
            raise ConfigError(
                facts(option, found=f"{value} without --null", expected="--null shuffle",
                      fix=f"add it, or leave out {option}")
            )  # fmt: skip


def _tell_steps(num_draws: int) -> None:
    """Say how small a p-value can be at all, where draws are few."""
    if 0 < num_draws < _FEW_DRAWS:
        logger.info(
            "%d null draws: no p-value is below %.2g for signed scores, %.2g for others",
            num_draws, min(1.0, 2 / (num_draws + 1)), 1 / (num_draws + 1),
        )  # fmt: skip


def _say(outcome: Outcome, outs: list[Path]) -> None:
    """Print what was written, or what others have to do."""
    if outcome.left:
        print(f"{len(outcome.left)} of {outcome.num_shards} shards are left for other jobs")
    elif outcome.merged:
        print("wrote " + ", ".join(str(path) for path in outs))


def _joint_config(args: argparse.Namespace) -> JointConfig | None:
    from seq2exp.core.errors import ConfigError, facts
    from seq2exp.variants.joint_groups import JointConfig

    if bool(args.haplotype) != (args.haplotype_out is not None):
        raise ConfigError(
            facts(
                "--haplotype and --haplotype-out",
                found="one of them",
                expected="both: which variants are scored together, and where to write it",
                fix="give the other one too",
            )
        )
    if not args.haplotype:
        return None
    return JointConfig(tuple(args.haplotype), args.haplotype_overlap)


@contextmanager
def _genotypes(
    args: argparse.Namespace,
    dataset: Dataset,
    source: VariantSource,
    joint: JointConfig | None,
    aside: Path | None,
) -> Iterator[Path | None]:
    """Yield where genotypes of the input are, if they are needed: a folder beside the output.

    It goes again where all is refused before there is anything to continue.
    """
    from data_prep.variants.genotype_folder import genotype_folder
    from seq2exp.core.errors import ConfigError, Seq2ExpError, facts
    from seq2exp.core.work import fingerprint, work_folders

    samples = joint.samples if joint is not None else ()
    if args.context == "dataset" or not (args.context == "carriers" or samples):
        yield None
        return
    if args.vcf is None:
        raise ConfigError(
            facts(
                "--context carriers" if args.context == "carriers" else "--haplotype SAMPLE",
                found="an input that is no VCF",
                expected="a VCF with genotypes",
                fix="give --vcf, or --context dataset for a dataset with genotypes",
            )
        )
    # Without names of carriers everybody may be one.
    everybody = args.context == "carriers" and not args.carrier
    kept = [] if everybody else list(dict.fromkeys([*args.carrier, *samples]))
    mark = fingerprint(
        {
            "input": source.sha256,
            "dataset": dataset.manifest.checksum,
            "samples": kept,
            "max_indel": args.max_indel,
            "version": __version__,
        }
    )
    out = args.out[0].absolute()
    folder: Path = out.with_name(f".{out.name}.{mark}.genotypes")
    try:
        genotype_folder(
            args.vcf,
            folder,
            dataset=dataset.root,
            samples=kept,
            max_indel=args.max_indel,
            workers=args.workers,
            progress=not args.quiet,
        )
        yield folder
    except Seq2ExpError:
        begun = work_folders(out) or (aside and (aside.exists() or work_folders(aside)))
        if not begun:
            _remove_genotypes(folder, mark=mark)
        raise


def _joint_mark(
    args: argparse.Namespace,
    run: TrainedRun,
    dataset: Dataset,
    source: VariantSource,
    config: ScoreConfig,
    joint: JointConfig,
) -> str:
    """Return the fingerprint of all that a table of joint scores depends on."""
    from seq2exp.core.work import fingerprint
    from seq2exp.variants.joint_command import joint_identity

    calls = None if args.context == "dataset" else args.vcf
    identity = joint_identity(run, dataset, source, config, joint, genotypes=calls)
    return fingerprint(identity.values())


def _remove_genotypes(folder: Path, *, mark: str = "[0-9a-f]" * 16) -> None:
    """Delete a folder of genotypes, and those of other settings where no mark is given."""
    import glob
    import shutil

    name = folder.name.rpartition(".")[0].rpartition(".")[0]
    for path in folder.parent.glob(f"{glob.escape(name)}.{mark}.genotypes*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _config(args: argparse.Namespace) -> ScoreConfig:
    from seq2exp.variants.choice import scorer_names
    from seq2exp.variants.config import ScoreConfig

    return ScoreConfig(
        scorers=tuple(scorer_names(args.scores)) if args.scores else (),
        samples=tuple(args.sample),
        genes=tuple(args.gene),
        method=args.method,
        ref_policy=args.ref_policy,
        max_indel=args.max_indel,
        edge=args.edge,
        strands=args.strands,
        shifts=args.shifts,
        indel_shifts=args.indel_shifts,
        ensemble=args.ensemble,
        mask_bp=args.mask_bp,
        element_threshold=args.element_threshold,
        batch_size=args.batch_size,
        null_draws=(args.null_draws or _DRAWS) if args.null else 0,
        null_flank=args.null_flank or _FLANK,
        seed=args.seed,
        context=args.context,
        carriers=tuple(args.carrier),
        max_carriers=args.max_carriers,
        phase=args.phase,
    )
