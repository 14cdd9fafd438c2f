"""Bodies without an end, redirects, proxies and certificates."""

import shutil
import ssl
import subprocess
import warnings

import pytest

from interp.llm.cost.model_list import fetch_models
from interp.llm.server.wire import connect, find_proxy
from sae.core.errors import Notice, UserError
from tests.support.servers.client_questions import KEY, ask, error_of
from tests.support.servers.raw import (
    ANSWER,
    drop_by_drop,
    for_ever,
    gzip_answer,
    gzip_bomb,
    head,
    raw,
    send_packed,
)
from tests.support.servers.socks import closed_port

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
REMOTE = "https://api.example.org/v1"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    for name in (*PROXIES, *map(str.lower, PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "lists"))


@pytest.mark.parametrize("send", [for_ever, gzip_bomb])
def test_a_body_without_an_end_is_cut_at_a_cap(ledger, send):
    with raw(send) as server:
        found = error_of(server, ledger, n_tries=2, most_bytes=500_000)
        assert (found.kind, found.message) == ("broken_body", "the body has no end within 0.5 MB")
        with pytest.raises(UserError, match=r"no end within 8 MB"):
            fetch_models(server.base_url, None)


def test_the_deadline_holds_from_the_first_byte_to_the_last(ledger):
    with raw(drop_by_drop) as server:
        found = error_of(server, ledger, n_tries=2, timeout=0.5, deadline=0.5)
        assert found.kind == "timeout"
        with pytest.raises(UserError, match=r"did not list its models in 0.5 s"):
            fetch_models(server.base_url, None, timeout=0.5)


def test_packed_answers_are_unpacked(ledger):
    with raw(gzip_answer) as server:
        assert ask(server, ledger).text == "fine"


@pytest.mark.parametrize("how", ["gzip, gzip", "br", "Zstd"])
def test_what_is_packed_as_was_not_asked_for_is_refused_unopened(ledger, how):
    with raw(lambda request: send_packed(request, how, b"?")) as server:
        found = error_of(server, ledger, n_tries=2)
        said = f"the body is packed as '{how}', which was not asked for"
        assert (found.kind, found.message) == ("broken_body", said)
        with pytest.raises(UserError, match=f"{said}; check --base-url"):
            fetch_models(server.base_url, None)


def test_a_name_that_is_no_way_to_pack_means_a_plain_body(ledger):
    with raw(lambda request: send_packed(request, "utf-8, identity", ANSWER)) as server:
        assert ask(server, ledger).text == "fine"


def redirect(status, target):
    return lambda request: request.sendall(
        head(status, f"Location: {target}", "Content-Length: 0", "Connection: close")
    )


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_refused_by_name_and_nothing_goes_there(
    ledger, status, server
):
    away = server.base_url.replace("127.0.0.1", "localhost") + "/chat/completions"
    with raw(redirect(status, away)) as first:
        with pytest.raises(
            UserError, match=rf"redirects \({status}\) to localhost.*--base-url http"
        ):
            ask(first, ledger)
        with pytest.raises(UserError, match=r"to localhost: nothing was sent there"):
            fetch_models(first.base_url, KEY)
    assert server.requests == []


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_on_the_same_host_keeps_method_and_body(server, ledger, status):
    server.moved = {"/v1/chat/completions": (status, "/v2/chat/completions")}
    assert ask(server, ledger).text
    assert [chat.path for chat in server.chats] == ["/v2/chat/completions"]


def test_redirects_in_a_circle_end(server, ledger):
    server.moved = {"/v1/chat/completions": (308, "/v1/chat/completions")}
    with pytest.raises(UserError, match=r"in a circle"):
        ask(server, ledger)


def test_a_query_in_the_base_url_stays_a_query(server, ledger):
    class At:
        base_url = f"{server.base_url}?api-version=2026-01-01"

    assert ask(At, ledger).text
    assert server.chats == []  # the path has a query behind it
    (request,) = server.requests
    assert request.path == "/v1/chat/completions?api-version=2026-01-01"


