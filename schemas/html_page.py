"""A report as one HTML file that needs nothing else, neither scripts nor anything from the network.

Here, and not with one of its users, because the demo and `engine-build` make reports and may not import each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final


def page(title: str, body: Iterable[str]) -> str:
    """The whole file. title: plain text. body: HTML, one element after the other."""
    return _PAGE.replace("<!--title-->", escape(title)).replace("<!--body-->", "\n".join(body))


def section(title: str, content: str) -> str:
    """A box with a heading. content: HTML."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def figure(kind: str, title: str, svg: str) -> str:
    """A box with a chart. kind: "wide" for the page's whole width, else empty."""
    return f'<figure class="{kind}"><figcaption>{escape(title)}</figcaption>{svg}</figure>'


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, head: bool = True) -> str:
    """A table of plain texts; the first cell of a row is its heading."""
    line = "<tr>" + "".join(f'<th scope="col">{escape(title)}</th>' for title in titles) + "</tr>"
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return f"<table>{'<thead>' + line + '</thead>' if head else ''}<tbody>{body}</tbody></table>"


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title><!--title--></title>
<style>
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1f2430; --soft: #5b6472; --line: #d9dde3; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171c; --card: #1d2128; --ink: #e6e9ee; --soft: #a3acb9; --line: #343a44; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 2rem 1.25rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.7rem; }
h2, figcaption { margin: 0 0 .6rem; font-size: 1.05rem; font-weight: 600; }
p { margin: .4rem 0; color: var(--soft); max-width: 75ch; }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem; margin-top: 1rem; }
section, figure { margin: 0; padding: 1rem 1.2rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.wide { grid-column: 1 / -1; }
svg { display: block; width: 100%; height: auto; color: var(--ink); }
table + h2, p + h2 { margin-top: 1rem; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .4rem; border-bottom: 1px solid var(--line); vertical-align: top; text-align: right; }
th:first-child { text-align: left; font-weight: 400; color: var(--soft); white-space: nowrap; }
thead th { font-weight: 600; }
.verdict { display: inline-block; padding: .3rem .8rem; border-radius: 6px; border-left: 5px solid; color: var(--ink);
  background: var(--card); }
.good { border-color: #2f9e5b; }
.bad { border-color: #cf3b3b; font-weight: 600; }
footer { margin-top: 1.2rem; color: var(--soft); font-size: .9rem; }
@media (max-width: 760px) { .grid { grid-template-columns: minmax(0, 1fr); } }
</style>
</head>
<body>
<main>
<!--body-->
</main>
</body>
</html>
"""
