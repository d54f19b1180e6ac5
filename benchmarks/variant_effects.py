"""Do scores of variants find the true effects on simulated genomes?

    python benchmarks/variant_effects.py WORK [--genomes people demo] [--quick]

makes the genomes and models of `variant_genomes.py` in WORK (or goes on with what is there), scores
the variants of `variant_sets.py` with `seq2exp variants`' engine and compares them with what the
simulator says. A pair is a variant and a gene in whose window it lies; genes lie on a contig that
no model was trained on; the way of scoring is chosen on another one.

- ``pearson``, ``spearman``: score against effect, all pairs. ``sign_agreement``: causal pairs.
- ``abs_spearman``: absolute score against absolute effect, all pairs.
- ``auprc``: causal pairs (|effect| >= 0.05) against pairs without any effect.
- set ``linked``: of the donors' variants only causal ones that have a linked one (r2 >= 0.8 among
  donors, the same gene's window, no effect on it), and those linked ones. ``linked_accuracy``: how
  often the causal one of such a pair scores higher, whatever other genes do.

Controls have no sign: they take part in what looks at sizes. Signed metrics stand beside the same
network untrained, the scores with signs drawn by lot, the change of GC and of length, and controls
with a minus: most variants that act destroy something. ``sign_balanced`` is the mean of the sign
agreement of gains and of losses, one half for a score that never changes its sign.
Intervals: bootstrap over blocks of neighbouring genes as long as a window; differences are paired.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import circumstances, write_result
from variant_genomes import GENOMES, Genome, make
from variant_sets import (
    controls,
    dosages,
    draw_variants,
    effects_of,
    element_kinds,
)

from data_prep.simulate.load import load_world
from seq2exp.core.errors import Seq2ExpWarning
from seq2exp.dataset.store import Dataset
from seq2exp.models.registry import has_mask
from seq2exp.training.metrics import Row
from seq2exp.training.run import TrainedRun, open_run
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from seq2exp.variants.evaluate import SIGNED, UNSIGNED, EffectConfig, EffectJudge
from seq2exp.variants.linkage import LinkedPairs, linked_pairs
from seq2exp.variants.shifts import all_phases
from seq2exp.variation.alleles import CLASSES, STATUSES, normalise_all

SEEDS = {"people": 3, "demo": 0}
# Substitutions, and insertions and deletions, per element; genes that are tested at most.
NUMBERS = {"people": (12, 4), "demo": (6, 2)}
GENES = {"people": 1000, "demo": 40}
# Donors' variants that are rarer are left out.
MIN_MAF = {"people": 0.0, "demo": 0.05}
BANDS = (0, 500, 2_000, 8_000)
SIGNED_CONTROLS = ["gc_change", "length_change", "random"]
LOSSES = ["distance", "activity x contact", "peak"]
# Of how many genes of the validation contig the way of scoring is chosen.
CHOOSING_GENES = {"people": 60, "demo": 40}


def scorings(genome: Genome) -> dict[str, dict[str, Any]]:
    """Ways of scoring among which the validation contig chooses."""
    third = (-21, 0, 21)
    phases = all_phases(open_run(genome.run(genome.main)).card.data.bin_size)
    return {
        "as trained": {"strands": "forward", "shifts": (0,)},
        "both strands": {"strands": "both", "shifts": (0,)},
        "3 shifts": {"strands": "forward", "shifts": third},
        "3 shifts, 16 of indels": {"strands": "forward", "shifts": third, "indel_shifts": phases},
    }


def score_table(
    run: TrainedRun,
    dataset: Dataset,
    alleles: pd.DataFrame,
    sample: str,
    settings: dict[str, Any],
    *,
    fixed: bool = True,
) -> pd.DataFrame:
    """Return what the engine says: variant (record), gene_row, score, and fixed under a mask.

    ``fixed`` is the score with the mask of the reference held.
    """
    masked = fixed and all(has_mask(model) for model in run.models)
    scorers = ("expr_delta", "expr_delta_fixed") if masked else ("expr_delta",)
    config = ScoreConfig(scorers=scorers, samples=(sample,), batch_size=32, **settings)
    with open_engine(run, dataset, config) as engine:
        found = engine.score(alleles)
    found = found[found["score_status"].str.startswith("scored")]
    table = found[["record", "gene_row", f"expr_delta:{sample}"]]
    table = table.set_axis(["variant", "gene_row", "score"], axis=1)
    return table.assign(fixed=found[f"expr_delta_fixed:{sample}"]) if masked else table


def alleles_of(variants: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Return variants of one contig as the engine reads them."""
    contig = str(variants["chrom"].iloc[0])
    position = variants["position"].to_numpy(np.int64)
    refs, alts = variants["ref"].tolist(), variants["alt"].tolist()
    found = normalise_all(position, refs, alts, reference_codes=dataset.contig_codes(contig))
    return pd.DataFrame(
        {
            "record": np.arange(len(variants)),
            "allele": 1,
            "chrom": contig,
            "contig": contig,
            "position": position,
            "id": ".",
            "ref": refs,
            "alt": alts,
            "gene": "",
            "haplotype": "",
            "norm_position": found.position_M,
            "norm_ref": found.refs,
            "norm_alt": found.alts,
            "variant_type": np.array(CLASSES)[found.class_M],
            "ref_status": np.array(STATUSES)[found.status_M],
            "was_normalised": found.changed_M,
        }
    )


