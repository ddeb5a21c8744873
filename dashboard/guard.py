"""The door: only requests that name this server's own address, and come from a page it served itself, get in.

Without it a foreign page could read runs through the visitor's browser (cross-site WebSocket hijacking, DNS
rebinding): Dash checks neither Host nor Origin of a callback. Where others on the network can reach the server, a token
is asked for too: once in the address, then in a cookie.
"""

from __future__ import annotations

__all__ = ["LEAST_TOKEN", "Guard", "Tidy", "allowed_hosts", "cookie", "is_loopback"]

import hmac
import json
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CALLBACKS = "/_dash-update-component"
_LARGEST = 2**20
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LEAST_TOKEN = 16  # characters
_COOKIE = "foreshock-token"

# Everything is served from here, so a page needs no other address; plotly and dash write inline styles and scripts.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def allowed_hosts(host: str) -> frozenset[str]:
    """The names a request may give in Host: the loopback ones, and the bound address unless it means "any".

    >>> "0.0.0.0" in allowed_hosts("0.0.0.0"), "10.0.0.7" in allowed_hosts("10.0.0.7")
    (False, True)
    """
    given = host.strip("[]").lower()
    return frozenset(LOOPBACK) | ({given} if given not in ("", "0.0.0.0", "::") else set())  # noqa: S104


def cookie(token: str) -> bytes:
    """The value of the Cookie header of one who has been let in with `token`."""
    return f"{_COOKIE}={token}".encode()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to `host`.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    return host.strip("[]").lower() in LOOPBACK


class Guard:
    """ASGI middleware: 403 for a Host that is not in `hosts`, or an Origin that is not Host's own.

    With a `token` any Host will do, since a page under another name has no cookie; 401 without the token.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str = "") -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal, status = self._refusal(scope), 403
        if refusal is None and self._token and not self._known(scope):
            if scope["type"] == "http" and self._given(scope):
                await self._welcome(scope)(scope, receive, send)
                return
            refusal, status = "Open the address with ?token=… as the server printed it.", 401
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4003, "reason": refusal})
        else:
            await PlainTextResponse(refusal, status_code=status)(scope, receive, send)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())

    def _known(self, scope: Scope) -> bool:
        """Whether the request brings the cookie."""
        for key, value in scope["headers"]:
            if key.lower() == b"cookie":
                try:
                    morsel = SimpleCookie(value.decode("latin-1")).get(_COOKIE)
                except CookieError:
                    continue
                if morsel is not None and self._is_token(morsel.value):
                    return True
        return False

    def _given(self, scope: Scope) -> bool:
        asked = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        return scope["method"] == "GET" and self._is_token(asked.get("token", ""))

    def _welcome(self, scope: Scope) -> RedirectResponse:
        """The same address without the token, which would stay in the history, and the cookie."""
        rest = [(key, value) for key, value in parse_qsl(scope["query_string"].decode("latin-1")) if key != "token"]
        answer = RedirectResponse(f"{scope['path']}?{urlencode(rest)}".rstrip("?"), status_code=303)
        answer.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict", path="/")
        return answer

    def _refusal(self, scope: Scope) -> str | None:
        headers = [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"]]
        hosts = [value for key, value in headers if key == "host"]
        origins = [value for key, value in headers if key == "origin"]
        if len(hosts) != 1 or (not self._token and _hostname(f"//{hosts[0]}") not in self._hosts):
            return "This address is not one that the dashboard serves: open it under localhost."
        if len(origins) > 1 or any(urlsplit(origin).netloc.lower() != hosts[0].lower() for origin in origins):
            return "This request comes from another site."
        return None


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # a malformed one, such as an unclosed bracket
        return None


def _with_headers(send: Send) -> Send:
    async def wrapped(message: dict) -> None:  # type: ignore[type-arg]
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return wrapped  # type: ignore[return-value]


class Tidy:
    """ASGI middleware: 400 in one sentence for a callback request that Dash would answer with a server error."""

    def __init__(self, app: ASGIApp, callbacks: Mapping[str, object]) -> None:
        self._app = app
        self._callbacks = callbacks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or answer it here."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(_CALLBACKS):
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        wrong = "The request is too large." if body is None else self._wrong(scope, body)
        if wrong is not None:
            await PlainTextResponse(wrong, status_code=400)(scope, receive, send)
            return
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    def _wrong(self, scope: Scope, body: bytes) -> str | None:
        kinds = [value for key, value in scope["headers"] if key.lower() == b"content-type"]
        if not any(kind.lower().startswith(b"application/json") for kind in kinds):
            return "The request is not application/json."
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return "The request is not JSON."
        output = data.get("output") if isinstance(data, dict) else None
        if not isinstance(output, str) or output not in self._callbacks:
            return "The request names no callback of this page."
        return None if _well_formed(data) else "The request's inputs are not a list of id, property and value."


async def _body(receive: Receive) -> bytes | None:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _LARGEST:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _well_formed(data: Mapping[str, object]) -> bool:
    """Whether inputs and state are flat lists of `{id, property, value}`, and what changed a list of names."""
    changed = data.get("changedPropIds", [])
    if not isinstance(changed, list) or not all(isinstance(name, str) for name in changed):
        return False
    for part in (data.get("inputs", []), data.get("state", [])):
        if not isinstance(part, list) or not all(isinstance(item, dict) and _named(item) for item in part):
            return False
    return bool(data.get("inputs")) and isinstance(data.get("outputs", {}), (dict, list))


def _named(item: Mapping[str, object]) -> bool:
    return isinstance(item.get("id"), (str, dict)) and isinstance(item.get("property"), str)
