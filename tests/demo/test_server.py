"""The page's server: who is served, what is refused, whose turn it is. No request ever gets a traceback, a hang or another's picture."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import logging
import socket
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded
from page import SIZE, Answer, ask, fields, served
from PIL import Image

from robustlab.demo import connections, server
from robustlab.demo.page import Page
from robustlab.demo.server import RunningPage, application, is_local, serve_page, start_page
from robustlab.demo.starters import Starter
from robustlab.errors import UserError


@pytest.fixture(scope="module")
def page(tiny, slow) -> Page:
    return Page({"tiny": tiny, "slow": slow}, SIZE, [Starter("sketch", bytes(range(256)) * 3)], "a test")


@pytest.fixture(scope="module")
def app(page):
    return application(page)


def run(app, **changed):
    """A request for a run, within an event loop."""
    return ask(app, "POST", "/api/run", fields(**changed))


def kinds(answer: Answer) -> list[str]:
    return [line["type"] for line in answer.lines]


def picture(shade: int) -> str:
    return b64encode(bytes([shade] * 3 * SIZE * SIZE)).decode()


# What is served.


@pytest.mark.parametrize(
    "path, media", [("/", "text/html"), *((f"/static/{name}", media) for name, media in server.STATIC.items()), ("/healthz", "text/plain")]
)
def test_the_page_and_its_files(app, call, path, media):
    answer = call(app, "GET", path)
    assert answer.status == 200 and answer.headers["content-type"].startswith(media) and answer.body
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_html_has_no_inline_script_or_style(app, call):
    html = call(app, "GET", "/").body.decode()
    assert html.count("<script") == 1 and "<style" not in html and "style=" not in html and " on" + "click" not in html
    assert "http://" not in html and "https://" not in html, "nothing is loaded from elsewhere"


def test_what_the_page_needs_to_know(app, call, tiny):
    told = call(app, "GET", "/api/meta").json
    assert told["size"] == SIZE and told["starters"] == ["sketch"]
    assert [model["name"] for model in told["models"]] == ["tiny", "slow"]
    assert told["models"][0]["classes"] == list(tiny.model.classes) and told["models"][0]["attributes"][0]["name"] == "round"


def test_starters_are_bytes(app, call):
    assert call(app, "GET", "/api/starter/0").body == bytes(range(256)) * 3
    assert call(app, "GET", "/api/starter/1").status == 404


def test_a_run_is_streamed(app, call):
    answer = call(app, "POST", "/api/run", fields())
    assert answer.status == 200 and answer.headers["content-type"] == "application/x-ndjson" and answer.finished
    *frames, last = answer.lines
    assert last["type"] == "done" and last["step"] == 5 and last["in_time"]
    assert frames and all(line["type"] == "frame" for line in frames)
    steps = [line["step"] for line in frames]
    assert steps == sorted(set(steps))
    for line in answer.lines:
        assert len(b64decode(line["rgb"])) == 3 * SIZE * SIZE and line["distance"] <= 2
        assert len(line["logits"]) == 4 and len(line["levels"]) == 1


def test_looking_takes_no_steps(app, call):
    (line,) = call(app, "POST", "/api/run", fields(target=None, steps=0)).lines
    assert line["type"] == "done" and line["step"] == 0 and line["distance"] == 0


def test_pictures_are_read(app, call):
    content = io.BytesIO()
    Image.new("RGB", (50, 40), (10, 200, 30)).save(content, "PNG")
    answer = call(app, "POST", "/api/upload", content.getvalue())
    assert answer.status == 200 and answer.body == bytes((10, 200, 30)) * SIZE * SIZE


# What is refused.


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/nothing", 404),
        ("GET", "/static/../server.py", 404),
        ("GET", "/static/..%2fserver.py", 404),
        ("GET", "/static//etc/passwd", 404),
        ("GET", "/api/starter/-1", 404),
        ("GET", "/api/starter/" + "9" * 30, 404),
        ("GET", "/api/starter/" + "9" * 5000, 404),
        ("GET", "/api/starter/1e3", 404),
        ("GET", "/api/starter/%C2%B2", 404),
        ("GET", "/api/run", 405),
        ("DELETE", "/", 405),
        ("OPTIONS", "/api/run", 405),
    ],
)
def test_other_addresses(app, call, method, path, status):
    answer = call(app, method, path)
    assert (
        answer.status == status
        and answer.json["error"] in {404: ("there is nothing here", "there is no such picture"), 405: ("method not allowed",)}[status]
    )
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::2]:80"]
)
def test_other_names_for_this_machine_are_refused(app, call, host):
    """A site whose name was pointed here (DNS rebinding) asks by its own name."""
    assert call(app, "GET", "/api/meta", headers={"host": host}).status == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8765", "LOCALHOST:1", "[::1]:8765"])
def test_its_own_names_are_served(app, call, host):
    assert call(app, "GET", "/api/meta", headers={"host": host, "origin": f"http://{host.lower()}"}).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://127.0.0.1:8765.evil.example", "http://[", "x"]
)
def test_other_sites_are_refused(app, call, origin):
    assert call(app, "POST", "/api/run", fields(), {"origin": origin}).status == 403
    assert call(app, "GET", "/api/meta", headers={"origin": origin}).status == 403


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_form_is_no_run(app, call, kind):
    assert call(app, "POST", "/api/run", fields(), {"content-type": kind}).status == 415


def test_large_bodies_are_refused_announced_or_not(app, call):
    body = json.dumps(fields(image="A" * 100_000)).encode()
    headers = {"content-type": "application/json"}
    assert call(app, "POST", "/api/run", body, {**headers, "content-length": str(len(body))}).status == 413
    assert call(app, "POST", "/api/run", body, headers).status == 413
    assert call(app, "POST", "/api/run", b"{}", {**headers, "content-length": "9" * 40}).status == 413


def test_a_body_that_does_not_come_is_not_waited_for(app, monkeypatch):
    monkeypatch.setattr(server, "BODY_SECONDS", 0.05)

    async def asked() -> int:
        status = 0

        async def receive():
            await asyncio.sleep(60)

        async def send(message):
            nonlocal status
            status = message.get("status", status)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/run",
            "headers": headers,
            "query_string": b"",
            "root_path": "",
            "http_version": "1.1",
        }
        await app(scope, receive, send)
        return status

    assert asyncio.run(asked()) == 408


@pytest.mark.parametrize("changed", [{"model": "x"}, {"eps": -1}, {"image": "AAAA"}, {"steps": 10**9}, {"surprise": 1}])
def test_mistakes_are_a_sentence(app, call, changed):
    answer = call(app, "POST", "/api/run", fields(**changed))
    assert answer.status == 422 and set(answer.json) == {"error"} and "Traceback" not in answer.json["error"]


@pytest.mark.parametrize("content", [b"", b"no picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_picture_is_refused(app, call, content):
    answer = call(app, "POST", "/api/upload", content)
    assert answer.status == 422 and "no picture" in answer.json["error"]


def test_few_pictures_are_read_at_a_time(app, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(server, "decode_upload", lambda content, size, part: release.wait(20) and b"read" or b"late")

    async def all_at_once() -> list[Answer]:
        tasks = [asyncio.create_task(ask(app, "POST", "/api/upload", b"x")) for _ in range(6)]
        while sum(task.done() for task in tasks) < 4:
            await asyncio.sleep(0.01)
        release.set()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(all_at_once())
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503, 503]
    assert all(answer.headers["retry-after"] for answer in answers if answer.status == 503)


class TestToken:
    @pytest.fixture
    def app(self, page):
        return application(page, token="open-sesame-123", hosts=None)

    def test_the_page_comes_without_its_workings_do_not(self, app, call):
        assert call(app, "GET", "/").status == call(app, "GET", "/static/app.js").status == 200
        assert call(app, "GET", "/api/meta").status == call(app, "POST", "/api/run", fields()).status == 401
        assert call(app, "POST", "/api/upload", b"x").status == call(app, "GET", "/api/starter/0").status == 401

    @pytest.mark.parametrize(
        "given", ["Bearer open-sesame-12", "Bearer open-sesame-1234", "open-sesame-123", "Bearer ", "Basic x", "Bearer \u00e9"]
    )
    def test_another_is_not_enough(self, app, call, given):
        assert call(app, "GET", "/api/meta", headers={"authorization": given}).status == 401

    def test_with_it_all_is_served_by_any_name(self, app, call):
        headers = {"authorization": "Bearer open-sesame-123", "host": "gpu.cluster:9000", "origin": "http://gpu.cluster:9000"}
        assert call(app, "GET", "/api/meta", headers=headers).status == 200
        assert kinds(call(app, "POST", "/api/run", fields(), headers))[-1] == "done"
        assert call(app, "POST", "/api/run", fields(), {**headers, "origin": "http://evil.example"}).status == 403


def test_a_failure_is_told_without_its_traceback(page, call, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("secret: /home/somebody")

    monkeypatch.setattr("robustlab.demo.worker.perform", fail)
    with caplog.at_level(logging.ERROR, "robustlab.demo"):
        (line,) = call(application(page), "POST", "/api/run", fields()).lines
    assert line["type"] == "error" and "secret" not in line["message"]
    assert "secret" in caplog.text, "the terminal says more"


def test_numbers_that_json_does_not_have_are_null(page, call):
    import torch

    broken = served("broken")
    with torch.no_grad():
        broken.model.head.bias[0] = float("nan")
    app = application(Page({"broken": broken}, SIZE))
    (line,) = call(app, "POST", "/api/run", fields(model="broken", target=None, steps=0)).lines
    assert line["logits"][0] is None and line["logits"][1] is not None
    assert call(app, "POST", "/api/run", fields(model="broken", target=0)).lines[-1]["type"] == "error"


# Anything at all.

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["tiny", picture(3), 1, 0, 2.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
requests = st.dictionaries(st.sampled_from([*fields(), "attribute", "step"]) | st.text(max_size=8), junk, max_size=4).map(
    lambda some: fields() | some
)


@seeded
@given(requests)
def test_no_wrong_field_breaks_the_server(app, call, asked):
    if isinstance(asked["steps"], int):
        asked["steps"] = min(asked["steps"], 3)
    answer = call(app, "POST", "/api/run", json.dumps(asked).encode(), {"content-type": "application/json"})
    assert answer.status in (200, 422) and answer.finished
    assert answer.status == 422 or answer.lines[-1]["type"] == "done"


@seeded
@given(
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
    st.sampled_from(["/", "/api/run", "/api/upload", "/api/starter/", "/api/meta", "/static/"]),
    st.text(max_size=12),
    st.binary(max_size=60),
    st.dictionaries(
        st.sampled_from(["host", "origin", "content-type", "content-length", "authorization", "cookie", "range"]),
        st.text(st.characters(max_codepoint=255), max_size=20),
    ),
)
def test_no_request_breaks_the_server(app, call, method, path, more, body, headers):
    answer = call(app, method, path + more, body, headers)
    assert answer.finished and 200 <= answer.status < 500


# Turns.


def test_twenty_at_once_are_each_served_or_told_to_come_again(app):
    """Nobody gets another's picture: each starts from its own shade and may move no farther than eps."""

    async def all_at_once() -> list[Answer]:
        return await asyncio.gather(*(run(app, image=picture(10 * k), eps=0.5) for k in range(20)))

    answers = asyncio.run(asyncio.wait_for(all_at_once(), 30))
    assert [answer.status for answer in answers] == [200] * server.PLACES + [503] * (20 - server.PLACES)
    for k, answer in enumerate(answers):
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1
            continue
        assert answer.lines[-1]["type"] == "done" and kinds(answer).count("done") == 1
        for line in answer.lines:
            if "rgb" in line:
                assert sum((value - 10 * k) ** 2 for value in b64decode(line["rgb"])) <= (255 * 0.5) ** 2


