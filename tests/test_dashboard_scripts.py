"""The dashboard's scripts, compressed once: the same bytes for every browser, and an application that is asked once."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest
from browsing import wait_for
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from foreshock.dashboard.app import create_app
from foreshock.dashboard.scripts import Packed, prepare

SCRIPT = "let a = 1;\n" * 1000


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def server(asked: list[str]) -> Starlette:
    async def answer(request: Request) -> Response:
        asked.append(f"{request.url.path}?{request.url.query}")
        if "missing" in request.url.path:
            return PlainTextResponse("no such script", 404)
        return PlainTextResponse(SCRIPT + request.url.query, headers={"etag": "x", "cache-control": "max-age=9"})

    async def page(_: Request) -> Response:
        return PlainTextResponse('<script src="/assets/a.js?m=1"></script><link href="/assets/b.css?m=2">')

    routes = [Route("/", page), Route("/{rest:path}", answer)]
    return Starlette(routes=routes, middleware=[Middleware(GZipMiddleware), Middleware(Packed)])


def test_a_script_is_compressed_once_and_the_same(server: Starlette, asked: list[str]) -> None:
    client = TestClient(server)
    for _ in range(3):
        answer = client.get("/assets/a.js?m=1")
        assert (answer.status_code, answer.text) == (200, SCRIPT + "m=1")
        assert answer.headers["content-encoding"] == "gzip"
        assert int(answer.headers["content-length"]) < len(SCRIPT) / 20
        assert (answer.headers["etag"], answer.headers["cache-control"]) == ("x", "max-age=9")
    assert asked == ["/assets/a.js?m=1"]
    assert client.get("/assets/a.js?m=2").text == SCRIPT + "m=2", "another fingerprint is another file"


def test_what_is_no_packed_script_is_left_to_the_application(server: Starlette, asked: list[str]) -> None:
    client = TestClient(server)
    for _ in range(2):
        assert client.get("/assets/missing.js").status_code == 404
        plain = client.get("/assets/a.js", headers={"accept-encoding": "identity"})
        assert (plain.text, "content-encoding" in plain.headers) == (SCRIPT, False)
        assert client.get("/assets/a.js", headers={"if-none-match": "x"}).status_code == 200
        assert client.post("/assets/a.js").status_code == 405
        assert client.get("/rows.csv").text == SCRIPT
    assert len(asked) == 8


def test_a_page_is_prepared(server: Starlette, asked: list[str]) -> None:
    asyncio.run(prepare(server, [(b"host", b"localhost")]))
    assert asked == ["/assets/a.js?m=1", "/assets/b.css?m=2"]
    TestClient(server).get("/assets/a.js?m=1")
    assert len(asked) == 2


@pytest.mark.parametrize("token", ["", "a-token-of-20-chars."])
def test_the_dashboard_prepares_its_own_scripts(
    tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    compress = gzip.compress
    monkeypatch.setattr(gzip, "compress", lambda body, level: asked.append(body[:80]) or compress(body, level))
    server = create_app(tmp_path, token=token).server
    with TestClient(server, base_url="http://localhost", cookies={"foreshock-token": token}) as client:
        wait_for(lambda: len(asked) > 20, "the page's scripts are packed before anybody asks", 60)
        for name in ("map.js", "foreshock.css"):
            file = Path(__file__).parents[1] / "dashboard" / "assets" / name
            assert client.get(f"/assets/{name}?m={file.stat().st_mtime}").content == file.read_bytes()
    assert len(asked) == len(set(asked)), "each file once"
