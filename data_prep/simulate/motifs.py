"""The transcription factors of the simulation: consensus, position weight matrix, role, levels.

Consensus sequences are textbook facts of well-known families. Matrices are built from them by one
rule (no matrix of a database is copied): an upper-case letter takes ``STRONG`` of its column, a
lower-case one ``WEAK``; an ambiguity code shares that mass equally among its bases; ``n`` is
uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BACKGROUND",
    "CELL_TYPES",
    "MOTIFS",
    "MOTIF_INDEX",
    "PRIMARY",
    "STRONG",
    "TF_LEVELS",
    "WEAK",
    "Motif",
    "meme_text",
]

BACKGROUND = 0.25
STRONG = 0.91
WEAK = 0.70
_N_SCORE = -20.0
_CODES = {
    "A": "A",
    "C": "C",
    "G": "G",
    "T": "T",
    "R": "AG",
    "Y": "CT",
    "S": "CG",
    "W": "AT",
    "K": "GT",
    "M": "AC",
    "N": "ACGT",
}


@dataclass(frozen=True)
class Motif:
    """A binding preference and what the factor does.

    Parameters
    ----------
    name, family : str
        Factor and structural family.
    consensus : str
        IUPAC consensus, 5' to 3'; lower case marks weak columns.
    role : str
        What it does in the model.
    stranded : bool
        Only the sense strand of a promoter is read (core promoter signals).
    """

    name: str
    family: str
    consensus: str
    role: str
    stranded: bool = False

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.consensus)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Base probabilities, shape (width, 4), columns A, C, G, T."""
        rows = np.empty((self.width, 4))
        for row, letter in zip(rows, self.consensus, strict=True):
            chosen = ["ACGT".index(base) for base in _CODES[letter.upper()]]
            if len(chosen) == 4:
                row[:] = BACKGROUND
                continue
            mass = STRONG if letter.isupper() else WEAK
            row[:] = (1 - mass) / (4 - len(chosen))
            row[chosen] = mass / len(chosen)
        return rows

    @cached_property
    def log_odds(self) -> NDArray[np.float32]:
        """Scores in bits, shape (width, 5): log2(p / 0.25); the N column rules a site out."""
        scores = np.full((self.width, 5), _N_SCORE, dtype=np.float32)
        scores[:, :4] = np.log2(self.probabilities / BACKGROUND)
        return scores

    @property
    def max_score(self) -> float:
        """Score of the best possible site, bits."""
        return float(self.log_odds.max(axis=1).sum())


MOTIFS: tuple[Motif, ...] = (
    Motif("FOXA", "forkhead", "TGTTTACa", "pioneer: opens chromatin, drives nothing alone"),
    Motif("AP1", "bZIP (FOS:JUN)", "rTGASTCAy", "activator in all cell types; opens chromatin"),
    Motif("TEAD", "TEA domain", "rCATTCCA", "activator in all cell types"),
    Motif("GATA", "GATA zinc finger", "AGATAAGr", "activator of the blood-like cell type"),
    Motif("HNF4", "nuclear receptor", "CAAAGTCCA", "activator of the liver-like cell type"),
    Motif("MYOD", "bHLH (E-box)", "rCAGCTGTy", "activator of the muscle-like cell type"),
    Motif("GFI1", "C2H2 zinc finger", "AAATCACTg", "repressor: silences a distal element"),
    Motif("CTCF", "C2H2 zinc finger", "CCASyAGrkGGCr", "insulator-like: opens, drives nothing"),
    Motif("SP", "KLF/SP zinc finger", "GGGGCGGgg", "promoter activator; brings acetylation"),
    Motif("NRF1", "NRF", "GCGCATGCGC", "promoter activator; brings acetylation"),
    Motif("ETS", "ETS", "CCGGAAGT", "promoter activator; brings acetylation"),
    Motif("NFY", "CCAAT-binding", "rCCAATCAg", "promoter activator"),
    Motif("TATA", "core promoter (TBP)", "TATAAAAg", "core promoter, near -30", stranded=True),
    Motif("INR", "core promoter (TFIID)", "yyCAkTyy", "core promoter, at the TSS", stranded=True),
)
MOTIF_INDEX = {motif.name: index for index, motif in enumerate(MOTIFS)}

CELL_TYPES = ("blood", "liver", "muscle")
PRIMARY = "blood"

# Active concentration of each factor, 0 to 1, per cell type. Core promoter signals read 1.
TF_LEVELS: dict[str, tuple[float, float, float]] = {
    "FOXA": (1.0, 1.0, 1.0),
    "AP1": (1.0, 0.8, 0.8),
    "TEAD": (0.8, 0.8, 1.0),
    "GATA": (1.0, 0.0, 0.0),
    "HNF4": (0.0, 1.0, 0.0),
    "MYOD": (0.0, 0.0, 1.0),
    "GFI1": (1.0, 1.0, 1.0),
    "CTCF": (1.0, 1.0, 1.0),
    "SP": (1.0, 1.0, 1.0),
    "NRF1": (1.0, 1.0, 1.0),
    "ETS": (1.0, 0.8, 0.8),
    "NFY": (1.0, 1.0, 1.0),
    "TATA": (1.0, 1.0, 1.0),
    "INR": (1.0, 1.0, 1.0),
}


def meme_text() -> str:
    """Return the matrices in MEME minimal motif format (version 4)."""
    lines = [
        "MEME version 4",
        "",
        "ALPHABET= ACGT",
        "",
        "strands: + -",
        "",
        "Background letter frequencies",
        " ".join(f"{base} {BACKGROUND:.2f}" for base in "ACGT"),
        "",
    ]
    for motif in MOTIFS:
        lines.append(f"MOTIF {motif.name} {motif.family.replace(' ', '_')}")
        lines.append(f"letter-probability matrix: alength= 4 w= {motif.width} nsites= 100 E= 0")
        lines.extend(" ".join(f"{p:.6f}" for p in row) for row in motif.probabilities)
        lines.append("")
    return "\n".join(lines)
