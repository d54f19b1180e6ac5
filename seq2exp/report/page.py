"""Hand-written HTML: escaped texts, tables, pictures as data; no network, no template library."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from seq2exp.report.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "asset",
    "document",
    "escape",
    "figure",
    "note",
    "packed",
    "pair",
    "part",
    "policy",
    "script_hash",
    "script_json",
    "section",
    "table",
]

_PIXELS_PER_INCH = 127


def escape(value: object) -> str:
    """Return text that is safe inside HTML, quotes included."""
    return html.escape(str(value), quote=True)


def asset(name: str) -> str:
    """Return a text that is shipped beside this module, such as the style sheet."""
    return resources.files("seq2exp.report").joinpath("assets", name).read_text(encoding="utf-8")


def packed(text: str) -> str:
    """Return a text as base64 of gzip; the same text gives the same bytes.

    The page unpacks it with ``DecompressionStream``; base64 holds nothing that HTML reads.
    """
    # Level 9 takes three times as long on letters of DNA, for the same size.
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode("ascii")


def script_json(value: Any) -> str:  # noqa: ANN401
    """Return JSON that may stand inside a script element, whatever names it holds.

    ``<``, ``>`` and ``&`` are escaped, so that no name can end the element or open a comment, and
    everything that is not ASCII, so that U+2028 cannot end a line.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def part(name: str, content: str, *, kind: str = "text/plain") -> str:
    """Return a piece of data inside the page; ``content`` is packed or script JSON."""
    return f'<script type="{kind}" id="{escape(name)}">{content}</script>'


def script_hash(text: str) -> str:
    """Return the source expression that allows exactly this script."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def policy(scripts: Sequence[str] = ()) -> str:
    """Return the Content-Security-Policy: nothing is loaded, only these scripts run.

    Parameters
    ----------
    scripts : sequence of str
        Texts of the scripts, compared by their SHA-256.
    """
    allowed = f"script-src {' '.join(map(script_hash, scripts))}; " if scripts else ""
    return (
        f"default-src 'none'; {allowed}img-src data:; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def document(
    title: str,
    subtitle: str,
    headline: Sequence[str],
    sections: Sequence[str],
    *,
    after: Sequence[str] = (),
    scripts: Sequence[str] = (),
    allowed: Sequence[str] = (),
) -> str:
    """Return a whole page.

    Parameters
    ----------
    title, subtitle : str
        Plain texts.
    headline : sequence of str
        Plain sentences of the box on top.
    sections : sequence of str
        HTML of :func:`section`.
    after : sequence of str
        HTML behind the overview: other views of the page and its data.
    scripts : sequence of str
        Texts of the scripts that run in the page.
    allowed : sequence of str
        Texts of scripts that one of these may add.
    """
    anchors = [part.split('id="', 1)[1].split('"', 1)[0] for part in sections]
    titles = [part.split("<h2>", 1)[1].split("</h2>", 1)[0] for part in sections]
    links = "".join(
        f'<a href="#{anchor}">{name}</a>' for anchor, name in zip(anchors, titles, strict=True)
    )
    box = "".join(f"<p>{escape(sentence)}</p>" for sentence in headline)
    # The policy is compared with the text between the tags, to the byte.
    bodies = "".join(f"<script>{text}</script>\n" for text in scripts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing may be loaded, whatever a gene or file is called.
        '<meta http-equiv="Content-Security-Policy" '
        f'content="{policy([*scripts, *allowed])}">\n'
        # Without an icon of its own, a page that is served asks its server for one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{asset('report.css')}</style>\n</head>\n<body>\n"
        '<main id="overview">\n'
        f'<h1>{escape(title)}</h1>\n<p class="sub">{escape(subtitle)}</p>\n'
        f'<div class="headline">{box}</div>\n<nav class="parts">{links}</nav>\n'
        + "\n".join(sections)
        + "\n</main>\n"
        + "\n".join(after)
        + f"\n{bodies}</body>\n</html>\n"
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


def pair(*columns: str) -> str:
    """Return HTML parts side by side where the screen is wide enough."""
    return f'<div class="pair">{"".join(f"<div>{column}</div>" for column in columns)}</div>'


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
