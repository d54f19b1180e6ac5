"""A cohort of tissue sections whose gene programmes are known, written as ordinary files.

Spot b of a section has programmes u_b, which vary smoothly over the array and which the picture
shows (:mod:`data_prep.simulate.tissue`). Gene g has weights w_g on them:

    y[b, g] = u_b A w_g + mean_g + offset[section, g] + noise
    counts[b, g] ~ Poisson(depth_b exp(y[b, g]) / sum over genes of exp(y[b, .]))
    w_g = sqrt(rho) z_g + sqrt(1 - rho) e_g

z is the prior that a study may use, e is independent of it and of the same variance, so rho is the
share of a gene's weights that follows from its prior.

Shapes: G genes, Z dimensions of the prior, U programmes, N spots of a section.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from data_prep.histology.config import CohortConfig, PatchConfig, SectionConfig
from data_prep.simulate.tissue import NUM_PROGRAMMES, SmoothField, every_fourth, paint
from seq2exp.core.config import dump_yaml
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import atomic_directory, refuse_existing, write_json
from seq2exp.core.progress import track

__all__ = ["SpatialSimulation", "SpatialSimulationConfig", "simulate_cohort"]

Floats = NDArray[np.float64]
_STREAMS = ("genes", "patients", "sections", "counts", "pictures")
_PITCH_UM = 200.0
_MARGIN = 3


@dataclass(frozen=True, kw_only=True)
class SpatialSimulationConfig:
    """Sizes and dials of a simulated cohort."""

    seed: int = 0
    """Seed of every random draw."""
    num_patients: int = 2
    """Patients."""
    sections_per_patient: int = 2
    """Sections of each; those of a patient look alike."""
    num_spots: int = 100
    """Spots of a section, on a nearly square array."""
    num_genes: int = 60
    """Genes; with a prior of your own, as many as it has."""
    prior_dim: int = 8
    """Dimensions of the prior."""
    prior_share: float = 0.5
    """rho: share of the genes' weights that follows from the prior, 0 to 1."""
    signal: float = 0.6
    """SD over spots of log expression that programmes cause, root mean square over genes."""
    noise: float = 0.2
    """SD of log expression that nothing causes."""
    batch_effect: float = 0.2
    """SD over sections of each gene's log expression; a half of it tints the densities."""
    depth_effect: float = 0.4
    """SD over spots of log sequencing depth."""
    depth: float = 5000.0
    """Median counts of a spot."""
    smoothness: float = 2.5
    """Spots over which programmes change sign at most."""
    patch_px: int = 32
    """Side of a patch; the pitch of the spots is a quarter more."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        sizes = ("num_patients", "sections_per_patient", "num_genes", "prior_dim")
        dials = ("noise", "batch_effect", "depth_effect")
        checks = {
            **{name: (getattr(self, name) >= 1, "1 or more") for name in sizes},
            **{name: (getattr(self, name) >= 0, "0 or more") for name in dials},
            "num_spots": (self.num_spots >= 4, "4 or more"),
            "prior_share": (0 <= self.prior_share <= 1, "between 0 and 1"),
            "signal": (self.signal > 0, "above 0"),
            "depth": (self.depth > 0, "above 0"),
            "smoothness": (self.smoothness > 0, "above 0"),
            "patch_px": (self.patch_px >= 8, "8 or more"),
            "prior_dim": (self.prior_dim >= NUM_PROGRAMMES, f"{NUM_PROGRAMMES} or more"),
        }
        for name, (fine, expected) in checks.items():
            if not fine:
                raise ConfigError(
                    facts(
                        f"simulation setting {name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix=f"change {name}",
                    )
                )

    @property
    def pitch_px(self) -> int:
        """Distance of neighbouring spots in pixels."""
        return round(1.25 * self.patch_px)

    @property
    def columns(self) -> int:
        """Columns of the array."""
        return int(np.ceil(np.sqrt(self.num_spots)))


@dataclass(frozen=True, eq=False)
class SpatialSimulation:
    """What was written, and the truth.

    Attributes
    ----------
    out : Path
        The folder: the source of ``prepare_cohort``.
    cohort : CohortConfig
        How to prepare it; also written as cohort.yaml.
    gene_id : list of str
    z_GZ, w_GZ : float64 arrays, shape (genes, dimensions)
        Prior and weights.
    mixing_UZ : float64 array, shape (programmes, dimensions)
        A; effects of the programmes on genes are ``w_GZ @ mixing_UZ.T``.
    mean_G : float64 array, shape (genes,)
    programmes : dict of str to float64 array, shape (spots, programmes)
        u by section, rows by array row and column.
    expression : dict of str to float64 array, shape (spots, genes)
        y with noise.
    """

    out: Path
    cohort: CohortConfig
    gene_id: list[str]
    z_GZ: Floats
    w_GZ: Floats
    mixing_UZ: Floats
    mean_G: Floats
    programmes: dict[str, Floats]
    expression: dict[str, Floats]


@dataclass(frozen=True, eq=False)
class _Genes:
    gene_id: list[str]
    symbol: list[str]
    z_GZ: Floats
    w_GZ: Floats
    mixing_UZ: Floats
    mean_G: Floats


@dataclass(frozen=True, eq=False)
class _Section:
    name: str
    patient: str
    field: tuple[SmoothField, SmoothField]


def simulate_cohort(
    config: SpatialSimulationConfig,
    out: Path,
    *,
    prior: pd.DataFrame | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> SpatialSimulation:
    """Write sections, a configuration that prepares them, and the truth.

    Parameters
    ----------
    config : SpatialSimulationConfig
    out : Path
        Folder to make. It appears only when everything is written.
    prior : DataFrame, optional
        z of genes you bring, such as embeddings of simulated ones: index = gene_id, one column
        per dimension. Columns are standardised.
    progress : bool
        Report each section.
    overwrite : bool
        Replace an existing folder.

    Raises
    ------
    InputError
        ``out`` exists, or the prior repeats genes or has values that are no number.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    genes = _draw_genes(config, prior)
    sections = _draw_sections(config)
    shift_U, width_U = _scale(sections, config)
    programmes, expression = {}, {}
    with atomic_directory(out, overwrite=overwrite) as folder:
        for name in ("sections", "images", "truth"):
            (folder / name).mkdir()
        labelled = list(enumerate(sections))
        spots = []
        for number, section in track(
            labelled, total=len(labelled), label="simulate sections", enabled=progress
        ):
            row, column = _places(config)
            u_NU = (_field(section, row, column) - shift_U) / width_U
            y_NG, depth_N = _express(u_NU, genes, number, config)
            _write_counts(section, y_NG, depth_N, genes, number, config, folder)
            _write_picture(section, (shift_U, width_U), number, config, folder)
            programmes[section.name], expression[section.name] = u_NU, y_NG
            frame = pd.DataFrame(u_NU, columns=[f"u{i + 1}" for i in range(NUM_PROGRAMMES)])
            frame.insert(0, "depth", depth_N)
            frame.insert(0, "array_col", column.astype(int))
            frame.insert(0, "array_row", row.astype(int))
            frame.insert(0, "section", section.name)
            spots.append(frame)
        cohort = _cohort_config(sections, config)
        dump_yaml(cohort, folder / "cohort.yaml")
        _write_truth(genes, pd.concat(spots), config, folder / "truth")
        (folder / "README.md").write_text(_readme(config, len(genes.gene_id)))
    return SpatialSimulation(
        out, cohort, genes.gene_id, genes.z_GZ, genes.w_GZ, genes.mixing_UZ, genes.mean_G,
        programmes, expression,
    )  # fmt: skip


