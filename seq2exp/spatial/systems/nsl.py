"""Neural stain learning: a gene from the colour of a spot, eleven weights per gene.

After Dawood, Branson, Rajpoot and Minhas, "All You Need is Color", ECML PKDD 2021 workshops (arXiv
2108.10446). **This is a reconstruction.** The paper's abstract says that the model is stain-aware,
learns a stain deconvolution matrix end to end and has 11 trainable weights; no code was found and
the method section was not available, so how the eleven split into stains and read-out is not known.
Certain are the optics (:mod:`seq2exp.spatial.optics`). Everything else here is ours: the four
splits below, the bend phi between stains and mean, the sample of pixels, the mask of glass, the
starting values and the loss.

========== ========================== ========================================= ======
variant    stains                     read-out                                  11 =
========== ========================== ========================================= ======
deconv3x3  S 3x3, inverted            2 weights on mean H and E, no bias        9 + 2
conv1x1    W 3x2 and 2 shifts         2 weights and a bias                      8 + 3
meanstd    W 3x2                      mean and deviation of 2 stains, a bias    6 + 5
scalar     S 3x3, inverted            1 weight on their sum, a bias             9 + 2
========== ========================== ========================================= ======

With phi = identity all but ``meanstd`` are a linear function of the mean density, with 4 degrees of
freedom: the learnt matrix then means nothing. So :class:`MeanDensityRidge`, which has these four
and no more, must stand beside every result.

Shapes: B spots, P pixels, G genes, Q stains of a gene (2 or 3), K = G Q.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.stain import STAINS
from seq2exp.spatial.batch import SpotBatch, SystemInfo, require_fields
from seq2exp.spatial.losses import mse_per_gene, pearson
from seq2exp.spatial.optics import OpticalPixels, foreground
from seq2exp.spatial.systems.pixel_pool import Phi, pooled_moments

__all__ = ["MeanDensityRidge", "Nsl", "NslConfig", "center_per_section"]

Variant = Literal["deconv3x3", "conv1x1", "meanstd", "scalar"]
_FLOOR = 1e-8


@dataclass(frozen=True)
class NslConfig:
    """What the eleven weights are, and which pixels they see."""

    variant: Variant = "conv1x1"
    """How the eleven weights are split (see the module)."""
    phi: Phi = "softplus"
    """What bends a concentration before the mean: softplus, relu or identity."""
    beta: float = 4.0
    """Sharpness of softplus: softplus(beta x) / beta."""
    source: Literal["img", "tokens"] = "img"
    """Where pixels come from: the patch, or cached densities (:class:`OpticalPixels`)."""
    num_pixels: int = 1024
    """Pixels of a patch, for img."""
    pool_px: int = 64
    """Side that patches are averaged to before, for img."""
    pixel_seed: int = 0
    """Seed of the choice of pixels, for img."""
    pixels_per_step: int = 256
    """Tissue pixels drawn anew in each training step; 0 takes all. Predictions take all."""
    min_density: float = 0.15
    """Pixels of a lower mean density are glass and left out; 0 keeps all."""
    min_pixels: int = 16
    """Spots with fewer tissue pixels keep all of theirs and are flagged."""
    anchor: float = 1.0e-3
    """Weight of the squared distance of the stains from where they started."""
    pearson_weight: float = 0.0
    """Weight of 1 - r across the spots of a batch beside the squared error."""
    center_per_slide: bool = False
    """Give the mean prediction of every gene the same value in all sections (:meth:`Nsl.finish`);
    takes away the drift of the stain, and needs all spots of a section."""
    gene_chunk: int = 8
    """Genes worked on at a time; few stay in the cache of the processor."""
    seed: int = 0
    """Seed of the first read-out weights."""

    def __post_init__(self) -> None:
        checks: Mapping[str, tuple[bool, str]] = {
            "variant": (self.variant in get_args(Variant), ", ".join(get_args(Variant))),
            "phi": (self.phi in get_args(Phi), ", ".join(get_args(Phi))),
            "beta": (self.beta > 0, "above 0"),
            "source": (self.source in ("img", "tokens"), "img or tokens"),
            "pixels_per_step": (self.pixels_per_step >= 0, "0 or more"),
            "min_pixels": (self.min_pixels >= 1, "1 or more"),
            "anchor": (self.anchor >= 0, "0 or more"),
            "pearson_weight": (self.pearson_weight >= 0, "0 or more"),
            "gene_chunk": (self.gene_chunk >= 1, "1 or more"),
        }
        for name, (fine, expected) in checks.items():
            if not fine:
                raise ConfigError(
                    facts(
                        f"nsl.{name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix="change it",
                    )
                )


class _Pixels(nn.Module):
    """Densities of a batch, from patches or from the cache."""

    def __init__(self, config: NslConfig, info: SystemInfo) -> None:
        super().__init__()
        self.config = config
        if config.source == "tokens" and info.token_dim != 3:
            raise ConfigError(
                facts(
                    "nsl.source tokens",
                    found=f"tokens of width {info.token_dim}",
                    expected="densities of pixels, of width 3",
                    fix="choose the encoder of pixel densities, or source: img",
                )
            )
        self.optics = OpticalPixels(
            num_pixels=config.num_pixels, side=config.pool_px, seed=config.pixel_seed
        )

    def forward(self, batch: SpotBatch) -> Tensor:
        """Return densities, shape (B, P, 3)."""
        require_fields(frozenset({self.config.source}), batch, system="nsl")
        if self.config.source == "tokens":
            return cast("Tensor", batch.tokens).float()
        return self.optics.tokens(cast("Tensor", batch.img))

    def kept(self, density_BP3: Tensor) -> tuple[Tensor, Tensor]:
        """Return tissue pixels and flagged spots."""
        return foreground(
            density_BP3, threshold=self.config.min_density, min_pixels=self.config.min_pixels
        )

    def shares(self, density_BP3: Tensor) -> Tensor:
        """Return the weight of each pixel in its spot's mean, shape (B, P)."""
        kept_BP = self.kept(density_BP3)[0].to(density_BP3.dtype)
        return kept_BP / kept_BP.sum(dim=1, keepdim=True)


