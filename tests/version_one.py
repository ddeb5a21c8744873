"""Turns a trace into one of format version 1: no checksums, scalars in short chunks, remarks in the root document."""

import json
import shutil
from pathlib import Path

import zarr

from foreshock.traces import open_trace


def make_version_one(path: Path) -> None:
    """Rewrite the trace at `path` as version 1 laid it out."""
    events = open_trace(path).events
    root = json.loads((path / "zarr.json").read_text())
    members = root["consolidated_metadata"]["metadata"]
    del members["events"]
    _cut_scalars(path, members["scalars"])
    for chunk in [file for file in path.rglob("*") if file.is_file() and "c" in file.relative_to(path).parts]:
        chunk.write_bytes(chunk.read_bytes()[:-4])
    for file in (path / "events").rglob("*"):
        if file.is_file():
            file.unlink()
    for folder in sorted((path / "events").rglob("*"), reverse=True):
        folder.rmdir()
    (path / "events").rmdir()
    for name, document in members.items():
        if document["node_type"] == "array":
            assert document["codecs"].pop() == {"name": "crc32c"}
            (path / name / "zarr.json").write_text(json.dumps(document))
    root["attributes"] |= {"format_version": 1, "events": events}
    (path / "zarr.json").write_text(json.dumps(root))


def _cut_scalars(path: Path, document: dict) -> None:
    """Cut the chunks of 4,096 rows into four of 1,024."""
    values = zarr.open_array(path / "scalars", mode="r")[:]
    shutil.rmtree(path / "scalars" / "c")
    document["chunk_grid"]["configuration"]["chunk_shape"] = [32, 1024]
    (path / "scalars" / "zarr.json").write_text(json.dumps(document))
    # write_empty_chunks: a chunk of the first 32 scalars may not be missing
    zarr.open_array(path / "scalars", mode="r+", config={"write_empty_chunks": True})[:] = values
