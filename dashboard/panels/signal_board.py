"""Which signal of a run warns of dips, and how many steps ahead, all at the same number of false alarms."""

from __future__ import annotations

from typing import Any

from ...probes.lead_time import in_words
from ...probes.leaderboard_report import Leaderboard, Signal
from ..evidence_axis import blank, evidence_layout
from ..names import brief, plain
from ..signals import Signals
from ..view import Drawn, Table

TITLE = "Which signal warns of dips?"
HELP = (
    "Share of the dips that each signal gives an alarm before, with its 95 % Wilson interval. Every signal has the "
    "threshold at which it gives the same number of false alarms. Dashes: chance. A layer alone: its "
    "gradient norm."
)
ORDER = 260
PLACE = "signals"
HEIGHT = 340

SHOWN, ROOM = 10, 20  # signals, and characters of a name


def draw(signals: Signals) -> Drawn:
    """The best signals as points with intervals, and their table."""
    board = signals.board
    if board is None or not board.signals:
        why = signals.no_board or f"Not testable: {board.reason if board else 'no signals'}."
        return Drawn(blank(why.partition(":")[0] + ".").figure, words=why)
    shown = board.signals[:SHOWN]
    layout = evidence_layout("dips warned of", {})
    layout["xaxis"] |= {"range": [-0.02, 1.04], "tickformat": ".0%"}
    names = _names(board, shown)
    ticks = {"tickvals": list(range(len(names))), "ticktext": [plain(name) for name in names]}
    layout["yaxis"] = {**ticks, "range": [len(names) - 0.5, -0.5], "showgrid": False, "ticks": ""}
    layout["margin"] |= {"l": 150}
    return Drawn({"data": [_chance(shown), _warned(shown)], "layout": layout}, (_table(board),), _words(board))


def _names(board: Leaderboard, shown: tuple[Signal, ...]) -> list[str]:
    """Names where room is short: the gradient norm is the usual series, and a layer's own name will do."""
    layers = list(dict.fromkeys(signal.layer for signal in board.signals if signal.layer is not None))
    short = dict(zip(layers, brief(layers, ROOM), strict=True))

    def one(signal: Signal) -> str:
        if signal.layer is None:
            return brief([signal.name], ROOM)[0]
        usual = signal.series == "grad_norm"
        return short[signal.layer] if usual else brief([f"{signal.series}/{short[signal.layer]}"], ROOM)[0]

    return [one(signal) for signal in shown]


def _chance(shown: tuple[Signal, ...]) -> dict[str, Any]:
    known = [(i, signal.expected) for i, signal in enumerate(shown) if signal.expected == signal.expected]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "by chance",
        "x": [expected for _, expected in known],
        "y": [i for i, _ in known],
        "marker": {"symbol": "line-ns", "size": 16, "line": {"width": 2, "color": "$muted"}},
        "hovertemplate": "%{x:.0%} by chance<extra></extra>",
    }


def _warned(shown: tuple[Signal, ...]) -> dict[str, Any]:
    up = [signal.warned.high - signal.warned.value for signal in shown]
    down = [signal.warned.value - signal.warned.low for signal in shown]
    told = [
        f"{plain(s.name)}: {s.warned.hits} of {s.warned.trials} dips, lead {in_words(s.lead)} steps" if s.lead.events
        else f"{plain(s.name)}: {s.warned.hits} of {s.warned.trials} dips" for s in shown
    ]  # fmt: skip
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "dips warned of",
        "x": [signal.warned.value for signal in shown],
        "y": list(range(len(shown))),
        "error_x": {"symmetric": False, "array": up, "arrayminus": down, "color": "$knn", "thickness": 1.5, "width": 3},
        "marker": {"size": 9, "color": "$knn"},
        "hovertext": told,
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _table(board: Leaderboard) -> Table:
    def row(signal: Signal, name: str) -> tuple[str, ...]:
        chance = f"{signal.expected:.2f}" if signal.expected == signal.expected else "–"
        p = "–" if signal.p is None else f"{signal.p:.3f}"
        warned = f"{signal.warned.hits}/{signal.warned.trials}"
        return (name, warned, chance, in_words(signal.lead), f"{signal.threshold:.1f}", p)

    rest = len(board.signals) - SHOWN
    note = f"The best {SHOWN} of {len(board.signals)} signals." if rest > 0 else ""
    head = ("Signal", "Dips warned of", "By chance", "Lead, steps", "Threshold, σ", "p")
    shown = board.signals[:SHOWN]
    return Table("Signals", head, tuple(map(row, shown, _names(board, shown))), note=note)


def _words(board: Leaderboard) -> str:
    told = board.verdict  # it begins with the signal's name, which is left as it is spelt
    if told.startswith(("no signal ", "not testable")):
        told = f"N{told[1:]}"
    notes = " ".join(f"{note[:1].upper()}{note[1:]}." for note in board.notes)
    return f"{told}. {notes}".strip()
