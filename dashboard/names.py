"""Layer names cut to what an axis has room for, so that they can still be told from each other."""

from __future__ import annotations

__all__ = ["brief"]

from collections.abc import Sequence
from functools import lru_cache

ROOM = 12  # characters


def brief(layers: Sequence[str], room: int = ROOM) -> list[str]:
    """The names; if some are too long, without the parts that all begin or end with, then with parts as initials.

    >>> brief(["patch_embed", "blocks.00"])
    ['patch_embed', 'blocks.00']
    >>> brief(["module.encoder.layers.03.attention", "module.encoder.layers.11.attention"])
    ['03', '11']
    >>> brief(["encoder.layer.11.attention.output", "encoder.layer.11.mlp.dense", "head"])
    ['e.l.11.a.output', 'e.l.11.m.dense', 'head']
    """
    return list(_brief(tuple(layers), room))


@lru_cache(maxsize=64)
def _brief(layers: tuple[str, ...], room: int) -> tuple[str, ...]:
    if max(map(len, layers), default=0) <= room:
        return layers
    parts = [layer.split(".") for layer in layers]
    shortest = min(map(len, parts))
    head = next((i for i in range(shortest) if len({one[i] for one in parts}) > 1), shortest - 1)
    most = shortest - head - 1  # a part at least is left
    tail = next((i for i in range(most) if len({one[-1 - i] for one in parts}) > 1), most)
    left = [one[head : len(one) - tail] for one in parts]
    return tuple(_fitted(one, room) for one in left)


def _fitted(parts: list[str], room: int) -> str:
    """One name; too long, all but its numbers and its last part as initials; still too long, its end."""
    name = ".".join(parts)
    if len(name) <= room:
        return name
    initials = ".".join([*(part if part.isdigit() else part[:1] for part in parts[:-1]), parts[-1]])
    return initials if len(initials) <= room + 4 else f"…{initials[-room:]}"
