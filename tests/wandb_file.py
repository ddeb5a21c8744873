"""Writes a W&B offline run as its own tool lays one out: a log in blocks of 32 KiB, of protocol buffer records."""

import json
import zlib
from pathlib import Path

from foreshock.traces.convert._wire import integer, message


def item(key: str, value: object) -> bytes:
    return message(1, message(1, key.encode()) + message(16, json.dumps(value).encode()))


def history(row: dict, step: int) -> bytes:
    items = b"".join(item(key, value) for key, value in row.items())
    return message(2, items + message(2, integer(1, step)))


def config(values: dict) -> bytes:
    return message(17, message(4, b"".join(item(key, value) for key, value in values.items())))


def write_wandb(path: Path, records: list[bytes]) -> None:
    """Cut the records into chunks that never cross a block: whole ones, or a first, middle ones and a last."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        rest, first = record, True
        while rest or first:
            left = 32_768 - len(out) % 32_768
            if left < 7:
                out += bytes(left)
                continue
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = (1 if not rest else 2) if first else (3 if rest else 4)
            check = zlib.crc32(bytes([kind]) + part)
            out += check.to_bytes(4, "little") + len(part).to_bytes(2, "little") + bytes([kind]) + part
            first = False
    path.write_bytes(out)
