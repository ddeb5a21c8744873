"""The dashboard's server: who gets in, what a request may name, and what a push holds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import synthetic
from browsing import served, wait_for
from pushed import unfolded
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from foreshock.dashboard import live
from foreshock.dashboard.app import create_app, serve
from foreshock.dashboard.follow import Follower, Runs
from foreshock.traces.writer import TraceWriter

HOST = "127.0.0.1:8050"
ORIGIN = f"http://{HOST}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the run `demo` and, beside the root, a run that nobody may read."""
    folder = tmp_path_factory.mktemp("served")
    synthetic.write_run(folder / "runs" / "demo")
    synthetic.write_run(folder / "secret", synthetic.make(200, 3))
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(folder / "runs").server, base_url=ORIGIN) as client:
        yield client


def load(client: TestClient, want: object, **headers: str) -> Any:
    body = {
        "output": "push.data",
        "outputs": {"id": "push", "property": "data"},
        "inputs": [{"id": "want", "property": "data", "value": want}],
        "changedPropIds": ["want.data"],
    }
    return client.post("/_dash-update-component", json=body, headers=headers)


def push_of(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return answer.json()["response"]["push"]["data"]


def test_a_run_is_sent_whole_and_then_its_tail(client: TestClient) -> None:
    push = push_of(load(client, {"run": "demo", "columns": 1000}))
    assert push["kind"] == "full"
    assert set(push["figures"]) == {"knn", "patch_projection", "heatmap", "loss", "lr", "collapse"}
    assert push["cursor"]["rows"] == 1500
    again = push_of(load(client, {"run": "demo", "columns": 1000, "cursor": push["cursor"]}))
    assert again["kind"] == "beat"
    behind = {**push["cursor"], "rows": 1400}
    tail = push_of(load(client, {"run": "demo", "columns": 1000, "cursor": behind}))
    assert (tail["kind"], tail["from"]) == ("tail", 1400)
    assert len(json.dumps(tail)) < len(json.dumps(push)) / 8


def test_a_zoomed_window_comes_finer(client: TestClient) -> None:
    cursor = push_of(load(client, {"run": "demo", "columns": 200}))["cursor"]
    asked = {"run": "demo", "columns": 200, "cursor": cursor, "window": [1000, 1050]}
    push = client.post("/columns", json=asked).json()
    assert push["kind"] == "window"
    x = unfolded(push)["heatmap"]["data"][0]["x"]
    assert {1001, 1002, 1003} <= set(x)
    assert len(x) < 300


def test_the_first_picture_comes_before_the_page_is_there(client: TestClient) -> None:
    asked = {"run": "demo", "columns": 300, "layers": ["norm"], "scale": "z"}
    ahead = client.post("/picture", json=asked).json()
    assert ahead == push_of(load(client, asked))
    assert ahead == client.post("/picture", json={**asked, "cursor": ahead["cursor"]}).json(), "always the whole"
    for wrong, status in ((b"{", 400), (b"7", 204), (b'{"run": "../secret"}', 204), (b"x" * 2_000_000, 413)):
        assert client.post("/picture", content=wrong).status_code == status
    assert client.post("/picture", json=asked, headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[" * 60_000, 400), (b"x" * 2_000_000, 413), (b"null", 204), (b"7", 204),
        (b"{}", 204),
        (b'{"run": "../secret", "window": [0, 9]}', 204), (b'{"run": "demo"}', 204),
        (b'{"run": "demo", "window": [null, 9]}', 204), (b'{"run": "demo", "window": [9e9, -9e9]}', 200),
    ],
)  # fmt: skip
def test_wrong_questions_for_columns_get_a_clean_answer(client: TestClient, body: bytes, status: int) -> None:
    answer = client.post("/columns", content=body)
    assert answer.status_code == status
    assert len(answer.content) < 200 or status == 200
    assert client.post("/columns", content=body, headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "name", ["../secret", "/etc", "..", "", "demo/../../secret", "demo\0", "DEMO", "secret", "./demo", "%2e%2e/secret"]
)
def test_only_listed_names_are_runs(client: TestClient, folder: Path, name: str) -> None:
    for run in (name, str(folder / "secret")):
        push = push_of(load(client, {"run": run}))
        assert (push["kind"], push["state"]) == ("none", "not found")
        assert "figures" not in push


def test_a_link_out_of_the_root_is_no_run(folder: Path) -> None:
    root = folder / "linked"
    root.mkdir()
    (root / "way-out").symlink_to(folder / "secret", target_is_directory=True)
    assert Runs(root).names() == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "localhost@evil.example"])
