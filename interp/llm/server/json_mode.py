"""How this model and provider can be asked for JSON: the strongest form that works, remembered."""

from __future__ import annotations

from collections import Counter

from interp.llm.ledger.ledger import Ledger
from interp.llm.replies.schemas import parse_object
from interp.llm.server.chat_format import FORMS, Form
from interp.llm.types import ReplyError

_IGNORED = 2
"""Answers without any JSON, and none with, after which a provider is held to ignore schemas."""


class FormLadder:
    """strict schema -> schema -> any object, with the schema in words -> in words only."""

    def __init__(self, ledger: Ledger, scope: str) -> None:
        """`scope`: server, model and the providers it is bound to; the memory is the ledger's."""
        self._ledger = ledger
        self._name = form_note(scope)
        self._step = FORMS.index(known_form(ledger.note(self._name)))
        self._without: Counter[str | None] = Counter()
        self._with: Counter[str | None] = Counter()

    @property
    def form(self) -> Form:
        """The form to ask with now."""
        return FORMS[self._step]

    def step_down(self, form: Form) -> bool:
        """The server does not take `form`. False when there is none below it."""
        if form == FORMS[-1]:
            return False
        self._down_from(form)
        return True

    def record_answer(self, form: Form, text: str, provider: str | None) -> None:
        """An answer came: a provider that takes a schema and then ignores it is told in words."""
        if form not in ("strict", "schema"):
            return
        (self._with if _has_object(text) else self._without)[provider] += 1
        if self._without[provider] >= _IGNORED and not self._with[provider]:
            self._down_from("schema")

    def _down_from(self, form: Form) -> None:
        step = FORMS.index(form) + 1
        if step > self._step:
            self._step = step
            self._ledger.set_note(self._name, self.form)


def form_note(scope: str) -> str:
    """Under which name the ledger remembers the form for a scope."""
    return f"form {scope}"


def known_form(note: str | None) -> Form:
    """The form that was remembered; the strongest one without."""
    return next((form for form in FORMS if form == note), FORMS[0])


def _has_object(text: str) -> bool:
    try:
        parse_object(text)
    except ReplyError:
        return False
    return True