def test_a_key_over_plain_http_to_a_stranger_is_warned_about(monkeypatch):
    def heard(url, has_key):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            connect(url, "k" * 20, 1.0, has_key=has_key)
        return [str(one.message) for one in said if one.category is Notice]

    (words,) = heard("http://api.example.org/v1", True)
    assert "plain http" in words
    assert heard("http://api.example.org/v1", False) == []
    assert heard("http://127.0.0.1:8000/v1", True) == []
    assert heard("https://api.example.org/v1", True) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:7890", "no kind of proxy"),
        ("all_proxy", "socks4://127.0.0.1:7890", "no kind of proxy"),
        ("HTTPS_PROXY", "http://127.0.0.1:99999", "no URL"),
        ("HTTPS_PROXY", "http://", "no host"),
        ("https_proxy", "ftp://me:secret@127.0.0.1:1", "no kind of proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_with_its_variable(monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name} is set to .*{words}") as caught:
        find_proxy(REMOTE)
    assert caught.value.exit_code == 2
    assert "secret" not in str(caught.value)
    for own in ("http://127.0.0.1:9/v1", "http://localhost/v1", "http://10.0.0.7/v1"):
        assert find_proxy(own) is None


def test_socks_works_where_its_package_is_there_and_names_it_where_not(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:7890")
    monkeypatch.setattr("interp.llm.server.wire.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ALL_PROXY is set to .*pip install socksio"):
        find_proxy(REMOTE)
    monkeypatch.setattr("interp.llm.server.wire.find_spec", lambda name: object())
    assert find_proxy(REMOTE).variable == "ALL_PROXY"


@pytest.mark.parametrize("entry", ["*", "example.org", ".example.org", "api.example.org"])
def test_no_proxy_is_heeded(monkeypatch, entry):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    assert find_proxy(REMOTE).variable == "HTTPS_PROXY"
    monkeypatch.setenv("NO_PROXY", f"other.org,{entry}")
    assert find_proxy(REMOTE) is None
    monkeypatch.setenv("NO_PROXY", "8.8.0.0/16")
    assert find_proxy("https://8.8.4.4/v1") is None


def test_proxies_are_passed_by_for_this_machine(server, ledger, monkeypatch):
    for name, value in (
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
    ):
        monkeypatch.setenv(name, value)
    assert ask(server, ledger).text


def test_a_proxy_that_is_gone_is_named_at_once(ledger, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{closed_port()}")

    class Away:
        base_url = "http://api.example.org/v1"

    with pytest.raises(
        UserError, match=r"the proxy http://127.0.0.1.* that HTTP_PROXY names"
    ) as said:
        ask(Away, ledger)
    assert "secret" not in str(said.value)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("SSL_CERT_FILE", lambda path: None),
        ("SSL_CERT_FILE", lambda path: path.mkdir()),
        ("SSL_CERT_FILE", lambda path: path.write_text("no certificate")),
        ("SSL_CERT_DIR", lambda path: None),
    ],
)
def test_a_variable_of_certificates_that_is_wrong_is_named(monkeypatch, tmp_path, name, make):
    make(tmp_path / "authority.pem")
    monkeypatch.setenv(name, str(tmp_path / "authority.pem"))
    with pytest.raises(UserError, match=f"{name}=.*mend or unset it") as caught:
        connect(REMOTE, "none", 1.0, has_key=False)
    assert caught.value.exit_code == 2
    connect("http://127.0.0.1:1/v1", "none", 1.0, has_key=False)  # nothing to certify


@pytest.fixture
def certified(tmp_path):
    """A certificate of our own for 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    names = [str(tmp_path / name) for name in ("cert.pem", "key.pem")]
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=here"]
    made = [
        "openssl",
        *words,
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-out",
        names[0],
        "-keyout",
        names[1],
    ]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*names)
    return context, names[0]


def test_a_certificate_that_nobody_trusts_is_said_at_once_and_ssl_cert_file_cures_it(
    ledger, certified, monkeypatch
):
    context, authority = certified
    with raw(gzip_answer, context) as server:
        plain = server.base_url
        server.base_url = plain.replace("http://", "https://")
        with pytest.raises(
            UserError, match=r"certificate of 127.0.0.1 is not trusted.*SSL_CERT_FILE"
        ):
            ask(server, ledger)
        with pytest.raises(UserError, match=r"SSL_CERT_FILE"):
            fetch_models(server.base_url, None)
        monkeypatch.setenv("SSL_CERT_FILE", authority)
        assert ask(server, ledger).text == "fine"
        server.base_url = plain
        with pytest.raises(UserError, match=r"speaks https and not http; try --base-url https://"):
            ask(server, ledger)


def test_https_to_a_port_of_plain_http_is_said_at_once(server, ledger):
    class Wrong:
        base_url = server.base_url.replace("http://", "https://")

    with pytest.raises(UserError, match=r"does not speak https there; try --base-url http://127"):
        ask(Wrong, ledger)


def test_what_another_sdk_reads_from_the_environment_is_not_sent(server, ledger, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-server")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "ümlaut")
    ask(server, ledger)
    assert "org-of-another-server" not in str(server.chats[0].headers)
