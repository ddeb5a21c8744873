"""The attention of every layer: its largest logit and its mean entropy (nats), sampled."""

from __future__ import annotations

__all__ = ["Attention", "attention_statistics"]

import math
import warnings
from types import FunctionType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ...traces.schema import Series
from . import layer_parameters
from ._by_layer import Layers
from ._modules import layer_modules, refuse_compiled
from ._sampling import Sampling

_SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)
MAX_BYTES = 64 * 2**20  # of one temporary: some of the rows of the attention matrices at a time


def _series(name: str, doc: str, unit: str = "1") -> Series:
    return Series(name, ("layer", "step"), unit=unit, doc=doc + "; NaN: not sampled, or a layer without attention")


class Attention(Sampling):
    """`attention_logit_max: f32[L]` and `attention_entropy: f32[L]` (nats) of every layer that attends.

    The largest logit q·k·scale over all heads and pairs that the mask allows, and the entropy of the softmax rows, its
    mean over queries, heads and images. Logits that grow until the softmax is one-hot (entropy near 0) are a common way
    to diverge (Dehghani et al., arXiv 2302.05442; Zhai et al., arXiv 2303.06296).

    It looks at every call of `scaled_dot_product_attention` inside a layer's module (timm, torch, Hugging Face), and at
    attention that is written out as a softmax over the last of four dimensions, `[batch, heads, N, M]`; at every
    `every`-th step (50), in training mode with gradients on, and at the first `images` (8) of a batch: on those it is
    exact. `nn.MultiheadAttention` with `need_weights` is not seen, and reads NaN; if none is seen, a warning says so.

    - With DDP and FSDP it is this process's share of the batch; frozen layers are measured too.
    - `torch.compile`: a compiled model is refused; one compiled later has its hooks left out, and a warning says so.
    - Inf: a logit that is not finite.

    `close()` removes the hooks. Raises ValueError for `every` or `images` below 1 and a compiled model.

    Cost: q @ k and one softmax for `images` images every `every` steps, 64 MiB at a time. No host sync.

    >>> q = torch.zeros(1, 1, 4, 2)
    >>> _, entropy = attention_statistics(q, q)
    >>> round(entropy.item(), 4)  # log 4
    1.3863
    """

    series: ClassVar[tuple[Series, ...]] = (
        _series("attention_logit_max", "largest attention logit of each layer"),
        _series("attention_entropy", "mean entropy of the rows of each layer's attention", "nats"),
    )
    cost: ClassVar[str] = "q @ k and a softmax for 8 images every 50 steps"
    syncs: ClassVar[bool] = False
    of_frozen: ClassVar[bool] = True

    def __init__(self, model: nn.Module, layers: Layers | None = None, *, every: int = 50, images: int = 8) -> None:
        super().__init__(every)
        if images < 1:
            raise ValueError(f"images is {images}; it must be at least 1")
        refuse_compiled(model, "attention", "queries and keys")
        layers = layer_parameters(model) if layers is None else layers
        self.layers, self.images = tuple(layers), images
        self._seen: list[list[Tensor]] = [[] for _ in self.layers]
        self._open: list[_Listening] = []
        self._handles: list[RemovableHandle] = []
        self._warned = False
        self._modules = layer_modules(model, layers)
        for index, module in enumerate(self._modules):
            if module is not None:
                self._handles += [
                    module.register_forward_pre_hook(self._begin(index)),
                    # always_call: also when the layer raises, or the mode would stay on
                    module.register_forward_hook(self._end(index), always_call=True),
                ]

    @classmethod
    def attach(cls, model: nn.Module, optimizer: Optimizer, layers: Layers) -> Self:
        """A sensor over the modules of `layers`."""
        return cls(model, layers)

    @torch.no_grad()
    def observe(self) -> dict[str, Tensor]:
        """Both series of the attention since the last call."""
        seen, self._seen = self._seen, [[] for _ in self.layers]
        due = self.take_turn()
        seen = seen if due else self._seen  # the first step of a resumed run is looked at in any case
        if due and not any(seen) and not self._warned:
            self._warned = True
            warnings.warn(
                "foreshock: no attention was seen in this step, so attention_* stays empty: was the model compiled "
                "after watch(), or run in eval mode, or is it nn.MultiheadAttention with need_weights?",
                stacklevel=2,
            )
        device = next((parts[0].device for parts in seen if parts), torch.device("cpu"))
        missing = torch.full((2,), math.nan, device=device)
        rows = [_together(parts).to(device) if parts else missing for parts in seen]
        table = torch.stack(rows, 1).float()
        return {series.name: row for series, row in zip(self.series, table, strict=True)}

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, index: int) -> Any:
        def look(module: nn.Module, args: Any) -> None:
            if torch.compiler.is_compiling() or not (self.due and module.training and torch.is_grad_enabled()):
                return
            if module is self._modules[index]:  # not a copy of the model, which copies the hooks
                listening = _Listening(self._seen[index], self.images, index)
                listening.__enter__()
                self._open.append(listening)

        return look

    def _end(self, index: int) -> Any:
        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if self._open and self._open[-1].index == index:
                self._open.pop().__exit__(None, None, None)

        return leave


