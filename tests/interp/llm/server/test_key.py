"""The key of a server: where it comes from, and that it is shown nowhere."""

import asyncio
import io
import logging
import traceback

import pytest

from interp.llm.server.client import ChatModel, ClientConfig
from interp.llm.types import Reply, ReplyError
from sae.core.errors import UserError
from tests.support.servers.client_questions import KEY, ask, config, question
from tests.support.servers.loopback_answers import Fault


def test_a_missing_key_is_a_user_error_for_openrouter_only(server, ledger, monkeypatch):
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENROUTER_API_KEY is not set"):
        ChatModel(ClientConfig("m"), ledger)
    ask(server, ledger, key=None)
    assert server.chats[0].headers["authorization"] == "Bearer none"


def test_the_key_comes_from_the_environment(server, ledger, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", f" {KEY}\n")
    ask(server, ledger, key=None)
    assert server.chats[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("bad", ["sk-ü", "sk-a\nb", "a b"])
def test_a_garbled_key_is_refused_without_being_shown(ledger, bad):
    with pytest.raises(UserError, match="characters that no key has") as caught:
        ChatModel(ClientConfig("m"), ledger, bad)
    assert bad not in str(caught.value)


@pytest.mark.parametrize("url", ["openrouter.ai/api", "ftp://x", "", "http://"])
def test_a_base_url_without_scheme_or_host_is_refused(url):
    with pytest.raises(UserError, match="--base-url"):
        ClientConfig("m", url)


def test_user_and_password_of_a_base_url_are_in_no_file_and_no_message(server, ledger):
    url = server.base_url.replace("http://", "http://me:geheim@")
    ask(server, ledger, base_url=url)
    ledger.close()
    assert all(b"geheim" not in p.read_bytes() for p in ledger.path.parent.iterdir())


FAULTS = ["echo", "401", "402", "403", "404", "500", "html", "broken", "drop", "error_200"]


@pytest.mark.parametrize("fault", [*FAULTS, "echo_answer", None])
def test_the_key_is_in_no_file_log_message_repr_or_traceback(server, ledger, fault, caplog):
    caplog.set_level(logging.DEBUG)
    server.always = Fault(fault) if fault else None
    shown = io.StringIO()
    try:
        model = ChatModel(config(server, n_tries=2), ledger, KEY)
        shown.write(f"{model!r} {vars(model)!r} {model._server._key!r}")
        asyncio.run(one(model))
    except (ReplyError, UserError) as error:
        shown.write(repr(error) + repr(vars(error)))
        seen: BaseException | None = error
        while seen is not None:
            assert not type(seen).__module__.startswith(("openai", "httpx"))
            seen = seen.__context__
        # Without this test's own frame, whose server has recorded the headers.
        own = error.with_traceback(error.__traceback__.tb_next)
        traceback.TracebackException.from_exception(own, capture_locals=True).print(file=shown)
    ledger.close()
    files = b"".join(p.read_bytes() for p in ledger.path.parent.iterdir())
    assert KEY not in shown.getvalue()
    assert KEY not in caplog.text
    assert KEY.encode() not in files
    assert server.chats[0].headers["authorization"] == f"Bearer {KEY}"
    if fault in ("echo", "echo_answer"):
        assert "[key]" in shown.getvalue() or b"[key]" in files


async def one(model: ChatModel) -> Reply:
    async with model:
        return await model.ask(question())