class Nsl(nn.Module):
    """Genes from colour; every gene has eleven weights of its own.

    Genes do not influence each other: all start from the same read-out, and the loss is a mean over
    genes of what each would have alone.

    Parameters
    ----------
    config : NslConfig
    info : SystemInfo
    """

    label_mean: Tensor
    label_sd: Tensor
    start: Tensor

    def __init__(self, config: NslConfig, info: SystemInfo) -> None:
        super().__init__()
        self.config = config
        self.requires = frozenset({config.source})
        self.pixels = _Pixels(config, info)
        genes = info.num_genes
        self.inverted = config.variant in ("deconv3x3", "scalar")
        stains_33 = torch.tensor(STAINS)
        start = stains_33 if self.inverted else torch.linalg.inv(stains_33)[:, :2]
        self.register_buffer("start", start.contiguous(), persistent=False)
        self.stain = nn.Parameter(start.repeat(genes, 1, 1))
        shifted = config.variant == "conv1x1"
        self.shift = nn.Parameter(torch.zeros(genes, 2)) if shifted else None
        reads = {"meanstd": 4, "scalar": 1}.get(config.variant, 2)
        random = torch.Generator().manual_seed(config.seed)
        first = 0.1 * torch.randn(reads, generator=random)
        self.read = nn.Parameter(first.repeat(genes, 1))
        biased = config.variant != "deconv3x3"
        self.level = nn.Parameter(torch.zeros(genes)) if biased else None
        self.register_buffer("label_mean", torch.zeros(genes))
        self.register_buffer("label_sd", torch.ones(genes))
        self.control = MeanDensityRidge(config, info)

    @property
    def parameters_per_gene(self) -> int:
        """Trainable weights of one gene."""
        return sum(weight.numel() for weight in self.parameters()) // len(self.read)

    @torch.no_grad()
    def fit_labels(self, y_NG: Tensor) -> None:
        """Take mean and deviation of each gene from the training labels, before training.

        Parameters
        ----------
        y_NG : float tensor, shape (spots, genes)
            NaN where a gene was not measured.
        """
        known = y_NG.isfinite()
        count = known.sum(dim=0).clamp(min=1)
        mean = y_NG.nan_to_num().sum(dim=0) / count
        spread = torch.where(known, y_NG - mean, 0.0).square().sum(dim=0) / count
        self.label_mean.copy_(mean)
        # A constant gene has nothing to scale by.
        self.label_sd.copy_(torch.where(spread > _FLOOR, spread, 1.0).sqrt())

    def fit_control(self, batches: Iterable[SpotBatch]) -> None:
        """Fit the control on the training spots, given with their pixels."""
        parts = [(self.control.mean_density(batch), cast("Tensor", batch.y)) for batch in batches]
        density, labels = (torch.cat(side) for side in zip(*parts, strict=True))
        self.control.fit(density, labels)

    def deconvolution(self) -> Tensor:
        """Return what turns densities into concentrations, shape (G, 3, Q)."""
        if not self.inverted:
            return self.stain
        inverse: Tensor = torch.linalg.inv(self.stain)
        return inverse if self.config.variant == "scalar" else inverse[..., :2]

    def weights(self) -> Tensor:
        """Return deconvolution and shifts as columns, gene by gene, shape (4, K)."""
        turn_G3Q = self.deconvolution()
        shift = turn_G3Q.new_zeros(len(turn_G3Q), turn_G3Q.shape[-1])
        shift_GQ = shift if self.shift is None else self.shift
        return torch.cat([turn_G3Q, shift_GQ[:, None]], dim=1).permute(1, 0, 2).flatten(1)

    def scores(self, density_BP3: Tensor, share_BP: Tensor) -> Tensor:
        """Return standardised predictions, shape (B, G).

        Parameters
        ----------
        density_BP3 : float tensor, shape (spots, pixels, 3)
        share_BP : float tensor, shape (spots, pixels)
            Weight of each pixel; a spot's sum to 1.
        """
        weight_4K = self.weights()
        stains = weight_4K.shape[1] // len(self.read)
        moments_MBK = pooled_moments(
            density_BP3,
            share_BP,
            weight_4K,
            phi=self.config.phi,
            beta=self.config.beta,
            num_moments=2 if self.config.variant == "meanstd" else 1,
            chunk=self.config.gene_chunk * stains,
        )
        moments = moments_MBK.view(*moments_MBK.shape[:2], -1, stains)
        mean_BGQ = moments[0]
        if self.config.variant == "meanstd":
            variance = (moments[1] - mean_BGQ.square()).clamp(min=_FLOOR)
            read_BG = (torch.cat([mean_BGQ, variance.sqrt()], dim=-1) * self.read).sum(dim=-1)
        else:
            # One weight of `scalar` serves all three stains.
            read_BG = (mean_BGQ * self.read).sum(dim=-1)
        return read_BG if self.level is None else read_BG + self.level

    def loss(self, batch: SpotBatch, step: int) -> dict[str, Tensor]:
        """Return the squared error of standardised labels, the mean over genes, and the anchor.

        Parameters
        ----------
        batch : SpotBatch
        step : int
            With the seed, decides which pixels are drawn.
        """
        require_fields(frozenset({"y"}), batch, system="nsl")
        density_BP3 = self.pixels(batch)
        share_BP = self.pixels.shares(density_BP3)
        count = self.config.pixels_per_step
        if self.training and 0 < count < density_BP3.shape[1]:
            density_BP3, share_BP = _drawn(density_BP3, share_BP, count, (self.config.seed, step))
        label_BG = (cast("Tensor", batch.y) - self.label_mean) / self.label_sd
        found_BG = self.scores(density_BP3, share_BP)
        away = (self.stain - self.start).square().sum(dim=(1, 2)).mean()
        parts = {"mse": mse_per_gene(found_BG, label_BG).mean(), "anchor": away}
        total = parts["mse"] + self.config.anchor * away
        if self.config.pearson_weight > 0:
            parts["pearson"] = pearson(found_BG, label_BG)
            total = total + self.config.pearson_weight * parts["pearson"]
        return {"total": total, **parts}

    def predict(self, batch: SpotBatch) -> Tensor:
        """Return predicted labels, shape (B, G); :meth:`finish` completes whole sections."""
        density_BP3 = self.pixels(batch)
        scores_BG = self.scores(density_BP3, self.pixels.shares(density_BP3))
        return scores_BG * self.label_sd + self.label_mean

    def flagged(self, batch: SpotBatch) -> Tensor:
        """Return which spots have too little tissue for the mask, shape (B,)."""
        out: Tensor = self.pixels.kept(self.pixels(batch))[1]
        return out

    def finish(self, predicted_NG: Tensor, section_N: Tensor) -> Tensor:
        """Return predictions of whole sections as the configuration wants them.

        Parameters
        ----------
        predicted_NG : float tensor, shape (spots, genes)
            From :meth:`predict`, all spots of the sections.
        section_N : int64 tensor, shape (spots,)
        """
        if not self.config.center_per_slide:
            return predicted_NG
        return center_per_section(predicted_NG, section_N) + self.label_mean.to(predicted_NG)


