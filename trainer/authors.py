"""Names of the published MoCo v3 checkpoints in this trainer's terms; the tensors and their order are the same.

There the projection head hangs on the backbone as `head`; here backbone and projector stand side by side.
"""

__all__ = ["from_authors"]

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


def from_authors(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """The `state_dict` of a published checkpoint (or anything else by parameter name) under the names used here.

    Load the result with `MoCoV3.load_state_dict`. Raises ValueError for a name that is not MoCo v3's.

    >>> from_authors({"module.base_encoder.head.0.weight": 1, "predictor.3.weight": 2})
    {'encoder.projector.0.weight': 1, 'predictor.3.weight': 2}
    """
    return {_rename(name): value for name, value in state_dict.items()}


def _rename(name: str) -> str:
    part, _, rest = name.removeprefix("module.").partition(".")
    if part == "predictor":
        return f"{part}.{rest}"
    if part not in ("base_encoder", "momentum_encoder"):
        raise ValueError(
            f"{name!r} is not a name of MoCo v3: base_encoder., momentum_encoder. or predictor. is expected."
        )
    encoder = "encoder" if part == "base_encoder" else part
    if rest.startswith("head."):
        return f"{encoder}.projector.{rest.removeprefix('head.')}"
    return f"{encoder}.backbone.{rest}"
