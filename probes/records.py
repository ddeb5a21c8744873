"""Report records as other programs want them: plain JSON values and HTML tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = ["html_table", "plain"]


def plain(value: Any) -> Any:
    """The value with tuples as lists and NaN and infinity, which JSON lacks, as None, at any depth.

    >>> plain({"rate": float("nan"), "pair": (1, 2.5)})
    {'rate': None, 'pair': [1, 2.5]}
    """
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def html_table(title: str, facts: Iterable[str], head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A sentence in bold, a list of facts and a table; every text is escaped.

    >>> html_table("a < b", [], ["n"], [[1]])
    '<p><b>a &lt; b</b></p><ul></ul><table><thead><tr><th>n</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>'
    """
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p><b>{escape(title)}</b></p><ul>{items}</ul>{table}"