def test_those_who_come_again_are_served(app):
    async def persistent(k: int) -> Answer:
        while (answer := await run(app, image=picture(k))).status == 503:
            await asyncio.sleep(0.02)
        return answer

    async def all_at_once() -> list[Answer]:
        return await asyncio.gather(*map(persistent, range(40)))

    answers = asyncio.run(asyncio.wait_for(all_at_once(), 60))
    assert all(answer.lines[-1]["type"] == "done" for answer in answers)


def test_the_line_is_first_come_first_served_and_says_how_long_it_is(app):
    ended: list[int] = []

    async def one(k: int) -> Answer:
        answer = await run(app, model="slow", steps=4)
        ended.append(k)
        return answer

    async def all_at_once() -> list[Answer]:
        return await asyncio.gather(*map(one, range(4)))

    answers = asyncio.run(all_at_once())
    assert ended == [0, 1, 2, 3]
    assert [line["ahead"] for line in answers[3].lines if line["type"] == "queued"] == [3, 2, 1]
    assert "queued" not in kinds(answers[0])


def test_the_newest_frame_wins(app):
    async def slow_reader() -> Answer:
        return await ask(app, "POST", "/api/run", fields(steps=60), slowly=0.05)

    answer = asyncio.run(slow_reader())
    assert kinds(answer)[-1] == "done" and len(answer.lines) < 30