def test_foreign_hosts_are_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 403
    assert load(client, {"run": "demo"}, host=host).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"http://{HOST}.evil.example", "http://127.0.0.1:9"])
def test_foreign_origins_are_refused(client: TestClient, origin: str) -> None:
    assert load(client, {"run": "demo"}, origin=origin).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect) as refusal,
        client.websocket_connect("/_dash-ws-callback", headers={"origin": origin, "host": HOST}),
    ):
        pass
    assert refusal.value.code == 4003


def test_foreign_hosts_are_refused_a_websocket(client: TestClient) -> None:
    headers = {"origin": "http://evil.example", "host": "evil.example"}  # a rebound name: the two agree
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/_dash-ws-callback", headers=headers):
        pass


TOKEN = "a-secret-of-some-length"


def test_a_token_is_asked_for_once_and_kept_in_a_cookie(folder: Path) -> None:
    app = create_app(folder / "runs", host="0.0.0.0", token=TOKEN).server
    with TestClient(app, base_url="http://box.example:8050", follow_redirects=False) as client:
        for path in ("/", "/?token=", "/?token=wrong", "/assets/foreshock.js", "/_dash-layout"):
            answer = client.get(path)
            assert (answer.status_code, len(answer.text) < 120) == (401, True), path
        assert load(client, {"run": "demo"}).status_code == 401
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/_dash-ws-callback"):
            pass
        welcome = client.get(f"/?view=run&token={TOKEN}&run=demo")
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/?view=run&run=demo")
        cookie = welcome.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/").status_code == 200
        assert push_of(load(client, {"run": "demo"}))["kind"] == "full"
        assert load(client, {"run": "demo"}, origin="http://evil.example").status_code == 403


@pytest.mark.parametrize(("host", "token"), [("0.0.0.0", ""), ("10.0.0.7", ""), ("0.0.0.0", "short")])
def test_other_addresses_need_a_token(folder: Path, host: str, token: str) -> None:
    with pytest.raises(ValueError, match="makes one"):
        serve(folder, host=host, token=token)


def test_own_addresses_get_in(client: TestClient) -> None:
    for host in ("localhost:8050", "127.0.0.1:1234", "[::1]:8050"):
        assert client.get("/", headers={"host": host}).status_code == 200
        assert load(client, {"run": "demo"}, host=host, origin=f"http://{host}").status_code == 200