def _stream(config: SpatialSimulationConfig, name: str, number: int = 0) -> np.random.Generator:
    return np.random.default_rng([config.seed, _STREAMS.index(name), number])


def _draw_genes(config: SpatialSimulationConfig, prior: pd.DataFrame | None) -> _Genes:
    random = _stream(config, "genes")
    if prior is None:
        ids = [f"SIMG{number + 1:08d}" for number in range(config.num_genes)]
        symbols = [f"SG{number + 1}" for number in range(config.num_genes)]
        z_GZ = random.normal(size=(config.num_genes, config.prior_dim))
    else:
        ids = symbols = [str(gene) for gene in prior.index]
        z_GZ = _standard(prior)
    rho, num_dims = config.prior_share, z_GZ.shape[1]
    e_GZ = random.normal(size=z_GZ.shape)
    w_GZ = np.sqrt(rho) * z_GZ + np.sqrt(1 - rho) * e_GZ
    basis, _ = np.linalg.qr(random.normal(size=(num_dims, NUM_PROGRAMMES)))
    mixing_UZ = config.signal / np.sqrt(NUM_PROGRAMMES) * basis.T
    return _Genes(ids, symbols, z_GZ, w_GZ, mixing_UZ, random.normal(size=len(ids)))


def _standard(prior: pd.DataFrame) -> Floats:
    z_GZ = prior.to_numpy(np.float64)
    repeated = int(prior.index.duplicated().sum())
    spread = z_GZ.std(axis=0)
    if repeated or not np.isfinite(z_GZ).all() or not (spread > 0).all():
        raise InputError(
            facts(
                "prior of the simulated genes",
                found=f"{repeated} genes listed twice, or values that are constant or no number",
                expected="one row per gene, finite columns that vary",
                fix="drop what does not",
            )
        )
    if z_GZ.shape[1] < NUM_PROGRAMMES:
        raise InputError(
            facts(
                "prior of the simulated genes",
                found=f"{z_GZ.shape[1]} columns",
                expected=f"{NUM_PROGRAMMES} or more",
                fix="give more dimensions",
            )
        )
    standard: Floats = (z_GZ - z_GZ.mean(axis=0)) / spread
    return standard


