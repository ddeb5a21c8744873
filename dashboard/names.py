"""Layer names cut to what there is room for, so that they can be told from each other, and as plotly spells them."""

from __future__ import annotations

__all__ = ["as_html", "brief", "cut", "pieces", "plain", "short"]

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from html import escape

ROOM = 12  # characters
SAID = 40  # ... in a sentence
_LONG = re.compile(rf"[^\s;,:]{{{SAID},}}[^\s;,:.)]")


def brief(layers: Sequence[str], room: int = ROOM) -> list[str]:
    """The names; if some are too long, without the parts that all begin or end with, then with parts as initials.

    Those that are the same then have their place in `layers` before them.

    >>> brief(["patch_embed", "blocks.00"])
    ['patch_embed', 'blocks.00']
    >>> brief(["module.encoder.layers.03.attention", "module.encoder.layers.11.attention"])
    ['03', '11']
    >>> brief(["encoder.layer.11.attention.output", "encoder.layer.11.mlp.dense", "head"])
    ['e.l.11.a.output', 'e.l.11.m.dense', 'head']
    >>> brief(["a_projection_that_is_long", "a_projector_that_is_long"])
    ['0 a_pro…long', '1 a_pro…long']
    """
    return list(_brief(tuple(layers), room))


def short(name: str, room: int = SAID) -> str:
    """One name cut to about `room` characters: parts as initials, but the numbers; then its last part in the middle.

    >>> short("module.encoder.layers.03.attention.output_projection", 20)
    'm.e.l.03.a.outp…tion'
    """
    return _fitted(name.split("."), room) if re.fullmatch(r"[\w.]+", name) else _middle(name, room)


def pieces(text: str) -> list[tuple[str, str]]:
    """A sentence in pieces `(whole, shown)`, which differ where a name is too long for a sentence.

    >>> pieces("head rose")
    [('head rose', 'head rose')]
    """
    found, at = [], 0
    for match in _LONG.finditer(text):
        found += [(text[at : match.start()],) * 2, (match[0], short(match[0]))]
        at = match.end()
    return [piece for piece in [*found, (text[at:],) * 2] if piece[0]]


def cut(text: str) -> str:
    """A sentence with its very long names cut."""
    return "".join(shown for _, shown in pieces(text))


def plain(text: str) -> str:
    """A text with names in it as plotly shows it: long ones cut, and no part of one read as a tag.

    >>> plain("<b>x</b> rose")
    '&lt;b&gt;x&lt;/b&gt; rose'
    """
    return escape(cut(text), quote=False)


def as_html(text: str) -> str:
    """A sentence as HTML, its very long names cut: they are whole under the pointer and for a screen reader.

    >>> as_html("a & b")
    'a &amp; b'
    """
    return "".join(
        escape(whole)
        if whole == shown
        else f"<span title='{escape(whole)}'><span aria-hidden='true'>{escape(shown)}</span>"
        f"<span class='fs-unseen'>{escape(whole)}</span></span>"
        for whole, shown in pieces(text)
    )


@lru_cache(maxsize=64)
def _brief(layers: tuple[str, ...], room: int) -> tuple[str, ...]:
    if max(map(len, layers), default=0) <= room:
        return layers
    parts = [layer.split(".") for layer in layers]
    shortest = min(map(len, parts))
    head = next((i for i in range(shortest) if len({one[i] for one in parts}) > 1), shortest - 1)
    most = shortest - head - 1  # a part at least is left
    tail = next((i for i in range(most) if len({one[-1 - i] for one in parts}) > 1), most)
    names = [_fitted(one[head : len(one) - tail], room) for one in parts]
    if len(set(layers)) < len(layers):
        return tuple(names)
    count = Counter(names)
    return tuple(
        name if count[name] == 1 else f"{i} {_middle(name, room - 1 - len(str(i)))}" for i, name in enumerate(names)
    )


def _fitted(parts: list[str], room: int) -> str:
    name = ".".join(parts)
    if len(name) <= room:
        return name
    head = "".join(f"{part if part.isdigit() else part[:1]}." for part in parts[:-1])
    if len(head) + len(parts[-1]) <= room + 4:
        return head + parts[-1]
    if len(head) > room - 5:  # the numbers alone
        head = "".join(f"{part}." for part in parts[:-1] if part.isdigit())
    return head + _middle(parts[-1], room - len(head)) if len(head) <= room - 5 else _middle(name, room)


def _middle(text: str, room: int) -> str:
    """Without its middle, if it is longer than `room`.

    >>> _middle("projection", 5)
    'pr…on'
    """
    if len(text) <= room:
        return text
    kept = max(1, room - 1)
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