def test_an_abandoned_run_frees_its_place_at_once(app):
    async def leave_then_ask() -> tuple[Answer, float, Answer]:
        begun = await ask(app, "POST", "/api/run", fields(model="slow", steps=200), leave=lambda answer: b"frame" in answer.body)
        asked = time.monotonic()
        return begun, asked, await run(app, steps=1)

    begun, asked, after = asyncio.run(leave_then_ask())
    assert not begun.finished and 1 <= len(begun.lines) <= 3
    assert kinds(after)[-1] == "done" and time.monotonic() - asked < 5.0, "the run was not made to its end, which takes six seconds"


def test_those_who_leave_the_line_are_not_waited_for(app):
    async def crowd() -> tuple[list[Answer], Answer]:
        first = asyncio.create_task(run(app, model="slow", steps=20))
        await asyncio.sleep(0.1)
        leavers = [
            ask(app, "POST", "/api/run", fields(model="slow", steps=200), leave=lambda answer: b"queued" in answer.body) for _ in range(6)
        ]
        left = await asyncio.gather(*leavers)
        patient = await run(app, steps=1)
        assert (await first).lines[-1]["type"] == "done"
        return left, patient

    begun = time.monotonic()
    left, patient = asyncio.run(crowd())
    assert all(kinds(answer) == ["queued"] for answer in left) and kinds(patient)[-1] == "done"
    assert time.monotonic() - begun < 10, "six runs of six seconds each were not made"