class Scored:
    """Variants of one contig with truth, controls and the scores of models."""

    def __init__(self, genome: Genome, contig: str, *, genes: int, quick: bool) -> None:
        self.genome, self.contig = genome, contig
        self.source = genome.folder / "simulated"
        self.dataset = Dataset(genome.folder / "dataset")
        self.world = load_world(self.source)
        snvs, indels = (3, 1) if quick else NUMBERS[genome.name]
        table = draw_variants(
            self.source,
            self.world,
            contig,
            num_snvs=snvs,
            num_indels=indels,
            min_maf=MIN_MAF[genome.name],
            seed=SEEDS["people"],
        )
        rows = [row for row, site in enumerate(self.dataset.sites) if site[0] == contig][:genes]
        window = open_run(genome.run(genome.main)).card.data.window_bp
        tss = np.array([self.dataset.sites[row][1] for row in rows])
        # Nothing beyond the windows of the chosen genes need be scored.
        near = np.abs(table["position"].to_numpy()[:, None] - tss).min(axis=1) < window
        self.variants = table[near].reset_index(drop=True)
        self.rows, self.block_bp = rows, window
        self.scores: dict[str, pd.DataFrame] = {}

    def add(
        self, name: str, run: Path, sample: str, settings: dict[str, Any], *, fixed: bool = True
    ) -> float:
        """Score all variants with a run; return the seconds that took."""
        start = time.monotonic()
        alleles = alleles_of(self.variants, self.dataset)
        found = score_table(open_run(run), self.dataset, alleles, sample, settings, fixed=fixed)
        found = found[found["gene_row"].isin(self.rows)]
        self.scores[name] = found.set_index(["variant", "gene_row"])
        return time.monotonic() - start

    def pairs(self) -> pd.DataFrame:
        """Return pairs that every model scored, with truth, controls and scores."""
        joined = (
            pd.concat(
                [
                    frame[[c for c in ("score", "fixed") if c in frame]].add_prefix(f"{name}|")
                    for name, frame in self.scores.items()
                ],
                axis=1,
                join="inner",
            )
            .dropna(axis=1, how="all")
            .dropna()
        )
        found = joined.rename(columns=lambda name: name.removesuffix("|score")).reset_index()
        found = found.merge(self.variants, left_on="variant", right_index=True)
        ids = self.dataset.genes["gene_id"].astype(str).to_numpy()
        found["gene_id"] = ids[found["gene_row"]]
        truth = effects_of(self.world, self.variants)
        found = found.merge(truth, on=["variant", "gene_id"], how="left")
        found["effect"] = found["effect"].fillna(0.0)
        tss = np.array([self.dataset.sites[row][1] for row in found["gene_row"]])
        found["far"] = np.abs(found["position"] - tss)
        found["block"] = tss // self.block_bp
        found["kind"] = element_kinds(self.source, self.variants)[found["variant"]]
        found["snv"] = (found["ref"].str.len() == 1) & (found["alt"].str.len() == 1)
        self.dosage_DM = dosages(self.source, self.variants)
        return pd.concat([found, controls(found, self.dataset, self.dosage_DM)], axis=1)

    def linked(self, pairs: pd.DataFrame, config: EffectConfig) -> LinkedPairs:
        """Return linked pairs as positions in the table ``pairs``."""
        causal, linked = [], []
        for _, part in pairs.assign(place=np.arange(len(pairs))).groupby("gene_row"):
            dosage_DM = self.dosage_DM[:, part["variant"].to_numpy()]
            carried = np.isfinite(dosage_DM).all(axis=0)
            place = part["place"].to_numpy()[carried]
            effect = part["effect"].to_numpy()[carried]
            found = linked_pairs(
                effect, dosage_DM[:, carried], causal=config.causal, negligible=config.negligible
            )
            causal.append(place[found.causal])
            linked.append(place[found.linked])
        return LinkedPairs(np.concatenate(causal), np.concatenate(linked))

    def truth_check(self, pairs: pd.DataFrame) -> float:
        """Return the largest difference to truth/donor_variants.tsv.gz."""
        path = self.source / "truth" / "donor_variants.tsv.gz"
        told = pd.read_csv(path, sep="\t")[["chrom", "position", "ref", "alt", "gene_id", "effect"]]
        keys = ["chrom", "position", "ref", "alt", "gene_id"]
        both = pairs.merge(told, on=keys, suffixes=("", "_told"))
        return float((both["effect"] - both["effect_told"]).abs().max())


