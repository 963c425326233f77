"""Batches in which many examples have the same row: it is there once, and so are its products.

What is linear in one side of a join can be computed before the join (Chen et al. 2017,
arXiv:1612.07448; for neural networks arXiv:2011.11682). Here the join is the batch: the distinct
rows X of its images are multiplied, and what is gathered for the examples is X W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

NARROW = 32  # numbers of a product
Change = Callable[[torch.Tensor], torch.Tensor]


def spread(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows [u, ...] for the examples, int64 [b] -> [b, ...]. The gradient of a row is the sum over
    its examples in their order: the same each time, on every device."""
    if not (rows.requires_grad and torch.is_grad_enabled()):
        return rows.index_select(0, index)
    found: torch.Tensor = _Spread.apply(rows, index)  # type: ignore[no-untyped-call]
    return found


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.shape = rows.shape
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (index,), (gradient,) = ctx.saved_tensors, gradients
        ordered, order = index.sort(stable=True)
        begin = torch.searchsorted(ordered, torch.arange(ctx.shape[0], device=index.device))
        # bags add in the order given; atomic additions of index_add_ come in another one each time
        summed = torch.embedding_bag(gradient.reshape(len(index), -1), order, begin, mode=0)[0]
        return summed.view(ctx.shape), None


def distinct_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct rows [u] in the order in which they come first, which is the same for all tables of
    the same images, and which of them each example has, int64 [b]."""
    found, index = rows.unique(return_inverse=True)
    places = torch.arange(len(rows), device=rows.device)
    first = torch.empty_like(found).scatter_reduce_(0, index, places, "amin", include_self=False)
    order = first.argsort()
    rank = torch.empty_like(order)
    rank[order] = places[: len(order)]
    return found[order], rank[index]


def product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`functional.linear` of rows [u, d] with a weight [out, d]."""
    if len(weight) > NARROW:
        return functional.linear(rows, weight, bias)
    # few numbers a row: this way round takes a third less, forwards and backwards
    products = (weight @ rows.t()).t().contiguous()
    return products if bias is None else products + bias.to(products.dtype)


class Columns:
    """Some columns of a batch: rows [u, d], and which of them each example has, int64 [b]; None
    where row i is example i's."""

    def __init__(self, rows: torch.Tensor, index: torch.Tensor | None = None) -> None:
        self.rows, self.index = rows, index
        self.width, self.dtype = rows.shape[1], rows.dtype

    def times(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Columns:
        """Their products [b, out] with a weight [out, d]."""
        if self.index is not None:
            for seen in _watching:
                seen.append(len(self.rows))
        return self.each(lambda rows: product(rows, weight, bias))

    def each(self, change: Change) -> Columns:
        """After a change of each row alone."""
        return Columns(change(self.rows), self.index)

    def whole(self) -> torch.Tensor:
        """With a row for each example, [b, d]."""
        return self.rows if self.index is None else spread(self.rows, self.index)


class SharedRows(torch.Tensor):
    """A matrix [b, d] of columns side by side, some of which have few distinct rows.

    Those are what `linear` multiplies and elementwise functions change; `cat` puts more columns
    beside them. Any other function of torch is given the matrix itself, as if there were no such
    class: a component computes the same whether it knows of this or not.
    """

    columns: Sequence[Columns]

    @staticmethod
    def __new__(cls, columns: Sequence[Columns], like: torch.Tensor) -> SharedRows:
        """Args: like: a tensor of as many examples, on the same device."""
        shape = (len(like), sum(own.width for own in columns))
        made: SharedRows = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, shape, dtype=columns[0].dtype, device=like.device
        )
        made.columns = columns
        return made

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in _DESCRIBING:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs)
        own = _OWN.get(function)
        found = own(function, *args, **kwargs) if own is not None else None
        if found is not None:
            return found
        return function(*_whole_of(args), **{name: _whole_of(one) for name, one in kwargs.items()})

    # torch asks for it; functions that it would be given were given the matrix above
    __torch_dispatch__ = __torch_function__  # type: ignore[assignment]


def share(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows [u, d] of which each example has the one that `index`, int64 [b], says."""
    return SharedRows([Columns(rows, index)], index)


def whole(values: torch.Tensor) -> torch.Tensor:
    """A plain tensor of what may be shared rows, and is none any more: it may be changed in place
    by whoever is given it."""
    if not isinstance(values, SharedRows):
        return values
    parts = [own.whole() for own in values.columns]
    matrix = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    values.columns = [Columns(matrix)]
    return matrix


@contextmanager
def watching() -> Iterator[list[int]]:
    """How many distinct rows are multiplied meanwhile, a number for each product of shared rows."""
    seen: list[int] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


_watching: list[list[int]] = []


def _linear(
    function: Any, given: Any, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor | None:
    if not isinstance(given, SharedRows):
        return None
    first, *rest = given.columns
    weights = weight.split([own.width for own in given.columns], dim=1) if rest else (weight,)
    product = first.times(weights[0], bias)
    if not rest:
        return SharedRows([product], given)
    total = product.whole()
    for own, part in zip(rest, weights[1:], strict=True):
        total.add_(own.times(part, None).whole())  # into what a product or a gathering just made
    return total


def _cat(function: Any, tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor | None:
    if dim not in (1, -1) or any(one.ndim != 2 for one in tensors):
        return None
    columns: list[Columns] = []
    for one in tensors:
        columns += one.columns if isinstance(one, SharedRows) else [Columns(one)]
    return SharedRows(columns, tensors[0]) if len({own.dtype for own in columns}) == 1 else None


def _elementwise(function: Any, given: Any, *args: Any, **kwargs: Any) -> torch.Tensor | None:
    if not isinstance(given, SharedRows) or kwargs.get("inplace"):
        return None
    columns = [own.each(lambda rows: function(rows, *args, **kwargs)) for own in given.columns]
    return SharedRows(columns, given)


def _whole_of(argument: Any) -> Any:
    if isinstance(argument, list | tuple):
        return type(argument)(_whole_of(one) for one in argument)
    return whole(argument) if isinstance(argument, SharedRows) else argument


_DESCRIBING = {
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.ndim.__get__,  # type: ignore[attr-defined]
    torch.Tensor.dtype.__get__,  # type: ignore[attr-defined]
    torch.Tensor.device.__get__,  # type: ignore[attr-defined]
    torch.Tensor.__len__,
    torch.Tensor.dim,
    torch.Tensor.size,
}
_OWN: dict[Any, Callable[..., torch.Tensor | None]] = {
    functional.linear: _linear,
    torch.cat: _cat,
    **dict.fromkeys(
        (
            torch.Tensor.float,
            torch.tanh,
            torch.relu,
            functional.relu,
            torch.sigmoid,
            torch.Tensor.sigmoid,
            torch.Tensor.tanh,
        ),
        _elementwise,
    ),
}
