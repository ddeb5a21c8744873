"""netCDF files, as xarray writes them: `[layer, step]` and `[step]` with units; needs xarray and h5netcdf."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..reader import Trace

__all__ = ["SUFFIXES", "write"]

SUFFIXES = (".nc", ".nc4", ".netcdf")


def write(trace: Trace, path: Path) -> None:
    """Write the trace; a name that netCDF forbids (`eval/loss`) becomes `eval.loss`, and stands in `long_name`."""
    import h5netcdf  # noqa: F401 - so that an absence is told by its name
    import h5py  # noqa: F401

    dataset = trace.to_xarray().load()
    for name in list(dataset.data_vars):
        allowed = re.sub(r"[^\w.@+-]", ".", str(name))
        if allowed != name:
            if allowed in dataset.variables:
                raise ValueError(f"{name!r} can't be named {allowed!r} in a netCDF file: there is one; rename it first")
            dataset = dataset.rename({name: allowed})
            dataset[allowed].attrs["long_name"] = str(name)
    for name in dataset.variables:
        dataset[name].encoding.clear()  # zarr's chunks and codecs mean nothing there
    for name, value in dataset.attrs.items():  # netCDF has no objects
        dataset.attrs[name] = value if isinstance(value, str | int | float) else json.dumps(value)
    dataset.to_netcdf(path, engine="h5netcdf")