def choose(genome: Genome, *, quick: bool) -> tuple[str, list[dict[str, Any]]]:
    """Return the way of scoring that is best on the validation contig, and what all reach."""
    scored = Scored(
        genome, genome.valid, genes=8 if quick else CHOOSING_GENES[genome.name], quick=quick
    )
    folder, sample = genome.models[genome.main]
    ways = scorings(genome)
    for name, settings in ways.items():
        scored.add(name, genome.folder / folder, sample, settings)
    pairs = scored.pairs()
    names = [str(name) for name in pairs if str(name).split("|")[0] in ways]
    config = EffectConfig(num_resamples=200)
    judge = EffectJudge(
        pairs["gene_row"], pairs["effect"], config, group_P=pairs["block"], split=genome.valid
    )
    rows = judge.rows({name: pairs[name] for name in names}, ("pearson", "abs_spearman", "auprc"))
    value = {(row["name"], row["metric"]): row["value"] or 0.0 for row in rows}
    # One number for three questions: the sum of the metrics, all at best 1.
    total = {n: sum(value[n, m] for m in ("pearson", "abs_spearman", "auprc")) for n in names}
    return max(total, key=lambda name: total[name]), rows


def judged(pairs: pd.DataFrame, scored: Scored, genome: Genome, config: EffectConfig) -> list[Row]:
    """Return all rows of one genome: sets, linked pairs and strata."""
    main, models = genome.main, list(genome.models)
    found = controls(pairs.head(2), scored.dataset, scored.dosage_DM)
    names = [str(name) for name in found if name not in SIGNED_CONTROLS[:2]]
    signs = np.random.default_rng(1).choice([-1.0, 1.0], len(pairs))
    signed = {name: pairs[name].to_numpy() for name in [*models, *SIGNED_CONTROLS]}
    signed[f"{main}, signs by lot"] = pairs[main].to_numpy() * signs
    # Most true effects are losses: what can be had by always saying so.
    for name in LOSSES:
        signed[f"minus {name}"] = -pairs[name].to_numpy()
    sizes = {name: pairs[name].to_numpy() for name in [*models, *names]}
    judge = EffectJudge(
        pairs["gene_row"], pairs["effect"], config, group_P=pairs["block"], split=scored.contig
    )
    rows: list[Row] = []
    linked = scored.linked(pairs, config)
    in_linked = np.zeros(len(pairs), dtype=bool)
    in_linked[np.concatenate(linked)] = True
    donors = (pairs["set"] == "donors").to_numpy()
    for name, where in (("donors", donors), ("elements", ~donors)):
        rows += judge.rows(signed, SIGNED, reference=main, where_P=where, stratum=name)
        rows += judge.rows(sizes, UNSIGNED, reference=main, where_P=where, stratum=name)
    rows += judge.rows(sizes, ("auprc",), reference=main, where_P=in_linked, stratum="linked")
    rows += judge.linked_rows(sizes, linked, reference=main, stratum="linked")
    kept = [main, *[n for n in models if n != main], "distance", "activity x contact", "random"]
    few = {name: sizes[name] for name in kept}
    for name, where in strata(pairs, judge).items():
        both = where & ~donors
        signed_few = {n: signed[n] for n in [*models, "minus activity x contact"]}
        metrics = ("pearson", "sign_agreement", "sign_balanced")
        rows += judge.rows(signed_few, metrics, reference=main, where_P=both, stratum=name)
        rows += judge.rows(few, UNSIGNED, reference=main, where_P=both, stratum=name)
    return rows


