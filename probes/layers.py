"""Parameter names to ordered layers: which parameters form one layer, and where it stands in the network.

The order is the forward pass: patch projection (or embedding, or stem), tokens, blocks by depth, final norm, heads.
It is the vertical axis of every picture and the depth that `onset_order` correlates with, so it comes from the names
alone and needs no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

__all__ = ["first_layer", "group_layers", "last_block", "middle_block"]

# Wrappers add a prefix without adding depth. A trunk's name does too, unless it is itself a list (`encoder.0.weight`).
_WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_TRUNKS = frozenset(("encoder", "backbone", "model", "transformer", "vit", "bert"))
# fmt: off
_TOKENS = frozenset((
    "cls_token", "class_token", "reg_token", "dist_token", "mask_token", "pos_embed", "pos_embedding",
    "class_embedding", "positional_embedding", "position_embeddings", "register_tokens",
))
# fmt: on
_ENTRANCES = {
    "patch_embed": "patch_embed",
    "patch_embeddings": "patch_embed",
    "conv_proj": "patch_embed",
    "wte": "embed",
    "embed_tokens": "embed",
    "tok_embeddings": "embed",
    "word_embeddings": "embed",
    "token_embedding": "embed",
    "stem": "stem",
}
_BLOCKS = frozenset(["blocks", "block", "h", "layers", "layer", "resblocks"])
_NORMS = frozenset(["norm", "ln", "ln_f", "norm_f", "fc_norm", "layernorm", "final_layer_norm", "ln_post"])
# fmt: off
_HEADS = frozenset((
    "head", "heads", "lm_head", "fc", "classifier", "pooler", "projector", "predictor", "projection_head",
    "prototypes",
))
# fmt: on
_KNOWN = _TOKENS | _ENTRANCES.keys() | _BLOCKS | _NORMS | _HEADS | {"embeddings", "stages"}
_STAGE = re.compile(r"(?:layer|stage)\d+")  # ResNet's layer1.0
_INLINE_INDEX = re.compile(r"\w*layer_(\d+)")  # torchvision's encoder_layer_0

# (rank, place of first appearance, indices): sorts like the forward pass.
_Place = tuple[int, int, tuple[int, ...]]
_ENTRANCE, _EARLY, _BODY, _NORM, _HEAD = range(5)


Pattern = str | re.Pattern[str] | Callable[[str], str | None]


def group_layers(names: Iterable[str], *, pattern: Pattern | None = None) -> dict[str, list[str]]:
    """Group parameter names into layers, in the order of the forward pass.

    Known are timm's, torchvision's and Hugging Face's ViT, GPT-2, Llama and ResNet names, and MoCo v3's `encoder.`,
    `projector` and `predictor`; in any other model a layer is a top-level module, or one entry of a top-level list.
    The prefixes of wrappers and trunks (`module.`, `_orig_mod.`, `encoder.`, `backbone.`, `transformer.`) are stripped
    from the layer's name, never from the parameter's. Any other prefix stays: `decoder.blocks.00`.

    Args:
        names: parameter names as `model.named_parameters()` gives them, each once.
        pattern: a grouping of one's own: a regular expression, searched in each name, whose groups (joined by dots; the
            whole match if it has none) are the layer; or a function from a name to its layer, None to leave it out.
            Names without a match are left out, and layers are in the order of the names.

    Returns:
        `{layer: [parameter names]}`, layers ordered from the input to the heads.

    Raises:
        ValueError: a name is given twice; a pattern that is no regular expression, or matches no name.

    >>> groups = group_layers(["cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight",
    ...                        "blocks.10.mlp.fc1.bias", "blocks.2.mlp.fc1.bias", "norm.weight"])
    >>> list(groups)
    ['patch_embed', 'tokens', 'blocks.00', 'blocks.02', 'blocks.10', 'norm']
    >>> len(groups["blocks.00"])
    1
    >>> group_layers(["blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "norm.weight"], pattern=r"(attn|mlp)")
    {'attn': ['blocks.0.attn.qkv.weight'], 'mlp': ['blocks.0.mlp.fc1.weight']}
    """
    names = list(names)
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"the parameter name {twice!r} is given twice; give each name once")
    if pattern is not None:
        return _by_pattern(names, pattern)
    staged = any(_STAGE.fullmatch(part) for name in names for part in name.split("."))
    groups: dict[str, list[str]] = {}
    places: dict[str, _Place] = {}
    families: dict[str, int] = {}
    for name, path in zip(names, _paths(names), strict=True):
        layer, rank, indices = _classify(path, staged)
        family = families.setdefault(layer if not indices else layer.rsplit(".", len(indices))[0], len(families))
        groups.setdefault(layer, []).append(name)
        places.setdefault(layer, (rank, family, indices))
    return {layer: groups[layer] for layer in sorted(groups, key=places.__getitem__)}


def _by_pattern(names: Sequence[str], pattern: Pattern) -> dict[str, list[str]]:
    layer_of = pattern if callable(pattern) else _searching(pattern)
    groups: dict[str, list[str]] = {}
    for name in names:
        layer = layer_of(name)
        if layer:
            groups.setdefault(layer, []).append(name)
    if not groups:
        raise ValueError(f"the pattern {pattern!r} matches none of {list(names)[:5]} and so on: give one that does")
    return groups


def _searching(pattern: str | re.Pattern[str]) -> Callable[[str], str | None]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the pattern {pattern!r} is no regular expression ({error}): mend it") from error

    def search(name: str) -> str | None:
        match = expression.search(name)
        return match and (".".join(part for part in match.groups() if part) or match.group())

    return search


def first_layer(layers: Iterable[str]) -> str:
    """Name the layer that sees the input: the patch projection where there is one, else the first.

    >>> first_layer(["tokens", "patch_embed", "blocks.00"])
    'patch_embed'
    """
    layers = _some(layers)
    return next((layer for layer in layers if layer.rsplit(".", 1)[-1] == "patch_embed"), layers[0])


def last_block(layers: Iterable[str]) -> str:
    """Name the deepest block before the norm and the heads.

    >>> last_block(["patch_embed", "blocks.00", "blocks.11", "norm", "projector"])
    'blocks.11'
    """
    return _trunk(layers)[-1]


def middle_block(layers: Iterable[str]) -> str:
    """Name the block halfway down: the control layer of the chance statistics.

    >>> middle_block(["patch_embed", "blocks.00", "blocks.01", "blocks.02", "norm"])
    'blocks.01'
    """
    trunk = _trunk(layers)
    return trunk[len(trunk) // 2]


def _some(layers: Iterable[str]) -> list[str]:
    layers = list(layers)
    if not layers:
        raise ValueError("no layers are given; give at least one layer name")
    return layers


def _trunk(layers: Iterable[str]) -> list[str]:
    """The blocks: indexed layers of the first such family; in a net without any, all but norm and heads."""
    layers = _some(layers)
    indexed = [layer for layer in layers if re.search(r"(^|\.)\d+$", layer)]
    if indexed:
        family = _family(indexed[0])
        return [layer for layer in indexed if _family(layer) == family]
    return [layer for layer in layers if layer not in _NORMS | _HEADS] or layers


def _family(layer: str) -> str:
    """`blocks.03` -> `blocks`; `layer4.01` -> `layer`: a ResNet's stages are one trunk."""
    return re.sub(r"\d*(\.?\d+)+$", "", layer)


def _paths(names: Sequence[str]) -> list[list[str]]:
    """Names split at the dots, without wrappers, trunks, and an unknown module that holds everything."""
    paths = [_stripped(name) for name in names]
    while paths and all(len(path) > 2 and path[0] == paths[0][0] and not path[1].isdigit() for path in paths):
        if paths[0][0] in _KNOWN or _STAGE.fullmatch(paths[0][0]):
            break
        paths = [_without_trunk(path[1:]) for path in paths]
    return paths


def _stripped(name: str) -> list[str]:
    return _without_trunk([part for part in name.split(".") if part not in _WRAPPERS] or [name])


def _without_trunk(path: list[str]) -> list[str]:
    while len(path) > 1 and path[0] in _TRUNKS and not path[1].isdigit() and path[1:] not in (["weight"], ["bias"]):
        path = path[1:]
    return path


def _classify(parts: Sequence[str], staged: bool) -> tuple[str, int, tuple[int, ...]]:
    """Layer name, rank and block indices of one parameter, given its stripped path."""
    head = parts[0]
    if head in _HEADS:
        return head, _HEAD, ()
    if staged and head in ("conv1", "bn1"):
        return "stem", _ENTRANCE, ()
    for depth, part in enumerate(parts):
        prefix = "".join(f"{word}." for word in parts[:depth] if word not in _TRUNKS | {"embeddings", "layers"})
        index = _block_indices(parts, depth)
        if index is not None:
            word = part if _STAGE.fullmatch(part) else "blocks"
            return prefix + ".".join([word, *(f"{i:02d}" for i in index)]), _BODY, index
        if part in _TOKENS:
            return prefix + ("tokens" if depth == len(parts) - 1 else "position"), _EARLY, ()
        if part in _ENTRANCES:
            return prefix + _ENTRANCES[part], _ENTRANCE, ()
        if part in ("wpe", "norm_pre", "ln_pre"):
            return prefix + ("position" if part == "wpe" else "norm_pre"), _EARLY, ()
        if part in _NORMS and depth == len(parts) - 2:
            return prefix + "norm", _NORM, ()
        if part in _HEADS and depth == 1:
            return prefix + part, _HEAD, ()
    if head == "embeddings":
        return "embed", _ENTRANCE, ()
    if len(parts) > 2 and parts[1].isdigit():  # an unknown list, `net.0.weight`
        return f"{head}.{int(parts[1]):02d}", _BODY, (int(parts[1]),)
    return head, _BODY, ()


def _block_indices(parts: Sequence[str], depth: int) -> tuple[int, ...] | None:
    """`blocks.3` -> (3,), `stages.0.blocks.3` -> (0, 3), `encoder_layer_3` -> (3,); anything else -> None."""
    inline = _INLINE_INDEX.fullmatch(parts[depth])
    if inline:
        return (int(inline[1]),)
    indices: list[int] = []
    while (
        depth + 1 < len(parts)
        and parts[depth + 1].isdigit()
        and (parts[depth] in _BLOCKS or parts[depth] == "stages" or _STAGE.fullmatch(parts[depth]))
    ):
        indices.append(int(parts[depth + 1]))
        depth += 2
    return tuple(indices) or None
