"""matplotlib figures as SVG text that takes its colours of text and lines from the page around it (`html_page.py`).

Needs matplotlib, from the extra `tools`: imported by whoever draws, never by a worker.
"""

from __future__ import annotations

import html
import io
import re
from typing import Any, Final

from matplotlib.figure import Figure

INK: Final = "#010203"  # replaced by CSS's currentColor, so that a chart fits light and dark pages
BLUE: Final = "#3b82c4"
ORANGE: Final = "#d9822b"
GREY: Final = "#8a8a8a"
STYLE: Final[Any] = {  # matplotlib's type for it lists every key it has
    "svg.fonttype": "none",
    "svg.hashsalt": "forecast-worker",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element: named for screen readers, ids of its own, colours from the page."""
    buffer = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower())[:32]
    text = re.sub(r'\bid="', f'id="{slug}-', text)
    text = re.sub(r'((?:xlink:)?href="|url\()#', rf"\1#{slug}-", text)
    text = text.replace(INK, "currentColor")
    head = f'<svg role="img" aria-label="{html.escape(title)}"'
    return text.replace("<svg", head, 1)