def center_per_section(predicted_NG: Tensor, section_N: Tensor) -> Tensor:
    """Subtract the mean prediction of each section.

    Parameters
    ----------
    predicted_NG : float tensor, shape (spots, genes)
    section_N : int64 tensor, shape (spots,)
    """
    out_NG = predicted_NG.clone()
    for section in set(section_N.tolist()):
        rows = section_N == section
        out_NG[rows] -= predicted_NG[rows].mean(dim=0)
    return out_NG


def _drawn(
    density_BP3: Tensor, share_BP: Tensor, count: int, seed: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Draw pixels of each spot by their weights, with replacement."""
    random = torch.Generator().manual_seed((seed[0] << 32) + seed[1])
    place_BC = torch.multinomial(share_BP.cpu(), count, replacement=True, generator=random)
    place_BC = place_BC.to(density_BP3.device)
    drawn_BC3 = density_BP3.gather(1, place_BC[..., None].expand(-1, -1, 3))
    return drawn_BC3, torch.full_like(drawn_BC3[..., 0], 1 / count)


class MeanDensityRidge(nn.Module):
    """The control of :class:`Nsl`: four numbers per gene on the mean density of tissue pixels.

    Least squares with a penalty on the three slopes, fitted in one step.

    Parameters
    ----------
    config : NslConfig
        Which pixels.
    info : SystemInfo
    """

    slope: Tensor
    level: Tensor

    def __init__(self, config: NslConfig, info: SystemInfo) -> None:
        super().__init__()
        self.requires = frozenset({config.source})
        self.pixels = _Pixels(config, info)
        self.register_buffer("slope", torch.zeros(3, info.num_genes))
        self.register_buffer("level", torch.zeros(info.num_genes))

    def mean_density(self, batch: SpotBatch) -> Tensor:
        """Return the mean density of the tissue pixels, shape (B, 3)."""
        density_BP3 = self.pixels(batch)
        return torch.einsum("bp,bpc->bc", self.pixels.shares(density_BP3), density_BP3)

    @torch.no_grad()
    def fit(self, density_N3: Tensor, y_NG: Tensor, *, alpha: float = 1e-3) -> None:
        """Fit all genes.

        Parameters
        ----------
        density_N3 : float tensor, shape (spots, 3)
            From :meth:`mean_density`.
        y_NG : float tensor, shape (spots, genes)
            Labels; NaN is left out.
        alpha : float
            Penalty, in units of spots.
        """
        known_NG = y_NG.isfinite().double()
        x_N3, y = density_N3.double(), y_NG.nan_to_num().double()
        count_G = known_NG.sum(dim=0).clamp(min=1)
        mean_G3 = known_NG.T @ x_N3 / count_G[:, None]
        level_G = (known_NG * y).sum(dim=0) / count_G
        centred_GN3 = (x_N3 - mean_G3[:, None]) * known_NG.T[..., None]
        power_G33 = torch.einsum("gni,gnj->gij", centred_GN3, centred_GN3)
        power_G33 = power_G33 + alpha * torch.eye(3, dtype=torch.float64, device=y.device)
        cross_G3 = torch.einsum("gni,ng->gi", centred_GN3, y)
        slope_G3 = torch.linalg.solve(power_G33, cross_G3)
        self.slope.copy_(slope_G3.T)
        self.level.copy_(level_G - (slope_G3 * mean_G3).sum(dim=1))

    def predict(self, batch: SpotBatch) -> Tensor:
        """Return predicted labels, shape (B, G)."""
        out: Tensor = self.mean_density(batch) @ self.slope + self.level
        return out
