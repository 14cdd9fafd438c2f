"""`interp review`: who may ask, what is refused; no verdict that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp.records.codec import to_json
from interp.report.gallery import build_gallery
from interp.review.server import MOST_BYTES, ReviewServer
from interp.run.results import VERDICTS
from interp.run.run import Run
from interp.run.verdicts import Review, read_reviews
from tests.support.interp.galleries import XSS, small_run
from tests.support.interp.reviewing import verdict_on
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = small_run(tmp_path_factory.mktemp("review"))
    build_gallery(Run(run))
    (run / "secret.js").write_text("not for you")
    (run / "gallery" / "link.js").symlink_to(run / "secret.js")
    return run


@pytest.fixture
def server(run_dir: Path) -> Iterator[ReviewServer]:
    (run_dir / VERDICTS).unlink(missing_ok=True)
    with serving(run_dir) as made:
        yield made


@contextlib.contextmanager
def serving(run_dir: Path, **options: Any) -> Iterator[ReviewServer]:
    made = ReviewServer(Run(run_dir), **options)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:  # a test that fails must not leave a server behind
        made.shutdown()
        thread.join()
        made.close()


def ours(server: ReviewServer) -> dict[str, str]:
    return {
        "Host": f"127.0.0.1:{server.server_port}",
        "Origin": server.origin,
        "Cookie": f"{server.cookie}={server.secret}",
        "Content-Type": "application/json",
    }


def ask(
    server: ReviewServer, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers; status 0 where the server has closed without a whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if method == "POST" and "Content-Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        with contextlib.suppress(ConnectionError):
            connection.send(body)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)
    except (ConnectionError, http.client.HTTPException):  # closed before, or within, its answer
        return 0, b"", {}
    finally:
        connection.close()


def body_of(review: Review) -> bytes:
    return json.dumps(to_json(review)).encode()


def test_a_verdict_of_the_page_is_in_the_run_when_it_is_acknowledged(
    server: ReviewServer, run_dir: Path
) -> None:
    review = verdict_on(run_dir, 0, "partly", note=XSS[0])
    status, body, _ = ask(server, "POST", "/verdicts", ours(server), body_of(review))
    assert (status, json.loads(body)["saved"]) == (200, review.id)
    assert [(one.id, one.note) for one in read_reviews(run_dir)] == [(review.id, XSS[0])]
    status, body, _ = ask(server, "GET", "/verdicts", ours(server))
    assert [one["id"] for one in json.loads(body)] == [review.id]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Host", "evil.example"),
        ("Host", "localhost"),
        ("Host", "evil.example:{port}"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "https://127.0.0.1:{port}"),
        ("Cookie", ""),
        ("Cookie", "review-{port}=guess"),
        ("Cookie", 'review-{port}="\\'),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ],
)
def test_anyone_else_is_refused_for_pages_and_for_verdicts(
    server: ReviewServer, run_dir: Path, header: str, value: str
) -> None:
    headers = ours(server) | {header: value.format(port=server.server_port)}
    body = body_of(verdict_on(run_dir, 0))
    for method, path in (("GET", "/"), ("GET", "/data/index.js"), ("POST", "/verdicts")):
        status, said, _ = ask(server, method, path, headers, body)
        assert status in (403, 421), (method, path)
        assert b"label 0" not in said
    assert read_reviews(run_dir) == []


def test_a_verdict_without_an_origin_is_refused(server: ReviewServer, run_dir: Path) -> None:
    headers = {name: value for name, value in ours(server).items() if name != "Origin"}
    assert ask(server, "POST", "/verdicts", headers, body_of(verdict_on(run_dir, 0)))[0] == 403
    assert ask(server, "GET", "/", headers)[0] == 200


def test_the_token_opens_the_page_once_and_is_then_a_cookie_no_script_can_read(
    server: ReviewServer,
) -> None:
    host = {"Host": f"127.0.0.1:{server.server_port}"}
    status, page, headers = ask(server, "GET", server.address.removeprefix(server.origin), host)
    assert status == 200
    assert b"connect-src 'self';" in page
    assert server.secret.encode() not in page
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    status, _, headers = ask(server, "GET", "/", host | {"Cookie": cookie.split(";")[0]})
    assert (status, "Set-Cookie" in headers) == (200, False)
    again = server.address.removeprefix(server.origin)
    assert ask(server, "GET", again, host)[0] == 403
    assert ask(server, "GET", again, host | {"Cookie": cookie.split(";")[0]})[0] == 200
    assert ask(server, "GET", "/?token=guess", host)[0] == 403
    assert ask(server, "GET", "/?token=%FF", host)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.js",
        "/../../secret.js",
        "/data/../../secret.js",
        "/%2e%2e/secret.js",
        "/%2e%2e%2fsecret.js",
        "/..%5csecret.js",
        "/..\\secret.js",
        "//secret.js",
        "/./../secret.js",
        "/link.js",
        "/data",
        "/data/",
        "/%00",
        "/index.html/",
        "/.lock",
        "/C:/secret.js",
        "/../run.json",
        "/verdicts.jsonl",
        "/thumbs",
    ],
)
def test_only_files_of_the_gallery_are_given_out(server: ReviewServer, path: str) -> None:
    status, body, _ = ask(server, "GET", path, ours(server))
    assert status == 404, path
    assert b"not for you" not in body


def test_bodies_that_are_large_strange_or_cut_are_refused(
    server: ReviewServer, run_dir: Path
) -> None:
    good, headers = body_of(verdict_on(run_dir, 0)), ours(server)
    large = b'{"note": "' + b"x" * (10 << 20) + b'"}'
    assert ask(server, "POST", "/verdicts", headers, large)[0] in (0, 413)
    for length, status in {"-1": 411, "1e3": 411, "": 411, "9" * 30: 413, "²": 411}.items():
        more = headers | {"Content-Length": length.encode("utf-8").decode("latin-1")}
        assert ask(server, "POST", "/verdicts", more, good)[0] == status, length
    chunked = headers | {"Transfer-Encoding": "chunked", "Content-Length": str(len(good))}
    assert ask(server, "POST", "/verdicts", chunked, good)[0] == 411
    plain = headers | {"Content-Type": "text/plain"}
    assert ask(server, "POST", "/verdicts", plain, good)[0] == 415
    for path in ("/", "/verdicts/", "/verdicts?x=1", "/data/index.js"):
        assert ask(server, "POST", path, headers, good)[0] == 404, path
    for body in (b"", b"no json", b"[]", b"{}", b'{"id": NaN}', good.replace(b"right", b"great")):
        assert ask(server, "POST", "/verdicts", headers, body)[0] == 400, body
    stale = body_of(verdict_on(run_dir, 0, label_hash="0" * 16))
    assert ask(server, "POST", "/verdicts", headers, stale)[0] == 409
    lone = good.replace(b'"note": ""', b'"note": "\\ud800"')
    assert ask(server, "POST", "/verdicts", headers, lone)[0] == 400
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert ask(server, method, "/verdicts", headers)[0] == 501
    assert not (run_dir / VERDICTS).exists()
    assert len(good) < MOST_BYTES
    assert ask(server, "POST", "/verdicts", headers, good)[0] == 200


@pytest.mark.parametrize("start", ["POST /verd", "HEADERS", "BODY"])
def test_a_request_that_drips_is_cut_off_while_others_are_answered(
    run_dir: Path, start: str
) -> None:
    with serving(run_dir, deadline=0.6) as server:
        lines = [f"{name}: {value}" for name, value in ours(server).items()]
        head = "\r\n".join(["POST /verdicts HTTP/1.1", *lines, "Content-Length: 500"])
        first = {"HEADERS": head, "BODY": head + "\r\n\r\n{"}.get(start, start)
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=8) as slow:
            slow.sendall(first.encode())
            dripping = threading.Event()

            def drip() -> None:
                with contextlib.suppress(OSError):
                    while not dripping.wait(0.05):
                        slow.sendall(b" ")

            thread = threading.Thread(target=drip, daemon=True)
            thread.start()
            assert ask(server, "GET", "/", ours(server))[0] == 200
            said, was_closed = b"", True
            try:
                while part := slow.recv(1000):  # ends: the server closes
                    said += part
            except ConnectionError:
                pass
            except TimeoutError:  # it waits for as long as one drips
                was_closed = False
            dripping.set()
            thread.join()
        assert was_closed
        assert b"200" not in said.split(b"\r\n")[0]


def test_nothing_listens_but_on_127_0_0_1(server: ReviewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in {*others, "127.0.0.2"} - {"127.0.0.1"}:
        with pytest.raises(OSError, match=r"refused|timed out"):
            socket.create_connection((address, server.server_port), timeout=2).close()


def test_a_verdict_that_the_disk_did_not_take_is_not_acknowledged(
    server: ReviewServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.EIO, "no")

    body = body_of(verdict_on(run_dir, 0))
    monkeypatch.setattr("os.fsync", full)
    status, said, _ = ask(server, "POST", "/verdicts", ours(server), body)
    assert (status, b"the disk gives an error" in said) == (400, True)
    monkeypatch.undo()
    assert ask(server, "POST", "/verdicts", ours(server), body)[0] == 200


def test_two_writers_at_once_lose_nothing(server: ReviewServer, run_dir: Path) -> None:
    sent: list[Review] = [verdict_on(run_dir, n % 2, "wrong") for n in range(40)]
    answers: list[int] = []

    def send(reviews: list[Review]) -> None:
        for one in reviews:
            answers.append(ask(server, "POST", "/verdicts", ours(server), body_of(one))[0])

    threads = [threading.Thread(target=send, args=(sent[k::4],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 40
    assert {one.id for one in read_reviews(run_dir)} == {one.id for one in sent}


def test_two_tabs_keep_both_verdicts_and_see_each_others(
    browser: Any, server: ReviewServer, run_dir: Path
) -> None:
    context = browser.new_context()
    faults: list[str] = []
    tabs = [context.new_page() for _ in range(2)]
    for tab, address in zip(tabs, (server.address, server.origin), strict=True):
        tab.on("console", lambda m: faults.append(m.text))
        tab.on("pageerror", lambda e: faults.append(str(e)))
        tab.on("dialog", lambda d: faults.append(d.message) or d.dismiss())
        tab.goto(address)
        tab.wait_for_selector(".start")
    assert "token" not in tabs[0].url
    for tab, latent, key in ((tabs[0], 0, "1"), (tabs[1], 1, "3")):
        tab.evaluate(f"location.hash = '#/{latent}'")
        tab.wait_for_selector(f"body[data-shown='{latent}']")
        tab.keyboard.press(key)
        tab.wait_for_selector(".review-told >> text=Saved in the run.")
    tabs[0].evaluate("window.dispatchEvent(new Event('focus'))")
    tabs[0].wait_for_selector("#review-tools >> text=2 of 2 reviewed")
    tabs[1].keyboard.press("u")
    while tabs[1].evaluate("G.review.unsent().length"):
        tabs[1].wait_for_timeout(20)
    tabs[0].evaluate("window.dispatchEvent(new Event('focus'))")
    tabs[0].wait_for_selector("#review-tools >> text=1 of 2 reviewed")
    tabs[1].keyboard.press("3")
    assert tabs[0].locator("[data-name=export]").count() == 0
    tabs[1].fill(".better", XSS[3])
    tabs[1].click(".note-box summary")
    tabs[1].fill(".note", XSS[0])
    tabs[1].locator(".verdict.partly").click()
    tabs[1].wait_for_selector(".review-told >> text=Saved in the run.")
    fresh = context.new_page()
    fresh.on("dialog", lambda d: faults.append(d.message) or d.dismiss())
    fresh.goto(f"{server.origin}/#/1")
    fresh.wait_for_selector("h1")
    assert fresh.text_content("h1") == XSS[3]
    assert fresh.input_value(".note") == XSS[0]
    said = {one.latent: one.verdict for one in read_reviews(run_dir)}
    assert said == {0: "right", 1: "partly"}
    context.close()
    assert faults == []


def first_card(browser: Any, server: ReviewServer) -> Any:
    page = browser.new_page()
    page.goto(server.address + "#/0")
    page.wait_for_selector("h1")
    return page


def test_what_the_server_does_not_take_is_kept_on_the_page_until_it_does(
    browser: Any, server: ReviewServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = first_card(browser, server)
    monkeypatch.setattr("interp.review.server.MOST_BYTES", 1)
    page.keyboard.press("1")
    page.wait_for_selector(".review-lost >> text=1 verdict not saved: more than 1 bytes")
    monkeypatch.setattr("interp.review.server.MOST_BYTES", MOST_BYTES)
    page.click(".again")
    page.wait_for_selector(".review-told >> text=Saved in the run.")
    assert [one.verdict for one in read_reviews(run_dir)] == ["right"]
    page.close()


class _At:
    """What `ask` and `ours` need of a server in another process."""

    def __init__(self, origin: str) -> None:
        self.origin, self.secret = origin, ""
        self.server_port = int(origin.rpartition(":")[2])
        self.cookie = f"review-{self.server_port}"


def start(run_dir: Path) -> tuple[subprocess.Popen[str], Any]:
    """The command in a process of its own, and where it answers; its token is spent."""
    command = [sys.executable, "-m", "interp", "review", "--run", str(run_dir), "--no-open"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"(http://127\.0\.0\.1:\d+)(/\?token=\S+)", line)
    assert found, line
    at: Any = _At(found[1])
    status, _, headers = ask(at, "GET", found[2], {"Host": at.origin.removeprefix("http://")})
    assert status == 200
    at.secret = headers["Set-Cookie"].split(";")[0].partition("=")[2]
    return process, at


def kill_while_writing(run_dir: Path, n_kills: int) -> None:
    (run_dir / VERDICTS).unlink(missing_ok=True)
    acknowledged: list[str] = []
    chance = random.Random(0)
    for _ in range(n_kills):
        process, at = start(run_dir)
        stop = time.monotonic() + chance.uniform(0.05, 0.5)
        killer = threading.Timer(stop - time.monotonic(), process.kill)
        killer.start()
        while process.poll() is None:
            review = verdict_on(run_dir, chance.randrange(2), "unclear", note="x" * 1500)
            with contextlib.suppress(OSError):
                if ask(at, "POST", "/verdicts", ours(at), body_of(review))[0] == 200:
                    acknowledged.append(review.id)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
    assert acknowledged
    there = [one.id for one in read_reviews(run_dir)]
    assert set(acknowledged) <= set(there)
    assert len(there) == len(set(there))


def test_killed_3_times_no_acknowledged_verdict_is_lost(run_dir: Path) -> None:
    kill_while_writing(run_dir, 3)


@pytest.mark.slow
def test_killed_20_times_no_acknowledged_verdict_is_lost(run_dir: Path) -> None:
    kill_while_writing(run_dir, 20)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly_with_a_summary(
    run_dir: Path, number: signal.Signals, code: int
) -> None:
    (run_dir / VERDICTS).unlink(missing_ok=True)
    process, at = start(run_dir)
    review = verdict_on(run_dir, 1, "wrong", better="spoke")
    assert ask(at, "POST", "/verdicts", ours(at), body_of(review))[0] == 200
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    assert "1 of 2 labels reviewed: 0 right, 0 partly, 1 wrong, 0 unclear" in out
    assert "interp score --only edited" in out
    assert at.secret not in out + (run_dir / VERDICTS).read_text()
    assert "spoke" in (run_dir / "labels.csv").read_text("utf-8-sig")
    assert sorted(run_dir.glob("*.lock")) == []


def test_the_verdict_that_was_given_last_counts_however_slow_the_one_before_is(
    browser: Any, server: ReviewServer, run_dir: Path
) -> None:
    page = first_card(browser, server)
    held: list[Any] = []

    def hold_first(route: Any) -> None:
        if route.request.method != "POST" or held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/verdicts", hold_first)
    page.keyboard.press("3")
    page.keyboard.press("1")
    page.wait_for_timeout(200)
    held[0].continue_()
    page.wait_for_selector(".review-told >> text=Saved in the run.")
    assert [one.verdict for one in read_reviews(run_dir)] == ["wrong", "right"]


def test_a_verdict_that_was_not_saved_is_not_sent_again_after_a_later_one(
    browser: Any, server: ReviewServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = first_card(browser, server)
    monkeypatch.setattr("interp.review.server.MOST_BYTES", 1)
    page.keyboard.press("3")
    page.wait_for_selector(".review-lost >> text=1 verdict not saved")
    monkeypatch.setattr("interp.review.server.MOST_BYTES", MOST_BYTES)
    page.keyboard.press("1")
    page.wait_for_selector(".review-told >> text=Saved in the run.")
    assert page.locator(".again").count() == 0
    assert [one.verdict for one in read_reviews(run_dir)] == ["right"]


def test_what_was_asked_before_a_verdict_does_not_take_it_back(
    browser: Any, server: ReviewServer, run_dir: Path
) -> None:
    page = first_card(browser, server)
    held: list[Any] = []

    def hold_answer(route: Any) -> None:
        if route.request.method == "GET":
            held.append((route, route.fetch()))  # of a time without a verdict
        else:
            route.continue_()

    page.route("**/verdicts", hold_answer)
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    while not held:
        page.wait_for_timeout(20)
    page.keyboard.press("1")
    page.wait_for_timeout(200)
    for route, answer in held:
        route.fulfill(response=answer)
    page.wait_for_timeout(200)
    page.wait_for_selector(".review-told >> text=Saved in the run.")
    assert page.get_attribute(".verdict.right", "aria-pressed") == "true"
    assert [one.verdict for one in read_reviews(run_dir)] == ["right"]
