"""Print what a dataset holds: contigs, genes by split, tracks, labels, features."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from seq2exp.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="folder `prepare` wrote")
    parser.add_argument(
        "--verify", action="store_true", help="compare the checksum of every file (reads it all)"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    print(describe(args.dataset, verify=args.verify))
    if args.json:
        from dataclasses import asdict

        from seq2exp.dataset.format import read_manifest

        options.write_rows(args, {"manifest": asdict(read_manifest(args.dataset))}, [])


def describe(path: Path, *, verify: bool = False) -> str:
    """Return the description of a dataset as text."""
    from seq2exp.dataset.store import Dataset

    dataset = Dataset(path, verify_checksums=verify)
    manifest = dataset.manifest
    size = sum(info.size for info in manifest.files.values())
    lines = [
        f"dataset {dataset.root}: {manifest.assembly}, {size / 1e6:.1f} MB, "
        f"format {manifest.format_version}" + (", every checksum right" if verify else ""),
        f"contigs   {len(manifest.contigs)}, {sum(manifest.contigs.values()):,} bases: "
        + _some(f"{name} {length:,}" for name, length in manifest.contigs.items()),
        _splits(dataset),
        *_tracks(manifest),
        _labels(dataset),
        _contacts(manifest),
        f"features  {', '.join(feature.name for feature in manifest.features) or 'none'}",
        _elements(dataset),
        *_genotypes(dataset),
        *(f"note      {name}: {count:,}" for name, count in manifest.counts.items()),
    ]
    return "\n".join(lines)


def _splits(dataset: Any) -> str:  # noqa: ANN401
    counts = dataset.genes["split"].value_counts()
    parts = [f"{split} {counts[split]:,}" for split in counts.index]
    reverse = int((dataset.genes["strand"] == "-").sum())
    return f"genes     {len(dataset.genes):,} ({reverse:,} on the minus strand): {', '.join(parts)}"


def _tracks(manifest: Any) -> list[str]:  # noqa: ANN401
    if not manifest.tracks:
        return ["tracks    none"]
    width = max(len(track.name) for track in manifest.tracks)
    head = (
        f"tracks    {len(manifest.tracks)}, bins of {manifest.bin_size} bp, {manifest.track_dtype}"
    )
    return [
        head,
        *(
            f"          {track.name:<{width}}  {track.statistic} of {track.unit or 'signal'}, "
            + ", ".join(f"{name} {value:.4g}" for name, value in track.summary.items())
            for track in manifest.tracks
        ),
    ]


def _labels(dataset: Any) -> str:  # noqa: ANN401
    info = dataset.manifest.expression
    if not info.samples:
        return "labels    none"
    unit = info.unit if info.transform == "none" else f"{info.transform}({info.unit})"
    return (
        f"labels    {int(dataset.labelled().sum()):,} genes x {len(info.samples)} in {unit}: "
        + _some(info.samples)
    )


def _contacts(manifest: Any) -> str:  # noqa: ANN401
    info = manifest.contacts
    if not info.num_bins:
        return "contacts  none"
    return f"contacts  {info.source}, {info.num_bins} bins of {info.bin_size:,} bp, {info.unit}"


def _elements(dataset: Any) -> str:  # noqa: ANN401
    sets = (
        f"{name} {sum(len(starts) for starts, _ in contigs.values()):,}"
        for name, contigs in dataset.elements.items()
    )
    return f"elements  {_some(sets) or 'none'}"


def _genotypes(dataset: Any) -> list[str]:  # noqa: ANN401
    info = dataset.manifest.genotypes
    if info is None:
        return ["genotypes none"]
    lines = [
        f"genotypes {sum(info.contigs.values()):,} variants x {len(info.donors):,} donors, "
        f"{'haploid' if info.ploidy == 1 else 'diploid'}: "
        + _some(f"{name} {number:,}" for name, number in info.contigs.items())
    ]
    lines += [f"          {name}: {count:,}" for name, count in info.counts.items() if count]
    for column in ("population", "sex"):
        known = dataset.donors[column].replace("", "unknown").value_counts()
        lines.append(f"          {column}: {_some(f'{k} {n:,}' for k, n in known.items())}")
    expression = dataset.donor_expression
    if expression is not None:
        unit = info.expression_unit or "a unit that was not stated"
        lines.append(f"          expression of {len(expression):,} genes in {unit}")
    return lines


def _some(items: Any) -> str:  # noqa: ANN401
    listed = list(items)
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")