class _Listening(TorchFunctionMode):
    """Sees every call of scaled_dot_product_attention while it is on."""

    def __init__(self, seen: list[Tensor], images: int, index: int) -> None:
        super().__init__()
        self.seen, self.images, self.index = seen, images, index

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.multi_head_attention_forward:
            func = _with_global(func, scaled_dot_product_attention=self._attend)
        elif func is F.scaled_dot_product_attention:
            func = self._attend
        elif func in _SOFTMAX:
            self._look_at_softmax(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(self, *args: Any, **kwargs: Any) -> Tensor:
        result = F.scaled_dot_product_attention(*args, **kwargs)
        self._look(*args, **kwargs)
        return result

    @torch.no_grad()
    def _look(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        some = slice(self.images) if query.ndim > 3 else slice(None)
        q, k = query.detach()[some], key.detach()[some]
        if attn_mask is not None and attn_mask.ndim == query.ndim and len(attn_mask) == len(query):
            attn_mask = attn_mask.detach()[some]
        if enable_gqa:  # groups of heads share a key
            k = k.unsqueeze(-3).expand(*k.shape[:-2], q.shape[-3] // k.shape[-3], *k.shape[-2:]).flatten(-4, -3)
        with torch.autocast(q.device.type, enabled=False):
            statistics = attention_statistics(q, k, attn_mask, is_causal=is_causal, scale=scale)
        self.seen.append(torch.stack([*statistics, statistics[0].new_full((), math.prod(q.shape[:-1]))]))

    @torch.no_grad()
    def _look_at_softmax(self, input: Tensor, dim: int | None = None, *_: Any, **__: Any) -> None:  # noqa: A002
        if input.ndim == 4 and dim in (-1, 3):
            logits = input.detach()[: self.images].float()
            largest, entropy = _rows(logits)
            rows = math.prod(logits.shape[:-1])
            self.seen.append(torch.stack([largest, entropy / rows, largest.new_full((), rows)]))


def _with_global(function: Any, **values: Any) -> FunctionType:
    """The same function with other values for some of its globals.

    A mode sees `multi_head_attention_forward` as one call, and is off inside it.
    """
    copy = FunctionType(function.__code__, {**function.__globals__, **values}, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


@torch.no_grad()
def attention_statistics(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    max_bytes: int = MAX_BYTES,
) -> tuple[Tensor, Tensor]:
    """The largest logit and the mean entropy (nats) of softmax(q kᵀ scale + mask): two f32[].

    `query` is `[..., N, D]`, `key` `[..., M, D]` with the same leading dimensions; `mask` is added, or with dtype bool
    says what is allowed, as in `scaled_dot_product_attention`. A row that is masked altogether has entropy 0.

    >>> q = torch.tensor([[[2.0], [0.0]]])
    >>> largest, entropy = attention_statistics(q, q, scale=1.0)
    >>> largest.item(), round(entropy.item(), 4)
    (4.0, 0.3916)
    """
    n, m = query.shape[-2], key.shape[-2]
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if is_causal:
        mask = torch.ones(n, m, dtype=torch.bool, device=query.device).tril()
    allowed = None if mask is None else torch.broadcast_to(mask, (*query.shape[:-1], m))
    rows = max(1, max_bytes // (4 * m * max(1, math.prod(query.shape[:-2]))))
    largest, entropy = [], []
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        logits = (query[..., part, :].float() @ key.float().transpose(-1, -2)) * scale
        if allowed is not None:
            some = allowed[..., part, :]
            logits = logits.masked_fill(~some, -math.inf) if some.dtype == torch.bool else logits + some
        most, sum_ = _rows(logits)
        largest.append(most)
        entropy.append(sum_)
    return torch.stack(largest).amax(), torch.stack(entropy).sum() / math.prod(query.shape[:-1])


def _rows(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit, and the sum of the entropies of all rows."""
    # A row without any allowed key is NaN in the softmax, and attends to nothing.
    empty = (logits == -math.inf).all(-1)
    return logits.amax(), torch.special.entr(logits.softmax(-1)).sum(-1).masked_fill(empty, 0.0).sum()


def _together(parts: list[Tensor]) -> Tensor:
    """The maximum of the logits and the mean of the entropies of several calls, Inf where not finite: [2]."""
    largest, entropy, rows = torch.stack([part.to(parts[0].device) for part in parts]).unbind(1)
    values = torch.stack([largest.amax(), (entropy * rows).sum() / rows.sum()])
    return values.nan_to_num(nan=math.inf, posinf=math.inf)
