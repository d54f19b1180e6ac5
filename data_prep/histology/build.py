"""Raw sections to one cohort folder: check everything, cut patches, write once.

The folder appears whole or not at all. All sections are read and checked before the first patch is
cut, so a mistake in the last one costs no time.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.histology.checks import (
    alignment,
    keep_spots,
    physical_scale,
    require_on_image,
    require_patch_in_image,
)
from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.genes import GeneTable, read_gene_table
from data_prep.histology.pitch import estimate_pitch
from data_prep.histology.raw import RawSection
from data_prep.histology.section import read_section
from data_prep.histology.spatialdata_store import unpacked
from seq2exp import __version__
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts
from seq2exp.core.files import atomic_directory, refuse_existing, require_space, safe_name, sha256
from seq2exp.core.progress import track
from seq2exp.core.slides import AnyImage, SlideImage, open_tissue
from seq2exp.core.stain import Macenko
from seq2exp.spatial import format as layout
from seq2exp.spatial.format import CohortManifest, PatchInfo, SectionInfo

__all__ = ["prepare_cohort"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Checked:
    """A section that passed every check, without its image."""

    section: RawSection
    um_per_px: float
    left_out: dict[str, int]
    notes: dict[str, float]
    size: tuple[int, int]
    by_region: bool = False


def prepare_cohort(
    config: CohortConfig,
    source: Path,
    out: Path,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> CohortManifest:
    """Write a cohort folder.

    Parameters
    ----------
    config : CohortConfig
    source : Path
        Folder that relative paths of the configuration start from.
    out : Path
        Folder to write.
    overwrite : bool
        Replace an existing folder.
    progress : bool
        Report progress.

    Raises
    ------
    InputError, FormatError, ConfigError
        Inputs cannot be used; the message names file, finding and remedy.
    """
    source, out = Path(source), Path(out)
    refuse_existing(out, overwrite=overwrite)
    with unpacked(config, source) as files:
        return _prepare(files, source, out, overwrite=overwrite, progress=progress)


def _prepare(
    config: CohortConfig, source: Path, out: Path, *, overwrite: bool, progress: bool
) -> CohortManifest:
    table = read_gene_table(config.genes, source)
    checked = [_check(section, config, source) for section in config.sections]
    for one in checked:
        _require_known_genes(one.section, table)
    has_ids = _require_shared_genes([one.section for one in checked], table)
    num_spots = sum(len(one.section.x) for one in checked)
    require_space(out.parent, num_spots * config.patch.px**2 * 3)
    with atomic_directory(out, overwrite=overwrite) as partial:
        for name in ("sections", "patches", "images"):
            (partial / name).mkdir()
        reference: Macenko | None = None
        infos = []
        for one in track(checked, total=len(checked), label="sections", enabled=progress):
            image = _open(one.section, config)
            if image is not None and config.patch.stain == "macenko":
                fitted = Macenko.fit(image.overview()[0])
                reference = reference or fitted
                image = image.recoloured(partial_of(fitted.transform, reference=reference))
            infos.append(_write_section(one, image, config, table, partial))
        files = {
            str(path.relative_to(partial)): sha256(path)
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        manifest = CohortManifest(
            config.name,
            infos,
            PatchInfo(config.patch.px, config.patch.um, config.patch.stain),
            gene_ids="ensembl" if has_ids else "symbol",
            package_version=__version__,
            files=files,
        )
        layout.write_manifest(manifest, partial)
    return manifest


def _open(section: RawSection, cohort: CohortConfig) -> AnyImage | None:
    if section.image is None:
        return None
    return open_tissue(section.image, max_megapixels=cohort.max_megapixels)


def _check(config: SectionConfig, cohort: CohortConfig, source: Path) -> _Checked:
    section = read_section(config, cohort, source)
    image = _open(section, cohort)
    if image is not None:
        require_on_image(section, image)
    section, left_out = keep_spots(section, min_umi=cohort.min_umi)
    um_per_px = physical_scale(section)
    if image is None:
        _require_stored(section, cohort)
        return _Checked(section, um_per_px, left_out, {}, section.size)
    require_patch_in_image(section, image, side=cohort.patch.um / um_per_px)
    notes = alignment(section, image)
    on, off = notes["saturation_on_spots"], notes.get("saturation_off_spots")
    if cohort.check_alignment and off is not None and on <= off:
        raise InputError(
            facts(
                f"section {section.name}",
                found=f"colour saturation {on:.1f} on the spots and {off:.1f} off them",
                expected="spots on stained tissue",
                fix="check x and y, and the resolution of the image; "
                "check_alignment: false takes it as it is",
            )
        )
    _warn_if_coarse(section, cohort.patch.um / um_per_px, cohort)
    by_region = isinstance(image, SlideImage)
    return _Checked(section, um_per_px, left_out, notes, (image.width, image.height), by_region)


def _require_stored(section: RawSection, cohort: CohortConfig) -> None:
    """Refuse stored patches that cannot become those of the cohort."""
    stored = section.patches
    if stored is None or cohort.patch.stain != "none":
        raise InputError(
            facts(
                f"section {section.name}",
                found="patches without the image that they were cut from",
                expected="an image: the stain is fitted to it",
                fix="give image, or set patch.stain: none",
            )
        )
    stored.require_field(cohort.patch.um)
    _warn_if_coarse(section, stored.px * cohort.patch.um / stored.um, cohort)


def _warn_if_coarse(section: RawSection, side: float, cohort: CohortConfig) -> None:
    if side < cohort.patch.px / 8:
        warnings.warn(
            facts(
                f"section {section.name}",
                found=f"{side:.0f} pixels in {cohort.patch.um:g} micrometres",
                expected=f"about {cohort.patch.px}, the side of a patch",
                fix="use a smaller patch.px, or an image of higher resolution",
            ),
            Seq2ExpWarning,
            stacklevel=4,
        )


def _require_known_genes(section: RawSection, table: GeneTable) -> None:
    """Refuse a section of which the gene table knows nothing; say so where it knows little.

    Raises
    ------
    InputError
        No gene got an id.
    """
    if not table.ids:
        return
    found = table.describe(section.genes, section.gene_ids)["gene_id"]
    unknown = [symbol for symbol, gene in found.items() if symbol == gene]
    share = 1 - len(unknown) / max(len(section.genes), 1)
    if share >= 0.5:
        return
    message = facts(
        f"section {section.name}",
        found=f"{len(unknown)} of {len(section.genes)} genes without an id in the GTF",
        expected="names of the genes of the GTF, old ones through the table of synonyms",
        fix="give the GTF of this species, or a table of synonyms",
        count=len(unknown),
        examples=[str(name) for name in unknown[:3]],
    )
    if share == 0:
        raise InputError(message)
    warnings.warn(message, Seq2ExpWarning, stacklevel=3)


def _require_shared_genes(sections: list[RawSection], table: GeneTable) -> bool:
    """Refuse sections that know no gene in common; return whether genes have ids.

    Raises
    ------
    InputError
        As when one section has Ensembl ids and another only symbols.
    """
    ids = {
        one.name: set(table.describe(one.genes, one.gene_ids)["gene_id"])
        for one in sections
        if one.genes
    }
    for (first, known), (name, found) in itertools.pairwise(ids.items()):
        if known.isdisjoint(found):
            raise InputError(
                facts(
                    f"sections {first} and {name}",
                    found=f"no gene in common: {min(known)} and {min(found)}",
                    expected="genes known by the same names",
                    fix="give genes.gtf, so that symbols get Ensembl ids",
                    count=0,
                )
            )
    own = [one for one in sections if one.genes and any(one.gene_ids)]
    return bool(table.ids) or bool(own)


def _write_section(
    one: _Checked, image: AnyImage | None, config: CohortConfig, table: GeneTable, folder: Path
) -> SectionInfo:
    section, px = one.section, config.patch.px
    patches = np.lib.format.open_memmap(
        layout.patches_path(folder, section.name),
        mode="w+",
        dtype=np.uint8,
        shape=(len(section.x), px, px, 3),
    )
    for spot, pixels in enumerate(_cut(one, image, config)):
        patches[spot] = pixels
    patches.flush()
    del patches
    place = "" if section.image is None else str(section.image.absolute())
    if section.image is not None and config.images == "copy":
        place = f"images/{safe_name(section.name)}{section.image.suffix}"
        shutil.copyfile(section.image, folder / place)
    pixels_file = section.image or (section.patches and section.patches.path)
    pitch = section.spot_pitch_um or estimate_pitch(section) * one.um_per_px
    info = SectionInfo(
        section.name,
        section.patient,
        num_spots=len(section.x),
        num_genes=len(section.genes),
        um_per_px=one.um_per_px,
        image=place,
        width=one.size[0],
        height=one.size[1],
        image_sha256=sha256(Path(pixels_file or "")),
        spot_pitch_um=float(pitch) if np.isfinite(pitch) else 0.0,
        spot_diameter_um=float(section.spot_diameter_um or 0),
        grid=section.grid,
        left_out=one.left_out,
        notes=one.notes,
        by_region=one.by_region,
    )
    _write_table(section, info, table, layout.section_path(folder, section.name))
    return info


def _cut(
    one: _Checked, image: AnyImage | None, config: CohortConfig
) -> Iterator[NDArray[np.uint8]]:
    """Yield the patches of a section, from its image or those that were stored."""
    section, patch = one.section, config.patch
    if image is not None:
        side = patch.um / one.um_per_px
        for x, y in zip(section.x, section.y, strict=True):
            yield image.patch(x, y, side=side, px=patch.px)
    elif section.patches is not None:
        yield from section.patches.cut(um=patch.um, px=patch.px)


def _write_table(section: RawSection, info: SectionInfo, table: GeneTable, path: Path) -> None:
    import anndata

    total = np.asarray(section.counts.sum(axis=1)).ravel()
    obs = pd.DataFrame(
        {
            "section": section.name,
            "patient": section.patient,
            "array_row": section.array_row,
            "array_col": section.array_col,
            "total_counts": total.astype(np.int64),
        }
    )
    for column in section.labels:
        obs[str(column)] = section.labels[column].to_numpy()
    obs.index = pd.Index(
        [
            f"{section.name}_{column}x{row}"
            for row, column in zip(section.array_row, section.array_col, strict=True)
        ]
    )
    var = table.describe(section.genes, section.gene_ids)
    data = anndata.AnnData(X=section.counts, obs=obs, var=var)
    data.obsm["spatial"] = np.column_stack([section.x, section.y])
    data.uns["image"] = {
        "file": info.image,
        "width": info.width,
        "height": info.height,
        "um_per_px": info.um_per_px,
        "grid": info.grid,
    }
    for name, um in (("pitch", info.spot_pitch_um), ("diameter", info.spot_diameter_um)):
        if um:
            data.uns["image"][f"spot_{name}_px"] = um / info.um_per_px
    data.write_h5ad(path, compression="gzip")
