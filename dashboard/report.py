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
from ..probes.spikes import Spike, find_spikes
from ..traces.reader import Trace
from .figures import extent
from .panels import panels, panels_in
from .theme import SCHEMES
from .view import Drawn, Episode, Table, View, key_of, look
from .words import about_focus, about_spike, counts, headline

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
    close_ups = [(spike, _close_up(trace, view, spike)) for spike in _worth(view)]
    if close_ups:
        drawn["neighbourhood"] = close_ups[0][1]
    data = {
        "schemes": SCHEMES,
        "extent": extent(view),
        "figures": {name: part.figure for name, part in drawn.items() if part.figure},
        "closeUps": {key_of(spike): {"figure": part.figure, "words": part.words} for spike, part in close_ups},
    }
    parts = {
        "title": escape(f"{view.run} – foreshock"),
        "css": (_ASSETS / "foreshock.css").read_text(encoding="utf-8"),
        "headline": escape(headline(view)),
        "detail": escape(_detail(trace, view)),
        "main": "".join(_card(name, drawn[name], view) for name in panels_in("main")),
        "side": "".join(_card(name, drawn[name], view) for name in panels_in("side")),
        "about": _about(trace),
        "data": _script_safe(json.dumps(data, allow_nan=False, separators=(",", ":"))),
        "plotly": get_plotlyjs(),
        "own": "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        "run": escape(view.run),
    }
    return _PAGE.format(**parts)


def _worth(view: View) -> list[Spike]:
    """The spikes to show close up, the first of each episode: those before the deepest dips, then the strongest."""
    depth = {pair.spike: pair.dip.depth for pair in sorted(view.pairs, key=lambda pair: pair.dip.depth)}

    def rank(episode: Episode) -> tuple[float, float]:
        return max(depth.get(spike, 0.0) for spike in episode.spikes), episode.strongest.ratio

    best = sorted(view.episodes, key=rank, reverse=True)
    return [episode.first for episode in best[:CLOSE_UPS]]


def _close_up(trace: Trace, view: View, spike: Spike) -> Drawn:
    near = look(trace, [spike], run=view.run, columns=1, spike=key_of(spike))
    part = panels()["neighbourhood"].draw(near)
    return part if near.focus is None else Drawn(part.figure, part.tables, about_focus(near.focus))


def _detail(trace: Trace, view: View) -> str:
    message = str(trace.attrs.get("message") or "")
    return " ".join(filter(None, [counts(view), f"The run is {view.state}.", message]))


def _card(name: str, drawn: Drawn, view: View) -> str:
    panel = panels()[name]
    title, how = escape(panel.TITLE), escape(panel.HELP)
    save = _SAVE.format(name=name, title=title) if panel.HEIGHT else ""
    heading = f"<div class='fs-heading'><h2>{title}</h2>{save}</div>"
    parts = [f"<div class='fs-title'>{heading}<span class='fs-help'>{how}</span></div>"]
    if name == "neighbourhood" and view.spikes:
        parts.append(_chooser(view))
    if panel.HEIGHT:
        size = f"height:{panel.HEIGHT}px"
        parts.append(f"<div id='panel-{name}' style='{size}' role='group' aria-label='Chart: {title}'></div>")
    spoken = "fs-words" if panel.PLACE == "side" and panel.HEIGHT else "fs-unseen"
    parts.append(f"<p id='words-{name}' class='{spoken}'>{escape(drawn.words)}</p>")
    parts += [_table(table) for table in drawn.tables]
    return f"<section class='fs-card' id='card-{name}' aria-label='{title}'>{''.join(parts)}</section>"


def _chooser(view: View) -> str:
    options = "".join(
        f"<option value='{escape(key_of(spike))}'>{escape(about_spike(spike))}</option>" for spike in _worth(view)
    )
    return f"<label class='fs-note'>Spike <select id='close-up'>{options}</select></label>"


def _table(table: Table) -> str:
    note = f"<p class='fs-note'>{escape(table.note)}</p>" if table.note else ""
    if not table.rows:
        return f"<div class='fs-table'><h3>{escape(table.caption)}</h3>{note}</div>"
    head = "".join(f"<th scope='col'>{escape(title)}</th>" for title in table.header)
    rows = "".join(f"<tr><th scope='row'>{escape(row[0])}</th>{_cells(row[1:])}</tr>" for row in table.rows)
    body = f"<caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    return f"<div class='fs-table'><table>{body}</table>{note}</div>"


def _cells(cells: Sequence[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def _about(trace: Trace) -> str:
    """The configuration that was used, so the report stands alone."""
    settings: dict[str, Any] = {"meta": trace.meta, "config": trace.config, "layers": list(trace.layers)}
    text = json.dumps(settings, indent=2, ensure_ascii=False, default=str)
    return f"<details class='fs-card'><summary>Settings of the run</summary><pre>{escape(text)}</pre></details>"


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
<body data-run="{run}">
<header class="fs-header"><div class="fs-brand"><span class="fs-mark" aria-hidden="true"></span>foreshock</div>
<div class="fs-status">{run}</div>
<div class="fs-controls"><button id="whole" type="button" disabled>Whole run</button>
<button id="toggle" type="button">Light or dark</button></div></header>
<main id="content"><section class="fs-summary" aria-label="Summary"><h1 class="fs-headline">{headline}</h1>
<p class="fs-detail">{detail}</p></section>
<div class="fs-grid"><div class="fs-column">{main}</div><div class="fs-column">{side}{about}</div></div></main>
<script type="application/json" id="data">{data}</script>
<script>{plotly}</script><script>{own}</script>
</body>
</html>
"""
