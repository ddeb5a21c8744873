"""The dashboard's server: `create_app(root)` gives the Dash app, `serve(root)` runs it on 127.0.0.1."""

from __future__ import annotations

__all__ = ["create_app", "serve"]

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, set_props
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from ..traces.places import is_url, location_of
from .follow import Runs
from .guard import LEAST_TOKEN, Guard, Tidy, allowed_hosts, cookie, is_loopback
from .live import answers
from .page import page
from .rows import register_rows
from .scripts import Packed, prepare
from .views import views

# Asked for before anything else, compiled beside the download: it is the largest script, and the charts wait for it.
_PLOTLY = '<script async id="plotly" src="/_dash-component-suites/plotly/package_data/plotly.min.js"></script>'
_AHEAD = Path(__file__).parent / "ahead.js"
_MAKE_ONE = "python -c 'import secrets; print(secrets.token_urlsafe())'"
_log = logging.getLogger("foreshock.dashboard")


def create_app(root: str | Path, *, host: str = "127.0.0.1", token: str = "") -> Dash:
    """The app for the runs under `root`, to be served by any ASGI server: `create_app(root).server`.

    It answers only to loopback names and to `host`, whatever address it is bound to; with a `token` to any name, but
    only to those who have it.
    """
    runs = Runs(root)

    @asynccontextmanager
    async def ready(server: Any) -> AsyncIterator[None]:
        known = [(b"host", b"localhost"), (b"cookie", cookie(token))]
        packing = asyncio.create_task(prepare(server, known))
        yield
        packing.cancel()

    no_foreign_scripts: Any = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=ready)
    for address, respond in answers(runs).items():
        no_foreign_scripts.router.add_route(address, respond, methods=["POST"])  # before Dash takes every address
    untouched: Any = None  # the window's title while a callback runs
    app = Dash(
        __name__,
        server=no_foreign_scripts,
        backend="fastapi",
        websocket_callbacks=False,  # only the stream is: the rest must work where no websocket does
        websocket_inactivity_timeout=0,
        title="foreshock",
        update_title=untouched,
        serve_locally=True,
        assets_folder=str(Path(__file__).parent / "assets"),
        on_error=_failed,
        add_log_handler=False,
        meta_tags=[{"name": "color-scheme", "content": "light dark"}],
    )
    first = f"<script>{_AHEAD.read_text(encoding='utf-8')}</script>{_PLOTLY}"
    app.index_string = app.index_string.replace("<html>", '<html lang="en">').replace("{%css%}", first + "{%css%}")
    app.enable_dev_tools(debug=False)
    app.layout = lambda: page(runs.names(), str(root))
    _scripts(app)
    for view in views().values():
        view.register(app, runs)
    server: Any = app.server
    register_rows(server, runs)
    server.add_middleware(Tidy, callbacks=app.callback_map)
    server.add_middleware(Packed)
    server.add_middleware(GZipMiddleware, minimum_size=2000, compresslevel=1)
    server.add_middleware(Guard, hosts=allowed_hosts(host), token=token)  # added last: asked first
    return app


def serve(root: str | Path, host: str = "127.0.0.1", port: int = 8050, token: str = "") -> None:
    """Serve the dashboard of the runs under `root` until interrupted.

    `root` need not be there yet, but the folder that will hold it must. Raises ValueError for a folder or a port
    that cannot be, and for a `host` that others can reach without a `token` of at least 16 characters.
    """
    parent = Path(root).absolute().parent
    if not (is_url(location_of(root)) or parent.is_dir()):
        raise ValueError(f"{root} cannot hold runs, since {parent} is not a folder: check the path.")
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is out of range: give one from 1 to 65535, such as the default 8050.")
    if token and len(token) < LEAST_TOKEN:
        raise ValueError(f"the token has {len(token)} characters: give at least {LEAST_TOKEN}, {_MAKE_ONE} makes one.")
    if not is_loopback(host) and not token:
        raise ValueError(
            f"--host {host} lets others on the network read the runs: give --token TEXT too ({_MAKE_ONE} makes one), "
            f"or leave --host out."
        )
    app = create_app(root, host=host, token=token)
    print(f"http://{host}:{port}/" + (f"?token={token}" if token else ""), flush=True)
    # Dash's own `run` obeys the HOST variable and leaves its child alive; uvicorn does neither.
    server: Any = app.server
    uvicorn.run(server, host=host, port=port, log_level="warning", ws_max_size=2**20)


def _failed(error: Exception) -> None:
    """A callback failed: our bug. Log it with its traceback, and say so on the page instead of standing still."""
    _log.error("a dashboard callback failed", exc_info=error)
    set_props("detail", {"children": f"The dashboard could not draw this: {type(error).__name__}. Its log says more."})


def _scripts(app: Dash) -> None:
    """The callbacks that run in the browser (assets/hooks.js)."""
    js = partial(ClientsideFunction, "foreshock")
    each_view = {"type": "view", "name": ALL}
    on, later = app.clientside_callback, partial(app.clientside_callback, prevent_initial_call=True)

    def value(*names: str) -> list[Input]:
        return [Input(name, "value") for name in names]

    def data(*names: str) -> list[Input]:
        return [Input(name, "data") for name in names]

    on(
        js("compose"),
        *data("push", "focus", "evidence", "signals", "comparison", "scheme"),
        State("schemes", "data"),
    )
    places = [Output("run", "value"), Output("event", "data"), Output("view", "data"), Output("layers", "value")]
    places += [Output(name, "value") for name in ("scale", "compared", "by", "axis")]
    on(js("arrive"), *places, Input("url", "search"), *data("run"))
    on(js("choose"), Output("want", "data"), *value("run", "layers", "scale"), *data("view"))
    versus = ("compared", "by", "axis")
    told = data("event", "view", "push")
    on(js("address"), Output("wanted-focus", "data"), *value("run", "layers", "scale", *versus), *told)
    on(js("show"), Output(each_view, "hidden"), *data("view"))
    on(js("tick"), Output("link", "children"), Input("clock", "n_intervals"))
    held = State("runs-grid", "rowData")
    on(js("wantRuns"), Output("want-runs", "data"), *data("view"), Input("clock", "n_intervals"), held)
    on(js("wantEvidence"), Output("want-evidence", "data"), *data("view", "push"), *value("run", "lag-layer"))
    again, shown = Input("clock", "n_intervals"), State("comparison", "data")
    on(js("wantCompare"), Output("want-compare", "data"), *data("view"), *value(*versus), again, shown)
    later(js("selected"), Output("compare-selected", "children"), Input("runs-grid", "selectedRows"))
    on(js("wantSettings"), Output("want-settings", "data"), *data("view", "push"), *value("run"))
    later(
        js("search"),
        Output("runs-grid", "dashGridOptions"),
        *value("runs-search"),
        State("runs-grid", "dashGridOptions"),
    )