def _draw_sections(config: SpatialSimulationConfig) -> list[_Section]:
    found = []
    for patient in range(config.num_patients):
        shared = SmoothField.draw(config.smoothness, _stream(config, "patients", patient))
        for copy in range(config.sections_per_patient):
            number = patient * config.sections_per_patient + copy
            own = SmoothField.draw(config.smoothness, _stream(config, "sections", number))
            found.append(_Section(f"P{patient + 1}_{copy + 1}", f"P{patient + 1}", (shared, own)))
    return found


def _places(config: SpatialSimulationConfig) -> tuple[Floats, Floats]:
    place = np.arange(config.num_spots)
    row, column = np.divmod(place, config.columns)
    return row.astype(np.float64), column.astype(np.float64)


def _field(section: _Section, row: Floats, column: Floats) -> Floats:
    """Return programmes before scaling: half of the variance is the patient's."""
    shared, own = section.field
    return np.asarray(np.sqrt(0.5) * (shared(row, column) + own(row, column)))


def _scale(sections: list[_Section], config: SpatialSimulationConfig) -> tuple[Floats, Floats]:
    """Return mean and deviation of each programme over all spots."""
    all_spots = np.concatenate([_field(section, *_places(config)) for section in sections])
    return all_spots.mean(axis=0), all_spots.std(axis=0)


def _express(
    u_NU: Floats, genes: _Genes, number: int, config: SpatialSimulationConfig
) -> tuple[Floats, Floats]:
    random = _stream(config, "sections", 1000 + number)
    offset_G = random.normal(0, config.batch_effect, len(genes.gene_id))
    y_NG = u_NU @ genes.mixing_UZ @ genes.w_GZ.T + genes.mean_G + offset_G
    y_NG = y_NG + random.normal(0, config.noise, y_NG.shape)
    depth_N = config.depth * np.exp(random.normal(0, config.depth_effect, len(u_NU)))
    return y_NG, depth_N


def _write_counts(
    section: _Section,
    y_NG: Floats,
    depth_N: Floats,
    genes: _Genes,
    number: int,
    config: SpatialSimulationConfig,
    folder: Path,
) -> None:
    import anndata

    share_NG = np.exp(y_NG - y_NG.max(axis=1, keepdims=True))
    share_NG /= share_NG.sum(axis=1, keepdims=True)
    counts = _stream(config, "counts", number).poisson(share_NG * depth_N[:, None])
    row, column = _places(config)
    obs = pd.DataFrame(
        {
            "section": section.name,
            "patient": section.patient,
            "array_row": row.astype(np.int64),
            "array_col": column.astype(np.int64),
        },
        index=[f"{section.name}_{int(x)}x{int(y)}" for y, x in zip(row, column, strict=True)],
    )
    var = pd.DataFrame({"gene_id": genes.gene_id}, index=genes.symbol)
    data = anndata.AnnData(X=sparse.csr_matrix(counts.astype(np.int32)), obs=obs, var=var)
    data.obsm["spatial"] = np.column_stack([_pixel(column, config), _pixel(row, config)])
    height, width = _shape(config)
    data.uns["image"] = {
        "file": f"../images/{section.name}.png",
        "width": width,
        "height": height,
        "um_per_px": _PITCH_UM / config.pitch_px,
        "spot_pitch_px": float(config.pitch_px),
        "spot_diameter_px": config.pitch_px / 2,
        "grid": "square",
    }
    data.write_h5ad(folder / "sections" / f"{section.name}.h5ad", compression="gzip")


