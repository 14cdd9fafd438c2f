"""Refusals and answers of a server -> the dialect to ask it in, remembered in the ledger."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

from interp.llm.ledger.ledger import Ledger
from interp.llm.replies.json_text import json_in
from interp.llm.replies.schemas import parse_object
from interp.llm.server.dialect import FORMS, INSTEAD, Dialect, Unsupported
from interp.llm.types import Question, ReplyError

_IGNORED = 2
"""Answers without any JSON, and none with, after which a provider is held to ignore schemas."""


class Ladder:
    """What a model and its server turn out to take; every refusal is one step, and none is paid."""

    def __init__(self, ledger: Ledger, scope: str) -> None:
        """`scope`: server, model and the providers it is bound to; the memory is the ledger's."""
        self._ledger = ledger
        self._name = dialect_note(scope)
        note = ledger.note(self._name)
        self.dialect = read_dialect(note)
        """What to ask with now."""
        kept = json_in(note or "")
        rooms = kept.get("rooms") if isinstance(kept, dict) else None
        self.rooms = [room for room in rooms or () if isinstance(room, int)]
        """All --max-tokens that were ever given: longer answers may be stored under them."""
        self._said = read_refusals(note)
        self._without: Counter[str | None] = Counter()
        self._with: Counter[str | None] = Counter()

    def step(self, sent: Dialect, refused: Unsupported, question: Question, tokens: int) -> bool:
        """The server refused `question`, `sent` with a bound of `tokens`. False: nothing is left.

        Questions in flight together are refused together: they make one step.
        """
        new = sent.without(refused, question, tokens)
        if new is not None:
            self._said[refused.what] = refused.error.message
            self._change(sent, new)
        return new is not None

    def note_room(self, room: int) -> None:
        """--max-tokens was given as `room`."""
        if room not in self.rooms:
            self.rooms.append(room)
            self._save()

    def think_more(self, n_tried: int) -> bool:
        """Thoughts ate their `n_tried` tokens. False when there is no more to give."""
        new = self.dialect.thinking(n_tried)
        self._change(self.dialect, new)
        return new.thoughts > n_tried

    def record_answer(self, sent: Dialect, text: str, provider: str | None) -> None:
        """An answer came: a provider that takes a schema and then ignores it is told in words."""
        if sent.form not in ("strict", "schema"):
            return
        (self._with if _has_object(text) else self._without)[provider] += 1
        if self._without[provider] >= _IGNORED and not self._with[provider]:
            self._change(sent, dataclasses.replace(sent, form="object"))

    def _change(self, old: Dialect, new: Dialect) -> None:
        """Take over the fields in which `new` differs, unless another question did meanwhile."""
        before = dataclasses.asdict(old)
        changed = {k: v for k, v in dataclasses.asdict(new).items() if v != before[k]}
        now = dataclasses.asdict(self.dialect)
        fresh = {k: v for k, v in changed.items() if now[k] == before[k]}
        if not fresh:
            return
        self.dialect = dataclasses.replace(self.dialect, **fresh)
        self._save()

    def _save(self) -> None:
        kept = {**dataclasses.asdict(self.dialect), "said": self._said, "rooms": self.rooms}
        self._ledger.set_note(self._name, json.dumps(kept))


def dialect_note(scope: str) -> str:
    """Under which name the ledger remembers the dialect for a scope."""
    return f"form {scope}"


def read_dialect(note: str | None) -> Dialect:
    """The one that was remembered; notes of the first version hold a form only."""
    if note in FORMS:
        return Dialect(form=note)
    try:
        kept = json_in(note or "{}")
        read = Dialect(**{k: v for k, v in kept.items() if k not in ("said", "rooms")})
    except (TypeError, AttributeError):
        return Dialect()
    plain = dataclasses.asdict(Dialect())
    fits = all(type(value) is type(plain[name]) for name, value in dataclasses.asdict(read).items())
    return read if fits and read.form in FORMS else Dialect()


def read_refusals(note: str | None) -> dict[str, str]:
    """What was refused, a key of `INSTEAD` each, and the server's words."""
    kept = json_in(note or "")
    said = kept.get("said") if isinstance(kept, dict) else None
    known = said.items() if isinstance(said, dict) else ()
    return {what: words for what, words in known if what in INSTEAD and isinstance(words, str)}


def _has_object(text: str) -> bool:
    try:
        parse_object(text)
    except ReplyError:
        return False
    return True
