"""The dashboard's server: `create_app(root)` gives the Dash app, `serve(root)` runs it on 127.0.0.1."""

from __future__ import annotations

__all__ = ["create_app", "serve"]

import logging
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, set_props
from fastapi import FastAPI

from .follow import Runs
from .guard import Guard, Tidy, allowed_hosts
from .live import answer, stream
from .page import page

_log = logging.getLogger("foreshock.dashboard")


def create_app(root: str | Path, *, host: str = "127.0.0.1") -> Dash:
    """The app for the runs under `root`, to be served by any ASGI server: `create_app(root).server`.

    It answers only to loopback names and to `host`, whatever address it is bound to.
    """
    runs = Runs(root)
    no_foreign_scripts: Any = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
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
    app.enable_dev_tools(debug=False)
    app.layout = lambda: page(runs.names(), str(root))
    _scripts(app)
    answer(app, runs)
    stream(app, runs)
    server: Any = app.server
    server.add_middleware(Tidy, callbacks=app.callback_map)
    server.add_middleware(Guard, hosts=allowed_hosts(host))  # added last: asked first
    return app


def serve(root: str | Path, host: str = "127.0.0.1", port: int = 8050) -> None:
    """Serve the dashboard of the runs under `root` until interrupted.

    `root` need not be there yet, but the folder that will hold it must. Raises ValueError for a folder or a port
    that cannot be.
    """
    parent = Path(root).absolute().parent
    if not parent.is_dir():
        raise ValueError(f"{root} cannot hold runs, since {parent} is not a folder: check the path.")
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is out of range: give one from 1 to 65535, such as the default 8050.")
    app = create_app(root, host=host)
    # Dash's own `run` obeys the HOST variable and leaves its child alive; uvicorn does neither.
    server: Any = app.server
    uvicorn.run(server, host=host, port=port, log_level="warning", ws_max_size=2**20)


def _failed(error: Exception) -> None:
    """A callback failed: our bug. Log it with its traceback, and say so on the page instead of standing still."""
    _log.error("a dashboard callback failed", exc_info=error)
    set_props("detail", {"children": f"The dashboard could not draw this: {type(error).__name__}. Its log says more."})


def _scripts(app: Dash) -> None:
    """The callbacks that run in the browser (assets/foreshock.js)."""
    js = partial(ClientsideFunction, "foreshock")
    charts = {"type": "panel", "name": ALL}
    on, later = app.clientside_callback, partial(app.clientside_callback, prevent_initial_call=True)
    run, spike, push = Input("run", "value"), Input("spike", "data"), Input("push", "data")
    drawn_from = [push, *(Input(name, "data") for name in ("focus", "zoom", "scheme"))]
    arrival = [Input("url", "search"), Input("run", "data"), State("run", "value")]
    on(js("compose"), Output(charts, "figure"), *drawn_from, State("schemes", "data"))
    on(js("arrive"), Output("run", "value"), Output("spike", "data"), *arrival)
    on(js("choose"), Output("want", "data"), run)
    on(js("address"), Output("wanted-focus", "data"), run, spike, push)
    on(js("tick"), Output("link", "children"), Input("clock", "n_intervals"))
    later(js("zoomed"), Output("zoom", "data"), Input(charts, "relayoutData"))
    later(js("whole"), Output("zoom", "data", allow_duplicate=True), Input("whole", "n_clicks"))
    later(js("clicked"), Output("spike", "data", allow_duplicate=True), Input(charts, "clickData"))
    later(js("pause"), Output("pause", "children"), Input("pause", "n_clicks"))
