"""Bodies of chat completions."""

USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "cost": 0.25}


def completion(content="fine", reason="stop", usage=USAGE, message=(), **choice):
    said = {"role": "assistant", "content": content, **dict(message)}
    choices = [{"index": 0, "finish_reason": reason, "message": said, **choice}]
    return {"id": "gen-1", "model": "a/b", "provider": "P", "choices": choices, "usage": usage}
