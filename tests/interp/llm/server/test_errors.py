import json

import pytest

from interp.llm.server.dialect import Unsupported
from interp.llm.server.error_body import retry_after
from interp.llm.server.errors import failure
from interp.llm.types import ReplyError
from sae.core.errors import BUDGET, USAGE, UserError


def error(code, message, **metadata):
    return {"error": {"code": code, "message": message, "metadata": metadata}}


def reason(status, body, headers=None):
    return failure(status, body, headers or {}, "some/model")


STOPS = [
    (401, error(401, "No auth credentials found"), USAGE, "check OPENROUTER_API_KEY"),
    (402, error(402, "Insufficient credits"), BUDGET, "add credit, then run the same command"),
    (402, error(402, "no", limit_source="openrouter_key_limit"), BUDGET, "limit of the key"),
    (402, error(402, "no", error_type="payment_required"), BUDGET, "no credit left"),
    (402, {"error": {"message": "Insufficient Balance"}}, BUDGET, "no credit left"),
    (403, error(403, "Key limit exceeded (total limit)"), BUDGET, "limit of the key"),
    (403, error(403, "no", limit_source="openrouter_guardrail_budget"), BUDGET, "its budget"),
    (403, error(403, "no", limit_source="openrouter_workspace_budget"), BUDGET, "its budget"),
    (404, error(404, "No endpoints found for some/model"), USAGE, "nothing answers for model"),
    (404, {"detail": "Not Found"}, USAGE, "--base-url"),
    (404, "<html>nginx</html>", USAGE, "end in /v1"),
    (405, {"detail": "Method Not Allowed"}, USAGE, "end in /v1"),
    (410, {"error": "the model is retired"}, USAGE, "retired"),
    (400, error(400, "foo/bar is not a valid model ID"), USAGE, "interp models"),
    (
        404,
        {"error": {"message": 'model "x" not found, try pulling it first'}},
        USAGE,
        "try pulling",
    ),
    (400, {"detail": "the model some/model does not exist"}, USAGE, "check --model"),
    (429, {"error": {"type": "insufficient_quota", "message": "quota"}}, BUDGET, "allowance"),
    (429, error(429, "Rate limit exceeded: free-models-per-day"), BUDGET, "wait for it"),
]
BLIND = [
    (404, error(404, "No endpoints found that support image input")),
    (404, error(404, "none", failed_routing_step="Filter by Image Support")),
    (500, error(500, "image input is not supported - hint: you may need to provide the mmproj")),
    (400, {"object": "error", "message": "some/model is not a multimodal model", "code": 400}),
    (400, error(400, "At most 0 image(s) may be provided in one prompt.")),
    (400, error(400, "unknown variant `image_url`, expected `text`")),
    (400, error(400, "Provider returned error", raw='{"message": "Images are not supported"}')),
    (422, {"detail": [{"msg": "Only 'text' content type is supported.", "loc": ["body"]}]}),
    (400, error(400, "This model does not support image inputs.")),
]
ROUTES = [
    ("No allowed providers are available for the selected model.", "--provider"),
    ("No endpoints found matching your data policy (Zero data retention)", "--zdr"),
    ("No endpoints available matching your guardrail restrictions and data policy", "--zdr"),
    ("No endpoints found with the requested quantization", "--quantization"),
]
ENDED = [
    (400, error(400, "bad", error_type="invalid_image"), "bad_request", "cannot read a picture"),
    (400, error(400, "big", error_type="image_too_large"), "bad_request", "smaller pictures"),
    (413, "<html>413 Request Entity Too Large</html>", "bad_request", "smaller pictures"),
    (400, error(400, "images in webp format are not supported"), "bad_request", "webp"),
    (400, error(400, "this model does not support image formats like webp"), "bad_request", "webp"),
    (400, error(400, "long", error_type="context_length_exceeded"), "bad_request", "context"),
    (400, error(400, "This model's maximum context length is 9"), "bad_request", "context"),
    (400, error(400, "cut", error_type="max_tokens_exceeded"), "truncated", "cut"),
    (402, error(402, "x", reason="weight_exceeds_budget"), "bad_request", "lower max_tokens"),
    (402, error(402, "x", limit_source="openrouter_in_flight_budget"), "in_flight", "x"),
    (402, error(402, "given your current in-flight requests"), "in_flight", "in-flight"),
    (402, error(402, "Provider returned error", provider_name="P"), "server", "P"),
    (403, error(403, "no", reasons=["violence"], flagged_input="..."), "moderated", "no"),
    (403, error(403, "Request blocked", patterns=["ignore all"]), "moderated", "blocked"),
    (403, error(403, "Your input was flagged"), "moderated", "flagged"),
    (400, error(400, "no", error_type="content_policy_violation"), "moderated", "no"),
    (400, {"error": {"code": "content_filter", "message": "filtered"}}, "moderated", "filtered"),
    (403, error(403, "no", error_type="permission_denied"), "forbidden", "no"),
    (403, "<html>Just a moment...</html>", "html", "a page of HTML"),
    (404, error(404, "Provider returned error", provider_name="P"), "server", "P"),
    (422, {"detail": [{"loc": ["body", "n"], "msg": "too small"}]}, "bad_request", "body.n"),
    (429, error(429, "slow down", provider_code="rate_limited"), "rate_limit", "rate_limited"),
    (429, error(429, "You exceeded your current quota"), "rate_limit", "quota"),
    (408, error(408, "late"), "server", "408: late"),
    (409, error(409, "conflict"), "server", "409"),
    (500, "Internal Server Error", "server", "Internal Server Error"),
    (500, {"error": {"code": 500, "message": "Failed to parse input"}}, "server", "parse"),
    (502, error(502, "Provider returned error", raw={"message": "upstream"}), "server", "upstream"),
    (503, error(503, "No provider is up"), "overloaded", "503"),
    (504, error(504, "late", error_type="timeout"), "server", "504"),
    (504, "<html>Gateway Timeout</html>", "timeout", "504"),
    (524, "", "timeout", "524"),
    (529, {"type": "error", "error": {"type": "overloaded_error"}}, "overloaded", "overloaded"),
]
FORMS = [
    (404, error(404, "No endpoints found that can handle the requested parameters.")),
    (404, error(404, "none", failed_routing_step="Filter by Parameters")),
    (400, error(400, "Provider returned error", raw='{"error": {"message": "Invalid schema"}}')),
    (400, {"error": {"message": "'response_format.type' must be text"}}),
    (422, {"detail": "Unexpected fields in the request: {'response_format'}"}),
]


