"""A run as one HTML file that needs no network and no server: the dashboard's panels, tables and words."""

from __future__ import annotations

__all__ = ["write_report"]

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from ..probes.dips import find_dips
from ..probes.precursors import precursors
from ..probes.sessions import session
from ..probes.spikes import Spike, find_spikes
from ..traces.reader import Trace
from .evidence import Evidence, evidence_of
from .figures import extent
from .names import as_html, cut
from .panels import panels, panels_in
from .signals import signals_of
from .theme import SCHEMES
from .view import Drawn, Episode, Table, View, key_of, look
from .views.precursors import verdict
from .views.settings import tables_of
from .words import about_event, about_spike, counts, headline

COLUMNS = 1600  # a report has no server to ask for a finer picture
CLOSE_UPS = 12

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("draw.js", "save.js", "report.js")


def write_report(trace: Trace, path: str | Path) -> Path:
    """Write the report of `trace` to `path` and return it; folders that lack are made.

    The file holds plotly itself (about 5 MB), so that it can be mailed, archived and opened without a network.

    Raises:
        TraceError: the trace cannot be read. OSError: `path` cannot be written.
    """
    spikes = find_spikes(trace) if "grad_norm" in trace.series else []
    dips = find_dips(trace) if "knn_accuracy" in trace.scalars else []
    view = look(trace, spikes, dips, columns=COLUMNS)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_document(trace, view), encoding="utf-8")
    return path


def _document(trace: Trace, view: View) -> str:
    drawn = {name: panel.draw(view) for name, panel in panels_in("main", "side").items()}
    close_ups = {key_of(spike): _close_up(trace, view, spike) for spike in _worth(view)}
    first = next(iter(close_ups.values()), _close_up(trace, view, None))
    drawn |= first
    near = {
        name: panel
        for name, panel in panels_in("event").items()
        if not all(parts[name].absent for parts in close_ups.values() or [first])
    }
    evidence = _evidence(trace, view)
    if evidence is not None:
        drawn |= {name: panel.draw(evidence) for name, panel in panels_in("precursors").items()}
    signals = signals_of(view.run, trace, view.spikes, view.dips)
    drawn |= {name: panel.draw(signals) for name, panel in panels_in("signals").items()}
    data = {
        "schemes": SCHEMES,
        "extent": extent(view),
        "shared": list(panels_in("main")),
        "figures": {name: part.figure for name, part in drawn.items() if part.figure and not part.absent},
        "closeUps": {
            key: {name: _sent(part) for name, part in parts.items() if name in near or name not in panels_in("event")}
            for key, parts in close_ups.items()
        },
    }

    def cards(*places: str) -> list[str]:
        return [_card(name, drawn[name]) for name in panels_in(*places) if not drawn[name].absent]

    parts = {
        "title": escape(f"{view.run} – foreshock"),
        "css": (_ASSETS / "foreshock.css").read_text(encoding="utf-8"),
        "headline": as_html(headline(view)),
        "detail": escape(_detail(trace, view)),
        "main": "".join(cards("main")),
        "side": _chooser(view) + "".join(cards("side")),
        "event": _event([(_card(name, drawn[name]), panel.HEIGHT) for name, panel in near.items()]),
        "verdict": as_html(verdict(evidence) if evidence else "Not testable: no steps beyond the warm-up."),
        "precursors": _pair(cards(*(["precursors"] if evidence else []), "signals")),
        "about": _about(trace),
        "data": _script_safe(json.dumps(data, allow_nan=False, separators=(",", ":"))),
        "plotly": get_plotlyjs(),
        "own": "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        "run": escape(view.run),
    }
    return _PAGE.format(**parts)


def _event(cards: Sequence[tuple[str, int]]) -> str:
    """The part about one event, charts beside tables; nothing for a run without events."""
    if not cards:
        return ""
    columns = ["".join(card for card, height in cards if bool(height) is chart) for chart in (True, False)]
    inside = "".join(f"<div class='fs-column'>{column}</div>" for column in columns)
    return f"<h2 class='fs-headline fs-part'>The event close up</h2><div class='fs-grid'>{inside}</div>"


def _pair(cards: Sequence[str]) -> str:
    """Cards in two columns, each packed on its own."""
    ordered = [card.replace("<section ", f"<section style='order:{i}' ", 1) for i, card in enumerate(cards)]
    columns = ["".join(ordered[side::2]) for side in (0, 1)]
    inside = "".join(f"<div class='fs-column'>{column}</div>" for column in columns)
    return f"<div class='fs-grid fs-halves fs-pair'>{inside}</div>"


def _sent(part: Drawn) -> dict[str, Any]:
    """What changes in a card when another event is chosen."""
    tables = "".join(map(_table, part.tables))
    return {"figure": part.figure, "words": as_html(part.words), "tables": tables, "absent": part.absent}


def _worth(view: View) -> list[Spike]:
    """The spikes to show close up, the first of each episode: those before the deepest dips, then the strongest."""
    depth = {pair.spike: pair.dip.depth for pair in sorted(view.pairs, key=lambda pair: pair.dip.depth)}

    def rank(episode: Episode) -> tuple[float, float]:
        return max(depth.get(spike, 0.0) for spike in episode.spikes), episode.strongest.ratio

    best = sorted(view.episodes, key=rank, reverse=True)
    return [episode.first for episode in best[:CLOSE_UPS]]