def test_an_answer_that_takes_too_long_is_broken_off(app, monkeypatch):
    monkeypatch.setattr(server, "RUN_SECONDS", 0.2)

    async def twice() -> tuple[Answer, Answer]:
        return await run(app, model="slow", steps=200), await run(app, steps=0, target=None)

    broken, after = asyncio.run(twice())
    assert "done" not in kinds(broken) and kinds(after)[-1] == "done"


# Over a real connection.


@pytest.fixture(scope="module")
def address(page) -> Iterator[tuple[str, int]]:
    """A server that listens, for as long as the tests run."""
    with start_page(page, "127.0.0.1", 0) as running:
        yield host_and_port(running)


def host_and_port(running: RunningPage) -> tuple[str, int]:
    host, _, port = running.address.removeprefix("http://").rstrip("/").partition(":")
    return host, int(port)


def post(address, **changed) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(*address, timeout=20)
    connection.request("POST", "/api/run", json.dumps(fields(**changed)), {"content-type": "application/json"})
    return connection


def test_frames_arrive_while_the_run_goes_on(address):
    with closing(post(address, model="slow", steps=20)) as connection:
        response, begun = connection.getresponse(), time.monotonic()
        first = json.loads(response.readline())
        early = time.monotonic() - begun
        rest = response.read().splitlines()
    assert first["type"] == "frame" and json.loads(rest[-1])["type"] == "done"
    assert early < (time.monotonic() - begun) / 2 and len(rest) > 10


def test_a_cut_connection_frees_the_place(address):
    for _ in range(2 * server.PLACES):
        connection = post(address, model="slow", steps=200)
        connection.getresponse().readline()
        connection.sock and connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
    begun = time.monotonic()
    while True:
        with closing(post(address, steps=1)) as connection:
            if (response := connection.getresponse()).status == 200:
                assert json.loads(response.read().splitlines()[-1])["type"] == "done"
                break
        assert time.monotonic() - begun < 5
        time.sleep(0.02)


def test_what_is_not_http_does_not_stop_it(address):
    for garbage in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST /api/run HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n"):
        with closing(socket.create_connection(address, timeout=5)) as connection:
            connection.sendall(garbage)
            connection.recv(1000)
    with closing(http.client.HTTPConnection(*address, timeout=5)) as connection:
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok"