@pytest.mark.parametrize(("status", "body", "code", "words"), STOPS)
def test_what_no_waiting_cures_ends_the_run_with_a_remedy(status, body, code, words):
    found = reason(status, body)
    assert isinstance(found, UserError)
    assert found.exit_code == code
    assert words in str(found)


@pytest.mark.parametrize(("status", "body"), BLIND)
def test_a_model_without_eyes_ends_the_run_and_names_the_list_of_others(status, body):
    found = reason(status, body)
    assert isinstance(found, UserError)
    assert "'some/model' does not take images" in str(found)
    assert "interp models" in str(found)


def test_llama_server_without_a_projector_is_told_how_to_start():
    assert "start the server with --mmproj" in str(reason(*BLIND[2]))


@pytest.mark.parametrize(("message", "option"), ROUTES)
@pytest.mark.parametrize("status", [404, 503])
def test_a_route_with_nobody_left_names_the_option_that_closed_it(status, message, option):
    found = reason(status, error(status, message))
    assert isinstance(found, UserError)
    assert option in str(found)


@pytest.mark.parametrize(("status", "body", "kind", "words"), ENDED)
def test_a_failed_question_has_a_kind_and_the_words_of_the_server(status, body, kind, words):
    found = reason(status, body)
    assert isinstance(found, ReplyError)
    assert (found.kind, words in found.message) == (kind, True), found