def _close_up(trace: Trace, view: View, spike: Spike | None) -> dict[str, Drawn]:
    """The panels around one event; without one they say why."""
    key = "" if spike is None else key_of(spike)
    near = look(trace, view.spikes, view.dips, run=view.run, columns=1, event=key)
    drawn = {name: panel.draw(near) for name, panel in panels_in("event").items()}
    part = panels()["neighbourhood"].draw(near)
    words = part.words if near.event is None else about_event(near.event)
    return {**drawn, "neighbourhood": Drawn(part.figure, part.tables, words, part.absent)}


def _evidence(trace: Trace, view: View) -> Evidence | None:
    try:
        found = session(view.spikes, view.dips, trace, trace.layers, None)
        return evidence_of(view.run, trace, precursors(view.spikes, view.dips, trace), found)
    except ValueError:  # no steps beyond the warm-up: the report says so
        return None


def _detail(trace: Trace, view: View) -> str:
    message = str(trace.attrs.get("message") or "")
    return " ".join(filter(None, [counts(view), f"The run is {view.state}.", message]))


def _card(name: str, drawn: Drawn) -> str:
    panel = panels()[name]
    title, how = escape(panel.TITLE), escape(panel.HELP)
    save = _SAVE.format(name=name, title=title) if panel.HEIGHT else ""
    heading = f"<div class='fs-heading'><h2>{title}</h2>{save}</div>"
    parts = [f"<div class='fs-title'>{heading}<span class='fs-help'>{how}</span></div>"]
    if panel.HEIGHT:
        size = f"height:{panel.HEIGHT}px"
        parts.append(f"<div id='panel-{name}' style='{size}' role='group' aria-label='Chart: {title}'></div>")
    spoken = "fs-unseen" if panel.PLACE == "main" else "fs-words"
    parts.append(f"<p id='words-{name}' class='{spoken}'>{as_html(drawn.words)}</p>")
    parts.append(f"<div id='tables-{name}'>{''.join(map(_table, drawn.tables))}</div>")
    away = " hidden" if drawn.absent else ""  # until another event is chosen
    return f"<section class='fs-card' id='card-{name}' aria-label='{title}'{away}>{''.join(parts)}</section>"


def _chooser(view: View) -> str:
    if not view.spikes:
        return ""
    options = "".join(
        f"<option value='{escape(key_of(spike))}'>{escape(cut(about_spike(spike)))}</option>" for spike in _worth(view)
    )
    return f"<label class='fs-card fs-chooser'>Event <select id='close-up'>{options}</select></label>"


def _table(table: Table) -> str:
    note = f"<p class='fs-note'>{escape(table.note)}</p>" if table.note else ""
    if not table.rows:
        return f"<div class='fs-table'><h3>{as_html(table.caption)}</h3>{note}</div>"
    head = "".join(f"<th scope='col'>{escape(title)}</th>" for title in table.header)
    rows = "".join(f"<tr><th scope='row'>{escape(row[0])}</th>{_cells(row[1:])}</tr>" for row in table.rows)
    body = f"<caption>{as_html(table.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    label = escape(table.caption)  # it can be scrolled where it is narrow, by the keyboard too
    return f"<div class='fs-table' tabindex='0' role='region' aria-label='{label}'><table>{body}</table>{note}</div>"


def _cells(cells: Sequence[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def _about(trace: Trace) -> str:
    """Config, log and environment, so the report stands alone."""
    inside = "".join(map(_table, tables_of(trace).values()))
    return f"<details class='fs-card'><summary>Config and log</summary>{inside}</details>"


def _script_safe(text: str) -> str:
    """JSON that cannot end the script element it stands in, whatever a layer is called."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


_SAVE = (
    "<details class='fs-save'><summary aria-label='Save {title}'>Save</summary><div class='fs-save-menu'>"
    + "".join(
        f"<button type='button' data-save='{kind}' data-panel='{{name}}'>{kind.upper()}</button>"
        for kind in ("png", "svg", "csv")
    )
    + "</div></details>"
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title><style>{css}</style>
<script>
const dark = matchMedia("(prefers-color-scheme: dark)");
document.documentElement.dataset.mantineColorScheme = dark.matches ? "dark" : "light";
</script>
</head>
<body data-run="{run}" data-view="report">
<header class="fs-header"><div class="fs-brand"><span class="fs-mark" aria-hidden="true"></span>foreshock</div>
<div class="fs-status">{run}</div>
<div class="fs-controls"><button id="whole" type="button" disabled>Whole run</button>
<button id="toggle" type="button">Light or dark</button></div></header>
<main id="content"><section class="fs-summary" aria-label="Summary"><h1 class="fs-headline">{headline}</h1>
<p class="fs-detail">{detail}</p></section>
<div class="fs-grid"><div class="fs-column fs-main">{main}</div><div class="fs-column fs-beside">{side}</div></div>
{event}
<h2 class="fs-headline fs-part">Do spikes precede dips? {verdict}</h2>
{precursors}
<div class="fs-part">{about}</div></main>
<script type="application/json" id="data">{data}</script>
<script>{plotly}</script><script>{own}</script>
</body>
</html>
"""
