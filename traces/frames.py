"""A trace as other libraries hold it: an xarray dataset, or a pandas frame with a row a step; units as in the trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .schema import EVENTS

if TYPE_CHECKING:
    import pandas
    import xarray

    from .reader import Trace

__all__ = ["as_dataset", "as_frame"]


def as_dataset(trace: Trace) -> xarray.Dataset:
    """See `Trace.to_xarray`."""
    try:
        import xarray
    except ImportError as error:
        raise ImportError("to_xarray() needs xarray: pip install 'foreshock[xarray]'") from error
    stored = xarray.open_zarr(trace._snapshot.store, consolidated=True, chunks=None)
    dataset = stored.drop_vars(["scalars", EVENTS], errors="ignore").assign_coords(layer=list(trace.layers))
    for row, name in enumerate(trace.scalars):
        dataset[name] = stored["scalars"].isel(scalar=row)
    for name in dataset.variables:
        if unit := trace.units.get(str(name)):
            dataset[name].attrs["units"] = unit
    return dataset.assign_attrs(name=trace.name, status=trace.status)


def as_frame(trace: Trace, series: str | None, start: int, stop: int | None) -> pandas.DataFrame:
    """See `Trace.to_frame`."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_frame() needs pandas: pip install pandas") from error
    start, stop, _ = slice(start, stop).indices(len(trace))
    if series is not None:
        values = trace.read(series, start=start, stop=stop)
        columns = {series: values} if values.ndim == 1 else dict(zip(trace.layers, values, strict=True))
    else:
        columns = {name: trace.read(name, start=start, stop=stop) for name in trace.scalars}
        for name in trace.series:
            values = trace.read(name, start=start, stop=stop)
            columns |= {f"{name}/{layer}": values[row] for row, layer in enumerate(trace.layers)}
    return pandas.DataFrame(columns, index=pandas.Index(trace.steps[start:stop], name="step"))