@pytest.mark.parametrize(
    "want",
    [
        None, 7, [], "demo", {"run": 7}, {"run": ["demo"]}, {"run": "demo", "columns": "many"},
        {"run": "demo", "columns": 10**9}, {"run": "demo", "columns": True}, {"run": "demo", "cursor": 5},
        {"run": "demo", "cursor": {"epoch": 1, "rows": -5, "width": 0}}, {"run": "demo", "window": "all"},
        {"run": "demo", "window": [None, 3]}, {"run": "demo", "window": [5, 5]}, {"run": "demo", "window": [1e300, 4]},
        {"run": "demo", "window": [-1e9, -1e8]}, {"run": "demo", "window": [1e9, 2e9]},
        {"run": "demo", "layers": "norm"}, {"run": "demo", "layers": [7, None, "x" * 1000, "norm"]},
        {"run": "demo", "layers": ["a"] * 10_000}, {"run": "demo", "scale": "loud"}, {"run": "demo", "scale": ["z"]},
    ],
)  # fmt: skip
def test_wrong_types_get_a_clean_answer(client: TestClient, want: object) -> None:
    answer = load(client, want)
    assert answer.status_code == 200
    assert push_of(answer)["kind"] in ("full", "none")
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("spike", ["nonsense", "patch_embed@", "patch_embed@-3", "@5", "patch_embed@9e9", "x" * 500])
def test_a_spike_that_is_none_is_said_to_be_none(client: TestClient, spike: object) -> None:
    body = {
        "output": "focus.data",
        "outputs": {"id": "focus", "property": "data"},
        "inputs": [{"id": "wanted-focus", "property": "data", "value": {"run": "demo", "event": spike}}],
        "changedPropIds": ["wanted-focus.data"],
    }
    answer = client.post("/_dash-update-component", json=body)
    assert answer.status_code == 200
    assert "no spike is called" in answer.text


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"output": 5}', b'{"output": "nothing.here"}', b'{"output": ["a"]}',
     b'{"output": "push.data", "inputs": 5}', b'{"output": "push.data", "inputs": [5]}',
     b'{"output": "push.data", "inputs": [{"id": "want"}]}', b'{"output": "push.data", "inputs": []}',
     b'{"output": "push.data", "inputs": [{"id": "want", "property": "data"}], "changedPropIds": [3]}',
     b'{"output": "push.data", "inputs": [{"id": "want", "property": "data"}], "outputs": 3}',
     b"[" * 100_000, b"x" * 2_000_000],
)  # fmt: skip
def test_malformed_requests_are_refused_in_a_sentence(client: TestClient, body: bytes) -> None:
    answer = client.post("/_dash-update-component", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "Traceback" not in answer.text
    assert len(answer.text) < 120


@pytest.mark.parametrize(
    "value",
    [None, 7, {"run": "demo"}, {"run": "demo", "layer": 5}, {"run": "demo", "layer": "nothing"}, {"run": "../x"}],
)
@pytest.mark.parametrize("store", ["want-evidence", "want-settings", "want-runs", "want-compare"])
def test_the_views_answer_anything(client: TestClient, store: str, value: object) -> None:
    listed = client.get("/_dash-dependencies").json()
    found = next(item for item in listed if item["inputs"][0]["id"] == store and not item["clientside_function"])
    names = [part for part in found["output"].strip(".").split("...") if part]
    outputs = [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names]
    body = {
        "output": found["output"],
        "outputs": outputs if len(outputs) > 1 else outputs[0],
        "inputs": [{"id": store, "property": "data", "value": value}],
        "state": [{**state, "value": None} for state in found["state"]],
        "changedPropIds": [f"{store}.data"],
    }
    answer = client.post("/_dash-update-component", json=body)
    assert answer.status_code in (200, 204), answer.text
    assert "could not draw" not in answer.text


def test_nothing_comes_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert re.findall(r'(?:src|href)="(?:https?:)?//', page.text) == []
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert '"ui":false' in page.text  # no debug tools


def test_host_variable_is_ignored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    with served(folder / "runs") as address:
        port = int(address.rsplit(":", 1)[1].strip("/"))
        listening = Path("/proc/net/tcp").read_text() if Path("/proc/net/tcp").exists() else f"0100007F:{port:04X}"
        assert f"0100007F:{port:04X}" in listening
        assert f"00000000:{port:04X}" not in listening
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
            assert b" 403 " in line.recv(100)


def stream_id(client: TestClient) -> str:
    dependencies = client.get("/_dash-dependencies").json()
    return next(item["output"] for item in dependencies if item["inputs"][0]["id"] == "attach")


def attach(socket: Any, callback: str, data: object) -> None:
    inputs = [{"id": "attach", "property": "data", "value": data}]
    payload = {"output": callback, "outputs": [], "inputs": inputs, "changedPropIds": ["attach.data"]}
    socket.send_json({"type": "callback_request", "requestId": "1", "rendererId": "r", "payload": payload})


def pushes(socket: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Bytes and content of every push that comes in."""
    while True:
        text = socket.receive_text()
        messages = json.loads(text)
        for message in messages if isinstance(messages, list) else [messages]:
            if message["type"] == "set_props" and message["payload"]["componentId"] == "push":
                yield len(text), message["payload"]["props"]["data"]


def test_the_socket_sends_only_the_tail(tmp_path: Path) -> None:
    made = synthetic.make(3000)
    with (
        synthetic.open_writer(tmp_path / "a", made) as writer,
        TestClient(create_app(tmp_path).server, base_url=ORIGIN) as client,
    ):
        synthetic.append(writer, made, slice(0, 1900))
        writer.flush()
        whole = load(client, {"run": "a", "columns": 1000})
        push = push_of(whole)
        with client.websocket_connect("/_dash-ws-callback", headers={"origin": ORIGIN, "host": HOST}) as socket:
            attach(socket, stream_id(client), {"run": "a", "page": "p", "columns": 1000, "cursor": push["cursor"]})
            synthetic.append(writer, made, slice(1900, 1910))  # calm rows: no event changes
            writer.flush()
            size, message = next(found for found in pushes(socket) if found[1]["kind"] != "beat")
        assert message["kind"] == "tail"
        assert message["from"] == 1900
        columns = message["figures"]["heatmap"]["data"][0]["x"]
        assert len(columns) <= 10 // message["cursor"]["width"] + 1
        assert size < 6_000 < len(whole.content) / 10  # 14 layers, 4 panels
        assert message["figures"]["heatmap"]["layout"] is None


def test_pages_that_hold_the_same_are_answered_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    real = live.update
    monkeypatch.setattr(live, "update", lambda *question: asked.append(question) or real(*question))
    monkeypatch.setattr("foreshock.dashboard.follow.REFRESH_S", 1e9)  # one moment of the run
    cursor = push_of(load(client, {"run": "demo", "columns": 700}))["cursor"] | {"rows": 1400}
    asked.clear()
    answers = [push_of(load(client, {"run": "demo", "columns": 700, "cursor": cursor})) for _ in range(5)]
    assert all(answer == answers[0] and answer["from"] == answers[0]["from"] for answer in answers)
    assert len(asked) == 1
    push_of(load(client, {"run": "demo", "columns": 900, "cursor": cursor}))
    assert len(asked) == 2


@pytest.mark.parametrize(
    "data", [None, 5, {"run": "../secret", "page": "p"}, {"run": "demo"}, {"run": "demo", "page": 3}]
)
def test_a_stream_for_nothing_ends_at_once(client: TestClient, data: object) -> None:
    with client.websocket_connect("/_dash-ws-callback", headers={"origin": ORIGIN, "host": HOST}) as socket:
        attach(socket, stream_id(client), data)
        answer = json.loads(socket.receive_text())
        assert answer["type"] == "callback_response"
        assert answer["payload"]["status"] in ("ok", "prevent_update")


def test_a_follower_sees_growth_truncation_and_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreshock.dashboard.follow.REFRESH_S", 0.0)
    made = synthetic.make(1500)
    path = tmp_path / "a"
    writer = synthetic.open_writer(path, made)
    synthetic.append(writer, made, slice(0, 1200))
    writer.flush()
    follower = Follower("a", path)
    seen = follower.snapshot()
    assert (seen.rows, seen.state) == (1200, "running")
    assert {spike.onset for spike in seen.spikes if spike.layer == "patch_embed"} == {619, 1011}
    synthetic.append(writer, made, slice(1200, 1500))
    writer.close()
    later = follower.snapshot()
    assert (later.rows, later.state, later.epoch) == (1500, "finished", seen.epoch)
    assert len(later.spikes) > len(seen.spikes)
    synthetic.open_writer(path, made, resume_at=900).close("failed", "RuntimeError: loss is NaN")
    back = follower.snapshot()
    assert (back.rows, back.state) == (900, "failed")
    assert "loss is NaN" in back.message
    assert back.epoch != seen.epoch
    assert max(spike.onset for spike in back.spikes) < 900
    shutil.rmtree(path)
    assert follower.snapshot().state == "deleted"


def test_a_follower_finds_what_the_whole_search_finds(tmp_path: Path) -> None:
    from foreshock.probes.spikes import find_spikes
    from foreshock.traces.reader import open_trace

    path = synthetic.write_run(tmp_path / "a")
    assert list(Follower("a", path).snapshot().spikes) == sorted(find_spikes(open_trace(path)), key=lambda s: s.onset)


def test_nobody_waits_for_the_search_of_a_long_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foreshock.probes.spikes import find_spikes
    from foreshock.traces.reader import open_trace

    for name, value in {"AT_ONCE": 0, "CHUNK": 256 * 14, "REST_S": 0.05, "REFRESH_S": 0.0}.items():
        monkeypatch.setattr(f"foreshock.dashboard.follow.{name}", value)
    path = synthetic.write_run(tmp_path / "a")
    follower = Follower("a", path)
    first = follower.snapshot()
    assert first.searched < 1
    assert first.rows == 1500
    shares = [first.searched]
    wait_for(lambda: shares.append(follower.snapshot().searched) or shares[-1] == 1.0, "the search ends")
    assert shares == sorted(shares)
    assert len(set(shares)) > 2
    last = follower.snapshot()
    assert list(last.spikes) == sorted(find_spikes(open_trace(path)), key=lambda s: s.onset)
    assert last.dips


def searches(parents: set[int]) -> set[int]:
    """The processes that search for spikes, started by one of `parents`."""
    listed = subprocess.check_output(["ps", "-eo", "pid,ppid,args"], text=True).splitlines()[1:]
    told = [line.split(None, 2) for line in listed]
    return {int(pid) for pid, parent, args in told if "dashboard.searching" in args and int(parent) in parents}


def children() -> set[int]:
    told = subprocess.check_output(["ps", "-eo", "pid,ppid"], text=True).splitlines()[1:]
    return {int(pid) for pid, parent in map(str.split, told) if int(parent) == os.getpid()}


@pytest.mark.skipif(not Path("/proc").exists(), reason="kills a process by its number")
def test_a_search_that_is_killed_says_so_and_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AT_ONCE": 0, "CHUNK": 0, "REST_S": 0.2, "REFRESH_S": 0.0, "RETRY_S": 0.5}.items():
        monkeypatch.setattr(f"foreshock.dashboard.follow.{name}", value)
    follower = Follower("a", synthetic.write_run(tmp_path / "a"))
    wait_for(lambda: 0 < follower.snapshot().searched < 1, "the search has begun")
    os.kill(searches({os.getpid()}).pop(), signal.SIGKILL)
    wait_for(lambda: "was ended from outside (signal SIGKILL)" in follower.snapshot().message, "it says so")
    wait_for(lambda: follower.snapshot().searched == 1.0, "it has begun again, and ends")
    assert follower.snapshot().message == ""
    assert follower.snapshot().spikes


def test_a_search_ends_with_its_server(tmp_path: Path) -> None:
    made = np.random.default_rng(0).lognormal(0, 0.1, (150, 30_000))
    with TraceWriter(tmp_path / "a", layers=[f"blocks.{i:03d}" for i in range(150)]) as writer:
        writer.extend(np.arange(30_000), {"grad_norm": made})
    begun: set[int] = set()
    with served(tmp_path) as address:
        body = {
            "output": "push.data",
            "outputs": {"id": "push", "property": "data"},
            "inputs": [{"id": "want", "property": "data", "value": {"run": "a"}}],
            "changedPropIds": ["want.data"],
        }
        kind = {"content-type": "application/json"}
        urlopen(Request(f"{address}_dash-update-component", json.dumps(body).encode(), kind)).close()
        wait_for(lambda: begun.update(searches(children())) or begun, "the search has begun", 20)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in begun), "it has ended with the server", 20)


def test_the_dashboard_starts_without_torch() -> None:
    code = "import sys, foreshock.dashboard.app, foreshock.dashboard.report; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
