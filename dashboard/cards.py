"""Cards, charts and tables as Dash components: what every view is built of."""

from __future__ import annotations

__all__ = ["card", "data", "hidden", "labelled", "pair", "panel_card", "said", "tables", "tell"]

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html, set_props

from .names import pieces
from .panels import Panel
from .rows import rows_kind
from .view import Drawn, Table


def labelled(label: str) -> dict[str, Any]:
    """The attribute that names an element to a screen reader."""
    return {"aria-label": label}


def data(**values: str) -> dict[str, Any]:
    """Attributes that the scripts read.

    >>> data(view="runs")
    {'data-view': 'runs'}
    """
    return {f"data-{name}": value for name, value in values.items()}


def hidden() -> dict[str, Any]:
    """The attribute of what is decoration only."""
    return {"aria-hidden": "true"}


def said(text: str) -> Any:
    """A sentence, its very long names cut: they are whole under the pointer and for a screen reader."""
    if all(whole == shown for whole, shown in pieces(text)):
        return text
    return [
        whole
        if whole == shown
        else html.Span([html.Span(shown, **hidden()), html.Span(whole, className="fs-unseen")], title=whole)
        for whole, shown in pieces(text)
    ]


def card(title: str, how: str, inside: Sequence[Any], name: str, *, tools: Sequence[Any] = ()) -> html.Section:
    """A box with a heading, a sentence on how to read it, and what is in it."""
    heading = [html.Div([html.H2(title), *tools], className="fs-heading"), html.Span(how, className="fs-help")]
    parts = [html.Div(heading, className="fs-title"), *inside]
    return html.Section(parts, className="fs-card", id=f"card-{name}", **labelled(title))


def panel_card(name: str, panel: Panel) -> html.Section:
    """The card of a panel: its chart, the same in words, its tables."""
    inside: list[Any] = []
    if panel.HEIGHT:
        size = {"height": f"{panel.HEIGHT}px"}
        graph = html.Div(className="fs-chart", style=size, **data(chart=name))  # drawn by assets/charts.js
        inside.append(html.Div(graph, role="group", **labelled(f"Chart, told in words below: {panel.TITLE}")))
    spoken = "fs-unseen" if panel.PLACE == "main" else "fs-words"
    inside.append(html.P(id={"type": "words", "name": name}, className=spoken))
    inside.append(html.Div(id={"type": "tables", "name": name}))
    tools = [_downloads(name, panel)] if panel.HEIGHT else []
    return card(panel.TITLE, panel.HELP, inside, name, tools=tools)


def pair(cards: Sequence[html.Section]) -> html.Div:
    """Cards in two columns, each packed on its own; one below the other, in the given order, where it is narrow."""
    for i, one in enumerate(cards):
        setattr(one, "style", {"order": i})  # noqa: B010 (a property that dash makes)
    columns = [html.Div(list(cards[side::2]), className="fs-column") for side in (0, 1)]
    return html.Div(columns, className="fs-grid fs-halves fs-pair")


def _downloads(name: str, panel: Panel) -> html.Details:
    """A small menu: the chart as a picture, or its numbers, the recorded ones if it has some (assets/save.js)."""
    kinds, rows = ("png", "svg", "csv"), rows_kind(panel)
    buttons = [html.Button(kind.upper(), type="button", **data(save=kind, panel=name, rows=rows)) for kind in kinds]
    return html.Details(
        [html.Summary("Save", **labelled(f"Save {panel.TITLE}")), html.Div(buttons, className="fs-save-menu")],
        className="fs-save",
    )


def tell(drawn: Mapping[str, Drawn]) -> None:
    """Send the words and tables of panels to the browser; a panel that has nothing to show loses its card."""
    for name, part in drawn.items():
        set_props(f"card-{name}", {"hidden": part.absent})
        set_props({"type": "words", "name": name}, {"children": said(part.words)})
        if part.tables:
            set_props({"type": "tables", "name": name}, {"children": tables(part.tables)})


def tables(drawn: Sequence[Table]) -> list[html.Div]:
    """Tables with a caption and header cells; a row's button opens its event, by mouse or keyboard."""
    return [_table(table) for table in drawn]


def _table(table: Table) -> html.Div:
    head = html.Thead(html.Tr([html.Th(title, scope="col") for title in table.header]))
    rows = [_row(row, table.keys[i] if table.keys else "") for i, row in enumerate(table.rows)]
    parts: list[Any] = [html.Table([html.Caption(said(table.caption)), head, html.Tbody(rows)])] if rows else []
    if not rows:
        parts.append(html.H3(said(table.caption)))
    if table.note:
        parts.append(html.P(table.note, className="fs-note"))
    named = " fs-named" if any(len(row[0]) > 11 for row in table.rows) else ""
    scrolls: dict[str, Any] = {"tabIndex": 0, "role": "region", **labelled(table.caption)} if rows else {}
    return html.Div(parts, className=f"fs-table{named}", **scrolls)


def _row(cells: Sequence[str], key: str) -> html.Tr:
    first: Any = cells[0]
    if key:
        told = labelled(f"Show the event at step {cells[0]}")
        first = html.Button(cells[0], type="button", **data(event=key), **told)
    rest = [html.Td(cell) for cell in cells[1:]]
    return html.Tr([html.Th(first, scope="row"), *rest], **(data(row=key) if key else {}))