def strata(pairs: pd.DataFrame, judge: EffectJudge) -> dict[str, np.ndarray]:
    """Return parts of the pairs by effect, distance, kind of variant and place."""
    found: dict[str, np.ndarray] = {}
    size, idle = pairs["effect"].abs().to_numpy(), judge.idle_P
    inside = (pairs["set"] == "elements").to_numpy()
    edges = np.quantile(size[judge.causal_P & inside], [0, 0.25, 0.5, 0.75, 1])
    for number in range(4):
        low, high = edges[number], edges[number + 1]
        here = (size >= low) & ((size < high) if number < 3 else (size <= high))
        found[f"effect {low:.2f}-{high:.2f}"] = (here & judge.causal_P) | idle
    for low, high in zip(BANDS, (*BANDS[1:], np.inf), strict=True):
        far = pairs["far"].to_numpy()
        label = f"distance {low / 1000:g}-{high / 1000:g} kb"
        found[label] = (far >= low) & (far < high)
    found["substitutions"] = pairs["snv"].to_numpy()
    found["insertions and deletions"] = ~pairs["snv"].to_numpy()
    for kind in ("promoter", "enhancer", "decoy"):
        found[f"in a {kind}"] = (pairs["kind"] == kind).to_numpy()
    return {name: where for name, where in found.items() if where.any()}


def shown(rows: list[Row]) -> dict[str, Any]:
    """Return rows as stratum, metric, name: value with interval; and what they rest on."""
    found: dict[str, Any] = {}
    for row in rows:
        part = found.setdefault(row["stratum"] or row["split"], {}).setdefault(row["metric"], {})
        part |= {"num_pairs": row["n"], **{key: row[key] for key in ("num_causal", "num_genes")}}
        if row["value"] is not None:
            numbers = [row[key] for key in ("value", "low", "high")]
            low, high = ("-" if x is None else f"{x:.3f}" for x in numbers[1:])
            part[row["name"]] = f"{numbers[0]:.3f} [{low}, {high}]"
    return found


def one_genome(name: str, work: Path, *, quick: bool) -> dict[str, Any]:
    """Return everything about one genome."""
    genome = make(name, work, seed=SEEDS[name], quick=quick)
    best, choices = choose(genome, quick=quick)
    scoring, _, column = best.partition("|")
    settings = scorings(genome)[scoring]
    scored = Scored(genome, genome.test, genes=8 if quick else GENES[name], quick=quick)
    seconds = {
        model: scored.add(model, genome.run(model), sample, settings, fixed=column == "fixed")
        for model, (_, sample) in genome.models.items()
    }
    pairs = scored.pairs()
    for model in genome.models:
        if column and f"{model}|{column}" in pairs:
            pairs[model] = pairs[f"{model}|{column}"]
    config = EffectConfig(num_resamples=200 if quick else 1000)
    return {
        "genome": name,
        "seed": SEEDS[name],
        "choose_on": genome.valid,
        "test": genome.test,
        "scoring": best,
        "scoring_choices": shown(choices),
        "num_variants": len(scored.variants),
        "num_pairs": len(pairs),
        "num_genes": int(pairs["gene_row"].nunique()),
        "largest_difference_to_stored_truth": scored.truth_check(pairs),
        "seconds_to_score": {model: round(value, 1) for model, value in seconds.items()},
        "results": shown(judged(pairs, scored, genome, config)),
    }


def main() -> None:
    """Run the benchmark and write the result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    warnings.simplefilter("ignore", Seq2ExpWarning)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--genomes", nargs="+", choices=list(GENOMES), default=list(GENOMES))
    parser.add_argument("--quick", action="store_true", help="one epoch, few genes, not written")
    args = parser.parse_args()
    found = [one_genome(name, args.work, quick=args.quick) for name in args.genomes]
    result = {
        "what": "scores of variants against the simulator's effects (ln expression, blood)",
        "causal": f"|effect| >= {EffectConfig.causal}; none: < {EffectConfig.negligible}",
        "genomes": found,
        **circumstances("torch", "numpy"),
    }
    write_result("variant_effects", result, quick=args.quick)


if __name__ == "__main__":
    main()