def test_other_machines_need_a_token(page):
    with pytest.raises(UserError, match="`token`"):
        serve_page(page, "0.0.0.0", 0)


def asked(address: str, host: str) -> bytes:
    """What a plain request is answered, to its end."""
    name, _, port = host.rpartition(":")
    with socket.create_connection((name, int(port)), timeout=10) as talk:
        talk.sendall(f"GET {address} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        found = b""
        while part := talk.recv(65536):
            found += part
        return found


@pytest.mark.parametrize("beginning", [b"", b"GET /healthz HTTP/1.1\r\nHost: "])
def test_those_who_say_nothing_lock_nobody_out(page, beginning):
    with start_page(page, "127.0.0.1", 0) as served, contextlib.ExitStack() as stack:
        host = urlsplit(served.address).netloc
        name, _, port = host.rpartition(":")
        crowd = [stack.enter_context(socket.create_connection((name, int(port)), timeout=10)) for _ in range(140)]
        for one in crowd:
            with contextlib.suppress(OSError):  # the first are gone already
                one.sendall(beginning)
        for _ in range(5):
            assert asked("/healthz", host).startswith(b"HTTP/1.1 200")
        assert asked("/api/meta", host).startswith(b"HTTP/1.1 200")


def test_headers_that_do_not_come_are_not_waited_for(page, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    with start_page(page, "127.0.0.1", 0) as served:
        host = urlsplit(served.address).netloc
        name, _, port = host.rpartition(":")
        for beginning in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            with socket.create_connection((name, int(port)), timeout=10) as talk:
                talk.sendall(beginning)
                begun = time.monotonic()
                with contextlib.suppress(ConnectionResetError):
                    assert talk.recv(10) == b""
                assert 0.1 < time.monotonic() - begun < 5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_every_loopback_address_is_served_under_its_name(page):
    with start_page(page, "127.0.0.2", 0) as served:
        assert asked("/healthz", urlsplit(served.address).netloc).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("part", ["1", "a,b,c", "0,0,0", "0,0,2", "-1,0,1", "nan,0,1", "0,0,1,1"])
def test_a_part_that_is_none_is_refused(app, call, part):
    assert call(app, "POST", f"/api/upload?part={part}", b"x").status == 422


def test_a_film_is_a_gif(app, call):
    answer = call(app, "POST", "/api/film", bytes(3 * SIZE * SIZE) * 3)
    assert answer.status == 200 and answer.body.startswith(b"GIF89a") and answer.headers["content-type"] == "image/gif"
    assert call(app, "POST", "/api/film", b"123").status == 422
    assert call(app, "POST", "/api/film", bytes(130 * 3 * SIZE * SIZE)).status == 413


def test_a_port_in_use_is_one_sentence(page, address):
    with pytest.raises(UserError, match="cannot listen on 127.0.0.1"):
        serve_page(page, *address)


@pytest.mark.parametrize(
    "host, local",
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.9.9.9", True),
        ("0.0.0.0", False),
        ("::", False),
        ("127.evil.example", False),
    ],
)
def test_which_addresses_are_this_machine_alone(host, local):
    assert is_local(host) == local


@pytest.mark.parametrize("token", ["short", "spaces are no good", ""])
def test_a_token_that_no_address_can_carry_is_refused(page, token):
    with pytest.raises(UserError, match="token"):
        start_page(page, "0.0.0.0", 0, token=token)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_there_is_not_is_refused(page, port):
    with pytest.raises(UserError, match="a port is a number up to 65535, got"):
        start_page(page, "127.0.0.1", port)


def test_a_page_in_the_background_ends_when_it_is_told_to(page):
    with start_page(page, "127.0.0.1", 0) as running:
        address = host_and_port(running)
        assert running.address == f"http://127.0.0.1:{address[1]}/" and running.address in repr(running)
        assert f'href="{running.address}"' in running._repr_html_()
        with closing(post(address, model="slow", steps=200)) as connection:
            connection.getresponse().readline()
            begun = time.monotonic()
            running.stop()
        assert time.monotonic() - begun < 5, "the run, of six seconds, is not waited for"
    with pytest.raises(ConnectionError), closing(http.client.HTTPConnection(*address, timeout=5)) as connection:
        connection.request("GET", "/healthz")
