"""What servers answer in the wild: thoughts cut off, answers in parts, parameters refused, errors of every shape."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from typing import Any

import pytest
from faulty_server import FaultyServer, faulty_server
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.errors import InputError, PromptSearchError
from promptsearch.lm.server import ServerModel, ServerPlace, ServerWarning
from promptsearch.lm.server_reply import PARAMETERS, Complaint, NoAnswer, Written, read_answer, read_complaint
from promptsearch.search.reply_parser import ProposalFilter, without_thoughts

TALK = [{"role": "user", "content": "Shorten: a dark photo of a {}."}]
GOOD = "a foggy photo of a {}."


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as running:
        yield running


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def model(server: FaultyServer, **kw: Any) -> ServerModel:
    return ServerModel(ServerPlace(server.url, "m", **{"wait": 0.01, "timeout": 5.0, "concurrency": 1, **kw}))


def said(content: Any, finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"choices": [{"index": 0, "finish_reason": finish, "message": message}]}


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


THOUGHTS = {
    "reasoning apart": said("", "length", reasoning_content=f"I should write {GOOD}"),
    "no content": said(None, "length", reasoning_content=f"I should write {GOOD}"),
    "a tag left open": said(f"<think>\nI should write {GOOD}", "length"),
    "a tag left open, as if whole": said(f"<think>\nI should write {GOOD}"),
    "another tag": said(f"<thinking>I should write {GOOD}"),
    "a tag with a prefix": said(f"<seed:think>I should write {GOOD}"),
    "brackets": said(f"[THINK]I should write {GOOD}"),
    "a channel": said(f"<|channel|>analysis<|message|>I should write {GOOD}"),
    "begun by the template": said(f"Okay, I should write {GOOD}", "length"),
    "in a part": said([{"type": "thinking", "thinking": [{"type": "text", "text": GOOD}]}], "length"),
    "in a part of text": said([{"type": "text", "text": f"<think>{GOOD}"}], "length"),
    "in capitals": said(f"<THINK>{GOOD}", "MAX_TOKENS"),
}


@pytest.mark.parametrize("answer", THOUGHTS.values(), ids=THOUGHTS)
def test_a_thought_that_was_cut_off_is_no_prompt(answer: dict[str, Any]) -> None:
    verdict = ProposalFilter().read(read_answer(json.dumps(answer).encode(), chats=True).text)
    assert (verdict.template, verdict.reason) == (None, "cut off")


ANSWERS = {
    "text": said(GOOD),
    "a reason that is not given": said(GOOD, None),
    "parts": said(
        [{"type": "thinking", "thinking": [{"type": "text", "text": "a {}"}]}, {"type": "text", "text": GOOD}]
    ),
    "a part without a type": said([{"text": GOOD}]),
    "texts": said([GOOD]),
    "output_text": said([{"type": "output_text", "text": GOOD, "annotations": []}]),
    "one part": said({"type": "text", "text": GOOD}),
    "a text within a part": said([{"type": "text", "text": {"value": GOOD, "annotations": []}}]),
    "thought in a tag": said(f"<think>\nwhat about a {{}} then\n</think>\n\n{GOOD}", reasoning_content=None),
    "thought without its beginning": said(f"what about a {{}} then\n</think>\n\n{GOOD}"),
    "thought in brackets": said(f"[THINK]a {{}}?[/THINK]{GOOD}"),
    "channels": said(
        f"<|channel|>analysis<|message|>a {{}}?<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}"
    ),
    "two thoughts": said(f"<think>a {{}}</think>no<reasoning>a {{}}?</reasoning>{GOOD}"),
    "an empty thought": said(f"<think></think>{GOOD}"),
    "an answer, then a thought": said(f"{GOOD}\n<think>was a {{}} good?", "stop"),
    "a mark of UTF-8 at its start": said(f"\ufeff{GOOD}"),
    "a null error beside it": {**said(GOOD), "error": None},
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_answers_are_read_in_every_form(answer: dict[str, Any]) -> None:
    assert ProposalFilter().read(read_answer(json.dumps(answer).encode(), chats=True).text).template == GOOD


CALL = {"id": "1", "type": "function", "function": {"name": "get_photo", "arguments": "{}"}}
#: Answers without text: the document, the reason, and what is shown of the server's own words.
WITHOUT_TEXT = {
    "nothing": (said(None), "no text", "finish_reason stop"),
    "nothing, no reason": (said(None, None), "no text", "finish_reason not given"),
    "an empty text": (said(""), "no text", "finish_reason stop"),
    "spaces": (said(" \n "), "no text", "finish_reason stop"),
    "only a thought": (said(None, reasoning_content=f"I should write {GOOD}"), "no text", "finish_reason stop"),
    "no parts": (said([]), "no text", "finish_reason stop"),
    "a picture": (said([{"type": "image_url", "image_url": {"url": GOOD}}]), "no text", "parts of type image_url"),
    "sound": (said(None, audio={"transcript": GOOD}), "no text", "finish_reason stop"),
    "a refusal": (said(None, refusal="I cannot help."), "refused", "I cannot help.; finish_reason stop"),
    "a refusal beside an empty text": (said("", refusal=f"Not {GOOD}"), "refused", f"Not {GOOD}"),
    "a refusal alone": (
        {"choices": [{"message": {"role": "assistant", "refusal": "No."}, "finish_reason": "stop"}]},
        *("refused", "No.; finish_reason stop"),
    ),
    "a part of refusal": (said([{"type": "refusal", "refusal": "I will not."}]), "refused", "I will not."),
    "a filter": (said(None, "content_filter"), "refused", "finish_reason content_filter"),
    "a filter after the beginning": (said(GOOD, "content_filter"), "refused", "finish_reason content_filter"),
    "Gemini's": (said(None, "SAFETY"), "refused", "finish_reason safety"),
    "Anthropic's": (said("", "refusal"), "refused", "finish_reason refusal"),
    "a tool": (
        said(None, "tool_calls", tool_calls=[CALL]),
        "tool call",
        "it calls get_photo; finish_reason tool_calls",
    ),
    "a tool, as if whole": (said("", tool_calls=[CALL, CALL]), "tool call", "it calls get_photo, get_photo"),
    "a tool and no content": (
        {"choices": [{"message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"}]},
        *("tool call", "it calls get_photo"),
    ),
    "an older call": (said(None, function_call={"name": "draw", "arguments": ""}), "tool call", "it calls draw"),
    "a part that calls": (said([{"type": "tool_use", "name": "draw", "input": {}}]), "tool call", "it calls draw"),
    "calls of another form": (said(None, tool_calls=[3, {"function": 4}, {"name": 5}]), "tool call", "finish_reason"),
    "a refusal that moves the cursor": (said(None, refusal="\x1b[2Jno\nno"), "refused", "[2Jno no"),
}


@pytest.mark.parametrize(("answer", "reason", "words"), WITHOUT_TEXT.values(), ids=WITHOUT_TEXT)
def test_an_answer_without_text_counts_by_its_own_reason(answer: dict[str, Any], reason: str, words: str) -> None:
    written = read_answer(json.dumps(answer).encode(), chats=True)
    verdict = ProposalFilter().read(written.text)
    assert (verdict.template, verdict.reason, written.lacking, written.cut) == (None, reason, reason, False)
    assert verdict.said.startswith(words) and verdict.said.isprintable()


def test_words_beside_a_call_or_a_refusal_are_an_answer() -> None:
    for answer in (said(GOOD, "tool_calls", tool_calls=[CALL]), said(GOOD, refusal=""), said(GOOD, tool_calls=[])):
        assert ProposalFilter().read(read_answer(json.dumps(answer).encode(), chats=True).text).template == GOOD
    empty = json.dumps({"choices": [{"text": "", "finish_reason": "stop"}]}).encode()
    assert ProposalFilter().read(read_answer(empty, chats=False).text).reason == "empty reply"  # its line was empty


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (said(None, refusal="I cannot."), r"no answer of 3 has text: 3 refused \(I cannot.*choose another --lm-model"),
        (
            said(None, "tool_calls", tool_calls=[CALL]),
            r"3 tool call \(it calls get_photo.*turn tools off on the server",
        ),
        (said(None), r"3 no text \(finish_reason stop\); check --lm-api and --lm-model"),
    ],
)
def test_a_model_that_gives_no_text_is_said_with_the_remedy(
    server: FaultyServer, answer: dict[str, Any], message: str
) -> None:
    server.acts = lambda body: (200, answer)
    with pytest.raises(PromptSearchError, match=message):
        model(server).write([TALK] * 3, 0)
    assert len(server.requests) == 3  # an answer without text is an answer, and not asked for again
    server.acts = lambda body: (200, said(GOOD) if len(server.requests) % 3 == 0 else answer)
    assert sum(without_thoughts(a) == GOOD for a in model(server).write([TALK] * 9, 0)) == 3


FILTERED = {
    "Azure": (400, error("The response was filtered due to the prompt triggering content management policy.")),
    "a code": (400, error("no", code="content_filter")),
    "a policy": (400, error("no", code="x", innererror={"code": "ResponsibleAIPolicyViolation"})),
    "a type": (422, {"error": {"message": "blocked", "type": "content_policy_violation"}}),
    "status 200": (200, error("blocked by the content filter", code=400)),
}


@pytest.mark.parametrize(("status", "body"), FILTERED.values(), ids=FILTERED)
def test_a_prompt_that_a_filter_stops_counts_as_refused(server: FaultyServer, status: int, body: Any) -> None:
    server.acts = lambda _: (status, body) if len(server.requests) % 2 else (200, said(GOOD))
    answers = model(server).write([TALK] * 4, 0)
    assert [ProposalFilter().read(a).reason for a in answers] == ["refused", "", "refused", ""]
    assert len(server.requests) == 4


def test_of_a_text_that_was_cut_off_the_whole_lines_count() -> None:
    def read(text: str) -> Written:
        raw = json.dumps({"choices": [{"text": text, "finish_reason": "length"}]}).encode()
        return read_answer(raw, chats=False)

    filtered = ProposalFilter().read
    assert filtered(read(f" {GOOD}\nCaption: a photo of").text).template == GOOD
    assert filtered(read(" a photo of a {} in the").text).reason == "cut off"
    assert read("x").cut and not read_answer(b'{"choices": [{"text": "a {}"}]}', chats=False).cut


def test_a_model_that_only_thinks_is_said_with_the_remedy(server: FaultyServer) -> None:
    server.acts = lambda body: (200, said("", "length", reasoning_content="hm"))
    with pytest.raises(PromptSearchError, match=r"all 3 answers were cut off at 77 tokens.*increase --lm-tokens"):
        model(server, tokens=77).write([TALK] * 3, 0)
    assert server.requests[0]["max_tokens"] == 77
    server.acts = lambda body: (200, said(GOOD) if len(server.requests) % 3 == 0 else said("", "length"))
    lm = model(server)
    assert sum(without_thoughts(a) == GOOD for a in lm.write([TALK] * 9, 0)) == 3  # some thought for too long
    assert lm.usage["answers cut off"] == 6


#: What vendors answer to a parameter that they do not take: (status, body).
REFUSALS = {
    "OpenAI": lambda p: (400, error(f"Unsupported parameter: '{p}' is not supported with this model.", param=p)),
    "OpenAI, a value": lambda p: (400, error(f"Unsupported value: '{p}' does not support 0.5 with this model.")),
    "Azure": lambda p: (400, error(f"Unrecognized request argument supplied: {p}")),
    "Anthropic": lambda p: (400, error(f"{p}: Extra inputs are not permitted")),
    "Mistral": lambda p: (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", p], "msg": "Extra inputs"}]}),
    "Mistral, newer": lambda p: (422, {"object": "error", "message": {"detail": [{"loc": ["body", p], "msg": "no"}]}}),
    "Gemini": lambda p: (400, [{"error": {"code": 400, "message": f'Unknown name "{p}": Cannot find field.'}}]),
    "LiteLLM": lambda p: (500, error(f"litellm.UnsupportedParamsError: no parameters: ['{p}'], set drop_params=True")),
    "Bedrock": lambda p: (400, {"message": f"Malformed input request: extraneous key [{p}] is not permitted"}),
    "vLLM": lambda p: (400, {"object": "error", "message": f"{p} is not supported by this engine", "code": 400}),
    "a router": lambda p: (400, error("Provider returned error", metadata={"raw": f'{{"detail": "unknown {p}"}}'})),
    "text": lambda p: (400, f"unknown field: {p}".encode()),
    "a keyword": lambda p: (500, {"detail": f"generate() got an unexpected keyword argument '{p}'"}),
    "errors": lambda p: (422, {"errors": [{"title": "Bad request", "detail": f"`{p}` is not allowed here"}]}),
    "status 200": lambda p: (200, error(f"{p} is not supported", code=400)),
}


@pytest.mark.parametrize("vendor", REFUSALS)
@pytest.mark.parametrize("names", [("temperature",), ("top_p",), ("seed",), ("max_tokens",), ("seed", "top_p")])
@pytest.mark.filterwarnings("ignore::promptsearch.lm.server.ServerWarning")
def test_a_parameter_that_is_refused_is_left_out(server: FaultyServer, vendor: str, names: tuple[str, ...]) -> None:
    def act(body: dict[str, Any]) -> tuple[int, Any]:
        named = next((n for n in names if n in body or n.replace("x_", "x_completion_") in body), None)
        return (200, said(GOOD)) if named is None else REFUSALS[vendor](named)

    server.acts = act
    lm = model(server)
    assert lm.write([TALK] * 3, 0) == [GOOD] * 3 and "tries that failed" not in lm.usage
    left = {"temperature", "top_p", "seed", "max_tokens"} - set(names)
    assert server.requests[-1].keys() & PARAMETERS.keys() == left
    assert len(server.requests) <= 3 + 2 * len(names)


def test_what_is_left_out_is_said_once_and_by_all_calls(server: FaultyServer) -> None:
    both = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    server.acts = lambda body: (400, error(both)) if {"temperature", "top_p"} <= body.keys() else (200, said(GOOD))
    with pytest.warns(ServerWarning, match="it does not support top_p .*which is no longer sent") as warned:
        assert model(server, concurrency=4).write([TALK] * 8, 0) == [GOOD] * 8
    assert sum(w.category is ServerWarning for w in warned) == 1 and "temperature" in server.requests[-1]


def test_the_limit_has_two_names(server: FaultyServer) -> None:
    asks = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    server.acts = lambda body: (400, error(asks)) if "max_tokens" in body else (200, said(GOOD))
    assert model(server, tokens=9).write([TALK], 0) == [GOOD]
    assert server.requests[-1]["max_completion_tokens"] == 9


def test_an_option_leaves_parameters_out(server: FaultyServer) -> None:
    model(server, omit=("seed", "top_p", "max_tokens")).write([TALK], 0)
    model(server, omit=("stop", "temperature"), api="completions").write(["a"], 0)
    assert server.requests[0].keys() == {"model", "messages", "temperature"}
    assert server.requests[1].keys() == {"model", "prompt", "top_p", "seed", "max_tokens"}
    with pytest.raises(InputError, match="--lm-omit tea: choose from seed"):
        ServerPlace("http://localhost/v1", "m", omit=("tea",))
    with pytest.raises(InputError, match="--lm-tokens 0"):
        ServerPlace("http://localhost/v1", "m", tokens=0)


LASTING = {
    "no such model": (200, error("No endpoints found for this model on your plan", code=404), "on your plan"),
    "a refusal": (200, error("you may not", code=403), "you may not"),
    "no credit": (200, {"error": "insufficient credits", "code": 402}, "insufficient credits"),
    "quota": (429, error("You exceeded your current quota, please check your plan and billing details."), "billing"),
    "a kind of quota": (429, error("no more", code="insufficient_quota"), "insufficient_quota"),
    "payment": (402, error("pay first"), "pay first"),
    "context": (500, error("the request exceeds the available context size"), "context size"),
    "not made": (501, error("not implemented"), "not implemented"),
    "too large": (413, b"<html>Request Entity Too Large</html>", "an HTML page"),
    "deep": (400, b"[" * 60_000, "["),
    "nothing": (400, b"", "without a reason"),
    "numbers": (400, {"error": {"code": 3}}, "code"),
}


@pytest.mark.parametrize(("status", "body", "message"), LASTING.values(), ids=LASTING)
def test_what_cannot_pass_is_asked_once(server: FaultyServer, status: int, body: Any, message: str) -> None:
    server.acts = lambda _: (status, body)
    with pytest.raises(PromptSearchError) as failed:
        model(server).write([TALK], 0)
    assert len(server.requests) == 1 and message in str(failed.value)


PASSING = {
    "an error without a code": (200, error("Internal error")),
    "an error beside no choices": (200, {"choices": [], "error": {"message": "busy", "code": 502}}),
    "an error in a choice": (
        200,
        {"choices": [{"message": {"content": ""}, "error": {"message": "lost", "code": 503}}]},
    ),
    "an error as text": (200, {"error": "model is loading"}),
    "an older form": (200, {"object": "error", "message": "busy", "code": 50302}),
    "a limit by the minute": (429, error("You exceeded your current quota. Please retry in 0.1 s. See billing.")),
    "an overload": (529, error("Overloaded")),
    "a rate": (429, error("rate limit")),
    "a list": (200, [error("try later", code=503)]),
}


@pytest.mark.parametrize(("status", "body"), PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again_and_said_in_the_servers_words(
    server: FaultyServer, status: int, body: Any
) -> None:
    server.acts = lambda _: (status, body) if len(server.requests) < 3 else (200, said(GOOD))
    assert model(server).write([TALK], 0) == [GOOD]
    server.acts = lambda _: (status, body)
    words = read_complaint(json.dumps(body).encode()).message if status != 200 else str(body).split("'")[-2]
    with pytest.raises(PromptSearchError, match="2 attempts") as failed:
        model(server, tries=2).write([TALK], 0)
    assert "not in OpenAI's form" not in str(failed.value) and (status == 200 or words in str(failed.value))


def test_a_wait_of_an_hour_is_not_waited_for(server: FaultyServer) -> None:
    server.faults = ["hour"]
    started = time.monotonic()
    with pytest.raises(PromptSearchError, match="asks to wait 3600 s.*resume from the recorded trials"):
        model(server).write([TALK], 0)
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("fault", ["500trickle", "500endless", "400endless", "500bomb", "headers"])
def test_errors_have_an_end_too(server: FaultyServer, fault: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    server.always = fault
    started = time.monotonic()
    with pytest.raises(PromptSearchError) as failed:
        model(server, tries=2, timeout=0.5).write([TALK] * 2, 0)
    assert time.monotonic() - started < 20 and len(str(failed.value)) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB; the bomb has 200 MB


def test_a_key_that_a_server_repeats_is_not_shown(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server.acts = lambda _: (401, error("Incorrect API key provided: sk-very-secret."))
    with pytest.raises(
        InputError, match=r"Incorrect API key provided: \*\*\*.*check the key in OPENAI_API_KEY"
    ) as failed:
        model(server).write([TALK], 0)
    assert "very-secret" not in str(failed.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "text",
                    "error",
                    "errors",
                    "detail",
                    "code",
                    "finish_reason",
                    "usage",
                    "type",
                ]
                + ["param", "loc", "msg", "metadata", "raw", "prompt_tokens", "object", "status", "thinking", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(JSON, st.booleans())
@settings(max_examples=400, deadline=None)
def test_no_document_breaks_the_reader(document: Any, chats: bool) -> None:
    raw = json.dumps(document).encode("utf-8", "surrogatepass")
    complaint = read_complaint(raw)
    assert complaint.message and complaint.message.isprintable() and len(complaint.message) <= 2100
    complaint.refuses(set(PARAMETERS), 400), complaint.lasts()
    try:
        answer = read_answer(raw, chats)
    except NoAnswer as e:
        assert str(e) and (e.complaint is None or isinstance(e.complaint, Complaint))
    else:
        assert isinstance(answer.text, str) and 0 <= answer.read < 1 << 40 and 0 <= answer.written < 1 << 40


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_the_reader(raw: bytes, chats: bool) -> None:
    assert read_complaint(raw).message.isprintable()
    with pytest.raises(NoAnswer):
        read_answer(raw, chats)


@given(st.lists(st.sampled_from(["<think>", "</think>", "a {} b", "\n", "<reasoning>", "[/THINK]", " "]), max_size=8))
@settings(max_examples=200, deadline=None)
def test_nothing_within_a_thought_is_an_answer(pieces: list[str]) -> None:
    answer = without_thoughts("".join(pieces))
    if answer is not None:
        assert not any(tag in answer for tag in ("think>", "reasoning>", "THINK]"))
