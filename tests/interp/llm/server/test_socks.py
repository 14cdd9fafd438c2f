"""SOCKS5: explain's client through a real proxy, and what it says of one that is of no use."""

from __future__ import annotations

import pytest

from interp.llm.cost.model_list import fetch_models
from sae.core.errors import UserError
from tests.support.servers.client_questions import ask
from tests.support.servers.socks import Socks, closed_port


class Away:
    """A server that no name server knows: only the proxy leads there."""

    base_url = "http://api.example.invalid/v1"


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_questions_and_lists_go_through_a_socks_proxy_which_looks_up_the_name(
    server, ledger, monkeypatch, scheme
):
    with Socks(port=int(server.origin.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("socks5", scheme))
        assert ask(Away, ledger).text
        assert fetch_models(Away.base_url, None)
        assert set(proxy.asked) == {"api.example.invalid:80"}
    assert [chat.headers["Host"] for chat in server.chats] == ["api.example.invalid"]


def test_this_machine_is_asked_without_the_socks_proxy(server, ledger, monkeypatch):
    with Socks() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert ask(server, ledger).text
    assert proxy.asked == []


def test_a_socks_proxy_that_is_gone_or_refuses_is_one_line(ledger, monkeypatch):
    named = r"the proxy socks5://127.0.0.1:\d+ that ALL_PROXY names"
    monkeypatch.setenv("ALL_PROXY", f"socks5://me:secret@127.0.0.1:{closed_port()}")
    with pytest.raises(UserError, match=named) as gone:
        ask(Away, ledger)
    with pytest.raises(UserError, match=named) as unlisted:
        fetch_models(Away.base_url, None)
    with Socks(refusal=5) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        with pytest.raises(UserError, match=f"{named} does not let us through") as refused:
            ask(Away, ledger)
    for said in map(str, (gone.value, unlisted.value, refused.value)):
        assert "\n" not in said
        assert "secret" not in said
        assert "unset it" in said
