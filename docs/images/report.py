"""Take the pictures of docs/report.md: a report opened in headless Chromium.

PYTHONPATH=. python docs/images/report.py demo/report.html
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from tests.report.chromium import Tab, chromium

FOLDER = Path(__file__).parent
DONE = (
    "document.getElementById('locus-state').textContent === '' && "
    "document.getElementById('igv').childNodes.length > 0"
)


def main(page: Path) -> None:
    """Take and save."""
    with chromium() as tab:
        tab.size(1100, 820)
        tab.open(page)
        tab.wait("document.querySelectorAll('table.genes tbody tr').length > 0")
        save(tab, "report_top.png")
        tab.run("document.getElementById('extremes').scrollIntoView()")
        save(tab, "report_genes.png")
        address = tab.run("document.querySelector('#extremes a').getAttribute('href')")
        tab.run(f"location.hash = '{address}'")
        tab.wait(DONE)
        tab.wait("new Promise((done) => setTimeout(() => done(true), 2000))")
        tab.run("scrollTo(0, 0)")
        # Down to the key of the colours, so that no line of text is cut.
        end = tab.run("document.querySelector('#locus .key').getBoundingClientRect().bottom")
        tab.size(1100, round(end) + 12)
        save(tab, "report_locus.png")


def save(tab: Tab, name: str) -> None:
    """Save what is seen with a palette, which takes a third of the space."""
    picture = tab.picture(FOLDER / name)
    image = Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")
    image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        picture, optimize=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
