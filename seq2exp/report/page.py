"""Hand-written HTML: escaped texts, tables, pictures as data; no network, no template library."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seq2exp.report.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["document", "escape", "figure", "note", "section", "table"]

_PIXELS_PER_INCH = 127
_CSS = """
:root { --ink: #222; --grey: #666; --line: #ddd; --accent: #0072b2; --soft: #f5f7f9; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color: var(--ink); margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .5rem 0; max-width: 46rem; }
.sub, figcaption, .note { color: var(--grey); font-size: .875rem; }
.headline { font-size: 1.1rem; background: var(--soft); border-left: 4px solid var(--accent);
  padding: .75rem 1rem; margin: 1.25rem 0; max-width: none; }
.headline p { max-width: none; margin: .25rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
  margin: .75rem 0; }
th, td { text-align: right; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap; }
th { font-weight: 600; }
td:first-child, th:first-child { text-align: left; }
tr.own td { font-weight: 600; background: var(--soft); }
table.text td, table.text th { text-align: left; white-space: normal; }
.range { color: var(--grey); font-weight: 400; font-size: .8rem; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
nav { font-size: .875rem; margin: .75rem 0; }
nav a { color: var(--accent); margin-right: 1rem; white-space: nowrap; }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } nav { display: none; }
  h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""


def escape(value: object) -> str:
    """Return text that is safe inside HTML, quotes included."""
    return html.escape(str(value), quote=True)


def document(title: str, subtitle: str, headline: Sequence[str], sections: Sequence[str]) -> str:
    """Return a whole page.

    Parameters
    ----------
    title, subtitle : str
        Plain texts.
    headline : sequence of str
        Plain sentences of the box on top.
    sections : sequence of str
        HTML of :func:`section`.
    """
    anchors = [part.split('id="', 1)[1].split('"', 1)[0] for part in sections]
    titles = [part.split("<h2>", 1)[1].split("</h2>", 1)[0] for part in sections]
    links = "".join(
        f'<a href="#{anchor}">{name}</a>' for anchor, name in zip(anchors, titles, strict=True)
    )
    box = "".join(f"<p>{escape(sentence)}</p>" for sentence in headline)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing may be loaded, whatever a gene or file is called.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="sub">{escape(subtitle)}</p>\n'
        f'<div class="headline">{box}</div>\n<nav>{links}</nav>\n'
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def section(anchor: str, title: str, *parts: str) -> str:
    """Return a section; ``parts`` are HTML."""
    body = "\n".join(parts)
    return f'<section id="{escape(anchor)}">\n<h2>{escape(title)}</h2>\n{body}\n</section>'


def note(text: str) -> str:
    """Return a grey sentence, for example why something is missing."""
    return f'<p class="note">{escape(text)}</p>'


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    own: Sequence[int] = (),
    text: str = "",
) -> str:
    """Return a table; cells are HTML already.

    Parameters
    ----------
    header : sequence of str
        Plain texts.
    rows : sequence of sequences of str
        HTML of the cells.
    own : sequence of int
        Rows to stress.
    text : str
        ``text`` aligns all cells to the left and lets them wrap.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        ('<tr class="own">' if number in own else "<tr>")
        + "".join(f"<td>{cell}</td>" for cell in row)
        + "</tr>\n"
        for number, row in enumerate(rows)
    )
    first = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    return (
        f'<div class="scroll"><table class="{escape(text)}">{first}'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def figure(picture: Figure, caption: str, *, kind: str = "svg") -> str:
    """Return a picture as an image that is part of the page.

    Parameters
    ----------
    picture : Figure
    caption : str
        Plain text below the picture, also its description for screen readers.
    kind : {"svg", "png"}
        PNG for pictures with thousands of points.
    """
    buffer = io.BytesIO()
    with styled():
        options = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 160}
        picture.savefig(buffer, format=kind, **options)
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width = round(picture.get_figwidth() * _PIXELS_PER_INCH)
    return (
        f'<figure><img width="{width}" alt="{escape(caption)}" src="data:{mime};base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