def _pixel(place: Floats, config: SpatialSimulationConfig) -> Floats:
    return (place + _MARGIN + 0.5) * config.pitch_px


def _shape(config: SpatialSimulationConfig) -> tuple[int, int]:
    rows = -(-config.num_spots // config.columns)
    height, width = ((size + 2 * _MARGIN) * config.pitch_px for size in (rows, config.columns))
    return height, width


def _write_picture(
    section: _Section,
    scale: tuple[Floats, Floats],
    number: int,
    config: SpatialSimulationConfig,
    folder: Path,
) -> None:
    random = _stream(config, "pictures", number)
    shape, pitch, edge = _shape(config), config.pitch_px, _MARGIN * config.pitch_px
    row, column = (every_fourth(length) / pitch - _MARGIN - 0.5 for length in shape)
    u_HWU = (_field(section, *np.meshgrid(row, column, indexing="ij")) - scale[0]) / scale[1]
    inside = np.zeros(shape, dtype=np.bool_)
    inside[edge:-edge, edge:-edge] = True
    tint_3 = np.exp(random.normal(0, config.batch_effect / 2, 3))
    picture = paint(u_HWU, inside, grain_px=config.patch_px / 40, tint_3=tint_3, random=random)
    Image.fromarray(picture).save(folder / "images" / f"{section.name}.png")


def _cohort_config(sections: list[_Section], config: SpatialSimulationConfig) -> CohortConfig:
    return CohortConfig(
        "simulated",
        [
            SectionConfig(section.name, section.patient, "h5ad", f"sections/{section.name}.h5ad")
            for section in sections
        ],
        PatchConfig(um=config.patch_px * _PITCH_UM / config.pitch_px, px=config.patch_px),
        spot_pitch_um=_PITCH_UM,
        spot_diameter_um=_PITCH_UM / 2,
    )


def _write_truth(
    genes: _Genes, spots: pd.DataFrame, config: SpatialSimulationConfig, folder: Path
) -> None:
    effects_GU = genes.w_GZ @ genes.mixing_UZ.T
    table = pd.DataFrame({"gene_id": genes.gene_id, "symbol": genes.symbol, "mean": genes.mean_G})
    for number in range(NUM_PROGRAMMES):
        table[f"effect_u{number + 1}"] = effects_GU[:, number]
    tables = {"genes": table, "spots": spots}
    for name, values_GZ in (("z", genes.z_GZ), ("w", genes.w_GZ)):
        names = [f"{name}{number + 1}" for number in range(values_GZ.shape[1])]
        tables[name] = pd.DataFrame(values_GZ, columns=names)
        tables[name].insert(0, "gene_id", genes.gene_id)
    tables["mixing"] = pd.DataFrame(
        genes.mixing_UZ, columns=[f"z{number + 1}" for number in range(genes.z_GZ.shape[1])]
    )
    for name, frame in tables.items():
        frame.to_csv(folder / f"{name}.tsv", sep="\t", index=False, float_format="%.8g")
    write_json(dataclasses.asdict(config), folder / "config.json")


def _readme(config: SpatialSimulationConfig, num_genes: int) -> str:
    num_sections = config.num_patients * config.sections_per_patient
    return f"""# Simulated tissue with known gene programmes

Seed {config.seed}; {num_sections} sections of {config.num_patients} patients, {config.num_spots}
spots each; {num_genes} genes; prior share {config.prior_share:g}. Everything here is synthetic; the
model is in data_prep/simulate/spatial.py of seq2exp.

| file | content |
|---|---|
| sections/*.h5ad | raw counts and pixels of the spots |
| images/*.png | pictures of the sections |
| cohort.yaml | configuration for `seq2exp spatial prepare`, with this folder as the source |

## truth/
| file | content |
|---|---|
| genes.tsv | mean of log expression and effect of each programme |
| spots.tsv | programmes u and sequencing depth of every spot |
| z.tsv, w.tsv | prior and weights of every gene; w = sqrt(rho) z + sqrt(1 - rho) e |
| mixing.tsv | A: effects of programmes on a gene are A w |
| config.json | settings |
"""
