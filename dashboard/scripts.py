"""Scripts and styles, compressed once: the server answers a browser's first visit without compressing 9 MB for it.

Fingerprinted addresses (`…v4_1_0m17….js`, `…?m=17…`) never change what they name, so their gzip'd bytes are kept.
"""

from __future__ import annotations

__all__ = ["Packed", "prepare"]

import asyncio
import gzip
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PLACES = ("/_dash-component-suites/", "/assets/")
LEVEL = 6
MOST = 200  # files kept; a page asks for about forty
_SCRIPT = re.compile(r'(?:src|href)="(/[^"]+\.(?:js|css)[^"]*)"')


class Packed:
    """ASGI middleware that keeps the gzip'd bytes of every script and style it has once answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: dict[tuple[str, bytes], list[Message]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from what is kept, or ask the application, and keep what it says."""
        if not _wanted(scope):
            await self._app(scope, receive, send)
            return
        key = scope["path"], scope["query_string"]
        messages = self._kept.get(key)
        if messages is None:
            messages = await self._packed(scope, receive)
            if messages[0]["status"] == 200 and len(self._kept) < MOST:
                self._kept[key] = messages
        for message in messages:
            await send(message)

    async def _packed(self, scope: Scope, receive: Receive) -> list[Message]:
        heard: list[Message] = []

        async def hear(message: Message) -> None:
            heard.append(message)

        await self._app(scope, receive, hear)
        start, parts = heard[0], heard[1:]
        body = b"".join(part.get("body", b"") for part in parts)
        if start["status"] != 200:
            return heard
        small = await asyncio.to_thread(gzip.compress, body, LEVEL)
        changed = (b"content-length", b"content-encoding", b"vary")
        kept = [(name, value) for name, value in start["headers"] if name.lower() not in changed]
        told = [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding"), (b"content-length", b"%d" % len(small))]
        return [{**start, "headers": [*kept, *told]}, {"type": "http.response.body", "body": small}]


def _wanted(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(PLACES):
        return False
    headers = {name.lower(): value for name, value in scope["headers"]}
    return b"gzip" in headers.get(b"accept-encoding", b"") and b"if-none-match" not in headers


async def prepare(app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> None:
    """Ask `app` for its page, and for every script and style that the page names, so that `Packed` has them."""
    page = await _asked(app, "/", headers)
    for address in dict.fromkeys(_SCRIPT.findall(page.decode())):
        await _asked(app, address, [*headers, (b"accept-encoding", b"gzip")])


async def _asked(app: ASGIApp, address: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The body of what `app` answers to a GET."""
    path, _, query = address.partition("?")
    body, asked = b"", False

    async def once() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()  # whoever asks again wants to know of a disconnection, which never comes
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def hear(message: Message) -> None:
        nonlocal body
        body += message.get("body", b"")

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
    }
    await app(scope, once, hear)
    return body
