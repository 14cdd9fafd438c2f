"""A small question, its request and its reply, for a ledger."""

from interp.llm.ledger.ledger import request_of
from interp.llm.types import Picture, Question, Reply, Usage

QUESTION = Question(
    system="look",
    parts=("what is it", Picture(b"PNGDATA", "image/png")),
    schema={"type": "object", "required": ["A"]},
    schema_name="detect",
    max_tokens=100,
    temperature=0.0,
    prompt="f" * 64,
)


def request(question=QUESTION, model="m", base_url="http://x/v1", **parameters):
    return request_of(question, model, base_url, parameters)


def reply(key="k", text="{}", usd=0.5, tokens=(10, 2), stored=False):
    return Reply(text, "m", "Somewhere", Usage(*tokens, usd), "stop", key, stored=stored)