@pytest.mark.parametrize(("status", "body"), FORMS)
def test_a_form_that_is_not_taken_is_no_failure(status, body):
    assert isinstance(reason(status, body), Unsupported)


def test_a_limit_of_pictures_names_the_option_that_raises_it():
    found = reason(400, error(400, "At most 1 image(s) may be provided in one prompt."))
    assert isinstance(found, Unsupported)
    assert "--limit-mm-per-prompt" in found.error.message


def test_the_sizes_of_llama_server_are_shown():
    body = {
        "code": 400,
        "message": "the request exceeds the available context size",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 4119,
        "n_ctx": 4096,
    }
    found = reason(400, {"error": body})
    assert found.kind == "bad_request"
    assert "n_prompt_tokens 4119; n_ctx 4096" in found.message


INNER = {"code": 429, "message": "Upstream is busy"}


@pytest.mark.parametrize(
    "body",
    [
        {"error": INNER},
        INNER,
        [{"error": INNER}],
        {"error": [INNER]},
        {"error": {"error": INNER}},
        {"detail": {"error": INNER}},
        {"detail": json.dumps({"error": INNER})},
        json.dumps({"error": INNER}),
        {"error": json.dumps(INNER)},
    ],
)
def test_an_error_is_found_in_every_wrapping(body):
    found = failure(0, body, {}, "m")
    assert (found.kind, found.message) == ("rate_limit", "Upstream is busy")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": "429"}, "rate_limit"),
        ({"code": 429.0}, "rate_limit"),
        ({"code": "rate_limit_exceeded"}, "rate_limit"),
        ({"code": None, "metadata": {"error_type": "provider_overloaded"}}, "overloaded"),
        ({"code": 500, "metadata": {"error_type": "server"}}, "server"),
        ({"type": "overloaded_error"}, "overloaded"),
        ({"status": "RESOURCE_EXHAUSTED"}, "rate_limit"),
        ({"code": 200}, "error_body"),
        ({"code": True}, "error_body"),
        ({"code": 10**400}, "error_body"),
        ({"code": [429]}, "error_body"),
        ("something", "error_body"),
        ([], "error_body"),
        (None, "error_body"),
        (7, "error_body"),
    ],
)
def test_the_own_code_of_an_error_counts_as_number_or_as_name(body, kind):
    assert failure(0, body, {}, "m").kind == kind


def test_a_message_is_one_short_line_that_can_be_written_to_any_file():
    found = reason(400, {"error": {"message": "a\n\x1b[31m\ud800\u2028" + "b" * 5000}})
    assert found.message.isprintable()
    assert len(found.message) < 350
    found.message.encode()


@pytest.mark.parametrize(
    ("headers", "metadata", "seconds"),
    [
        ({"retry-after": "7"}, {"retry_after_seconds": 9}, 7),
        ({}, {"retry_after_seconds": 9}, 9),
        ({}, {"headers": {"Retry-After": "11"}}, 11),
        ({}, {"retry_after_seconds": -1}, 0),
        ({}, {"retry_after_seconds": "soon", "headers": 3}, None),
        ({}, {"retry_after_seconds": float("nan")}, None),
    ],
)
def test_an_error_inside_of_an_answer_brings_its_own_wait(headers, metadata, seconds):
    assert reason(429, error(429, "slow", **metadata), headers).retry_after == seconds


@pytest.mark.parametrize(
    "text", ["Fri, 01 Jan 99999999999 00:00:00 GMT", "1e999", "-", "0000", "Mon", "1,2,3,4,5:6:7"]
)
def test_a_garbled_retry_after_raises_nothing(text):
    assert retry_after({"retry-after": text}) in (None, 0.0)


def test_bodies_as_deep_as_json_allows_raise_nothing():
    deep = json.loads('{"error":' * 300 + "[" * 300 + "]" * 300 + "}" * 300)
    assert reason(500, deep).kind == "server"
    assert reason(500, '{"error":' * 100_000).kind == "server"
