"""Every dialect against the transcribed answers, however they are cut; what goes through a dialect loses nothing."""

import json
from typing import Any

import msgspec
import pytest
from gateway.core.dialects import (
    anthropic_reader,
    anthropic_request,
    anthropic_writer,
    bedrock_reader,
    bedrock_request,
    gemini_reader,
    gemini_request,
    openai_reader,
    openai_request,
    openai_writer,
)
from gateway.core.dialects import conversation as c
from gateway.core.problems import Rejected
from gateway.core.stage import Garbled
from hypothesis import example, given, settings
from hypothesis import strategies as st

from .provider_fixtures import PROVIDERS, frame, stream, whole

READERS: dict[str, Any] = {
    "openai": openai_reader.Reader,
    "anthropic": anthropic_reader.Reader,
    "bedrock": lambda: bedrock_reader.Reader("evt", "model"),
    "gemini": lambda: gemini_reader.Reader("evt", "model"),
}
CALLS = [("toolu_1", {"city": "Paris"}), ("toolu_2", {"city": "Rome"})]


def read(provider: str, data: bytes, cuts: list[int] | None = None) -> list[c.Event]:
    reader = READERS[provider]()
    ends = sorted({cut % (len(data) + 1) for cut in cuts or []} | {len(data)})
    events: list[c.Event] = []
    at = 0
    for end in ends:
        events += reader.feed(data[at:end])
        at = end
    return events + reader.end()


def streamed(writer: Any, events: list[c.Event]) -> bytes:
    return b"".join(writer.write(event) for event in events) + writer.end()


# --- requests ---------------------------------------------------------------------------------------------------


def test_a_limit_of_no_output_is_said_to_all_providers() -> None:
    asked = c.Conversation([], max_tokens=0)
    written = [
        anthropic_request.write(asked, "m", 4096),
        openai_request.write(asked, "m", "max_tokens", False),
        bedrock_request.write(asked),
        gemini_request.write(asked),
    ]
    assert all(b'okens":0' in body for body in written), written


# --- answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("form", ["whole", "stream"])
def test_all_providers_say_the_same_to_an_openai_client(provider: str, form: str) -> None:
    events = READERS[provider]().whole(whole(provider)) if form == "whole" else read(provider, stream(provider))
    answer = json.loads(openai_writer.whole(events))
    [choice] = answer["choices"]
    message = choice["message"]
    assert (message["content"], message["reasoning_content"]) == ("Let me check.", "Two cities.")
    calls = [(call["id"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]]
    assert calls == CALLS and {call["function"]["name"] for call in message["tool_calls"]} == {"get_weather"}
    assert choice["finish_reason"] == "tool_calls"
    usage = answer["usage"]
    assert [usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]] == [12, 40, 52]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 7
    assert answer["object"] == "chat.completion" and answer["id"] and answer["model"]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("form", ["whole", "stream"])
def test_all_providers_say_the_same_to_an_anthropic_client(provider: str, form: str) -> None:
    events = READERS[provider]().whole(whole(provider)) if form == "whole" else read(provider, stream(provider))
    answer = json.loads(anthropic_writer.whole(events))
    blocks = [block for block in answer["content"] if block.get("thinking") != ""]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    assert (blocks[0]["thinking"], blocks[1]["text"]) == ("Two cities.", "Let me check.")
    assert [(block["id"], block["input"]) for block in blocks[2:]] == CALLS
    usage = answer["usage"]
    given = [usage[f"{kind}input_tokens"] for kind in ("", "cache_read_", "cache_creation_")]
    assert (answer["stop_reason"], sum(given), given[1], usage["output_tokens"]) == ("tool_use", 12, 7, 40)


@pytest.mark.parametrize("provider", PROVIDERS)
@given(cuts=st.lists(st.integers(0, 1 << 20), max_size=12))
@settings(max_examples=60, deadline=None)
def test_where_a_stream_is_cut_changes_nothing(provider: str, cuts: list[int]) -> None:
    data = stream(provider)
    assert read(provider, data, cuts) == read(provider, data)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_byte_by_byte_and_with_other_line_ends(provider: str) -> None:
    data = stream(provider)
    expected = read(provider, data)
    assert read(provider, data, list(range(len(data)))) == expected
    if provider != "bedrock":
        other = data.replace(b"\n", b"\r\n")
        assert read(provider, other, list(range(0, len(other), 7))) == expected


@pytest.mark.parametrize("provider", PROVIDERS)
@given(size=st.integers(0, 1 << 20))
@settings(max_examples=40, deadline=None)
def test_a_stream_that_breaks_off_is_never_taken_for_a_whole_one(provider: str, size: int) -> None:
    data = stream(provider)
    part = data[: size % len(data)]
    try:
        events = read(provider, part)
    except Garbled:
        return
    assert any(isinstance(event, c.Finish) for event in events)


@pytest.mark.parametrize("provider", PROVIDERS)
@given(data=st.binary(max_size=400))
@example(data=b"data:[DONE]")
@example(data=b"data: {}\n\ndata: [DONE]\n\n")
@settings(max_examples=60, deadline=None)
def test_garbage_is_refused_and_nothing_else(provider: str, data: bytes) -> None:
    for attempt in (READERS[provider]().whole, lambda garbage: read(provider, garbage)):
        with pytest.raises(Garbled):
            attempt(data)


# --- streams written for clients --------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
tokens = st.builds(
    lambda fresh, read, write, output, thought: c.Tokens(fresh + read + write, output + thought, read, write, thought),
    *[st.integers(0, 10**6)] * 5,
)


@st.composite
def answers(draw: st.DrawFn) -> list[c.Event]:
    """The events of a sound answer: thoughts, text, calls in order, one finish, usage."""
    events: list[c.Event] = [c.Begin(draw(names), draw(names))]
    events += [c.ThinkingDelta(text) for text in draw(st.lists(texts, max_size=3))]
    if len(events) > 1 and draw(st.booleans()):
        events.append(c.ThinkingDelta(signature=draw(names)))
    events += [c.TextDelta(text) for text in draw(st.lists(texts, max_size=3))]
    for number in range(draw(st.integers(0, 3))):
        events.append(c.ToolStart(number, draw(names), draw(names)))
        arguments = json.dumps(draw(st.dictionaries(names, texts, max_size=2)))
        half = draw(st.integers(0, len(arguments)))
        events += [c.ToolDelta(number, part) for part in (arguments[:half], arguments[half:]) if part]
    reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    return [*events, c.Finish(reason), c.Used(draw(tokens))]


@given(events=answers())
@settings(max_examples=150, deadline=None)
def test_an_anthropic_stream_says_what_it_was_told(events: list[c.Event]) -> None:
    heard = read("anthropic", streamed(anthropic_writer.Writer(), events))
    assert [event for event in heard if not isinstance(event, c.Used)] == events[:-1]
    assert heard[-1] == events[-1]


@given(events=answers())
@settings(max_examples=150, deadline=None)
def test_an_openai_stream_says_what_it_was_told(events: list[c.Event]) -> None:
    heard = read("openai", streamed(openai_writer.Writer(usage_event=True), events))
    assert heard == events


@given(events=answers())
@settings(max_examples=100, deadline=None)
def test_whole_answers_say_what_they_were_told(events: list[c.Event]) -> None:
    for reader, writer in ((anthropic_reader, anthropic_writer), (openai_reader, openai_writer)):
        heard = reader.Reader().whole(writer.whole(events))
        assert "".join(e.text for e in heard if isinstance(e, c.TextDelta)) == "".join(
            e.text for e in events if isinstance(e, c.TextDelta)
        )
        assert [e for e in heard if isinstance(e, c.ToolStart)] == [e for e in events if isinstance(e, c.ToolStart)]
        assert [e for e in heard if isinstance(e, c.Finish | c.Used)] == events[-2:]


def test_an_openai_client_gets_usage_only_where_it_asked() -> None:
    events = read("anthropic", stream("anthropic"))
    asked, unasked = (streamed(openai_writer.Writer(usage_event=ask), events) for ask in (True, False))
    assert b'"usage":{"prompt_tokens":12' in asked and b'"usage":null' in asked and b'"usage"' not in unasked
    assert unasked.endswith(b"data: [DONE]\n\n")


def test_a_thought_and_its_signature_come_back_through_an_openai_client() -> None:
    """Anthropic wants both in the next turn, byte for byte."""
    message = json.loads(openai_writer.whole(read("anthropic", stream("anthropic"))))["choices"][0]["message"]
    request = {"model": "m", "messages": [{"role": "user", "content": "x"}, message]}
    [_, turn] = openai_request.read(json.dumps(request).encode()).turns
    assert turn.parts[0] == c.Thinking("Two cities.", "c2ln")


def test_the_pieces_of_thoughts_are_numbered() -> None:
    """OpenAI's SDK joins the entries of a list in a stream by their index, and fails without one."""
    thoughts = [
        c.ThinkingDelta("a"), c.ThinkingDelta("b"), c.ThinkingDelta(signature="s"), c.ThinkingDelta(redacted="r"),
        c.ThinkingDelta("c"), c.ThinkingDelta(redacted="q"),
    ]  # fmt: skip
    chunks = streamed(openai_writer.Writer(False), [c.Begin("i", "m"), *thoughts]).split(b"\n\n")[1:-2]
    details = [json.loads(chunk[6:])["choices"][0]["delta"]["reasoning_details"][0] for chunk in chunks]
    assert [detail["index"] for detail in details] == [0, 0, 0, 1, 2, 3]
    whole_message = json.loads(openai_writer.whole([c.Begin("i", "m"), *thoughts]))["choices"][0]["message"]
    echoed = {"model": "m", "messages": [{**whole_message, "parsed": None}]}
    [turn] = openai_request.read(json.dumps(echoed).encode()).turns
    assert turn.parts == [c.Thinking("ab", "s"), c.Thinking(redacted="r"), c.Thinking("c"), c.Thinking(redacted="q")]


def test_mistral_thinks_within_its_content() -> None:
    content = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Yes."}]
    body = {"id": "i", "model": "m", "choices": [{"message": {"content": content}, "finish_reason": "model_length"}]}
    events = openai_reader.Reader().whole(json.dumps(body).encode())
    assert events[1:] == [c.ThinkingDelta("hm"), c.TextDelta("Yes."), c.Finish("length")]


def test_thoughts_go_back_to_an_openai_compatible_server_with_their_signature() -> None:
    thoughts: list[c.Part] = [c.Thinking("hm", "s"), c.Thinking(redacted="r"), c.Text("Yes.")]
    conversation = c.Conversation([c.Turn("user", [c.Text("x")]), c.Turn("assistant", thoughts)])
    heard = openai_request.read(openai_request.write(conversation, "m", "max_tokens", False))
    assert heard.turns == conversation.turns
    assert c.without_thinking(heard.turns)[1].parts == [c.Text("Yes.")]


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_the_signature_of_a_call_comes_back_to_gemini(client: str) -> None:
    events = read("gemini", stream("gemini"))
    if client == "openai":
        message = json.loads(openai_writer.whole(events))["choices"][0]["message"]
        conversation = openai_request.read(json.dumps({"model": "m", "messages": [message]}).encode())
    else:
        content = json.loads(anthropic_writer.whole(events))["content"]
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "assistant", "content": content}]}
        conversation = anthropic_request.read(json.dumps(body).encode())
    parts = json.loads(gemini_request.write(conversation))["contents"][0]["parts"]
    signatures = [part.get("thoughtSignature") for part in parts if "functionCall" in part]
    assert signatures == ["c2ln", None]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "bedrock"])
def test_a_failure_within_a_stream_is_told(provider: str) -> None:
    failure = {
        "openai": b'data: {"error":{"message":"Slow down","code":429}}\n\n',
        "anthropic": b'data: {"type":"error","error":{"type":"rate_limit_error","message":"Slow down"}}\n\n',
        "bedrock": frame({":message-type": "exception", ":exception-type": "throttlingException"},
                         {"message": "Slow down"}),
    }  # fmt: skip
    events = read(provider, failure[provider])
    assert events[-1] == c.Failed(429, "Slow down")
    assert b"rate_limit_error" in openai_writer.Writer(False).write(events[-1])
    assert b"rate_limit_error" in anthropic_writer.Writer().write(events[-1])


# --- requests ---------------------------------------------------------------------------------------------------

raw = st.dictionaries(names, texts, max_size=2).map(lambda value: msgspec.Raw(msgspec.json.encode(value)))
arguments = raw.map(lambda value: bytes(value).decode())
text_parts = st.builds(c.Text, texts)
pictures = st.builds(c.Media, st.just("image"), st.just("image/png"), st.just("aGk=")) | st.builds(
    c.Media, st.just("image"), url=st.just("https://example.com/a.png")
)
calls = st.builds(c.ToolCall, names, names, arguments)
results = st.builds(c.ToolResult, names, st.lists(text_parts, min_size=1, max_size=1))
turns = st.tuples(
    st.lists(results, max_size=2).flatmap(lambda r: st.lists(text_parts | pictures, min_size=1).map(lambda p: r + p)),
    st.tuples(st.lists(text_parts, max_size=1), st.lists(calls, max_size=2)).map(lambda parts: parts[0] + parts[1]),
).map(lambda pair: [turn for turn in (c.Turn("user", pair[0]), c.Turn("assistant", pair[1])) if turn.parts])
tools = st.lists(st.builds(c.Tool, names, texts | st.none(), raw), min_size=1, max_size=2)
choices = st.sampled_from(["auto", "none", "required"]).map(c.ToolChoice) | st.builds(
    c.ToolChoice, st.just("one"), names
)
conversations = st.builds(
    c.Conversation,
    turns=turns, system=st.lists(text_parts, max_size=1), stream=st.booleans(), tools=tools, tool_choice=choices,
    max_tokens=st.integers(1, 9999), temperature=st.floats(0, 1), top_p=st.floats(0, 1),
    stop=st.lists(texts, min_size=1, max_size=2),
    response_format=st.builds(c.Format, raw, name=st.just("answer"), strict=st.just(True)) | st.none(),
    reasoning=st.sampled_from(["low", "medium", "high"]).map(c.Reasoning) | st.none(), user=names | st.none(),
)  # fmt: skip


@given(conversation=conversations)
@settings(max_examples=150, deadline=None)
def test_a_request_survives_the_way_through_openai(conversation: c.Conversation) -> None:
    assert openai_request.read(openai_request.write(conversation, "m", "max_tokens", True)) == conversation


@given(conversation=conversations)
@settings(max_examples=150, deadline=None)
def test_a_request_survives_the_way_through_anthropic(conversation: c.Conversation) -> None:
    heard = anthropic_request.read(anthropic_request.write(conversation, "m", 4096))
    if heard.reasoning is not None:
        heard.reasoning.adaptive = False
    if heard.response_format is not None:
        heard.response_format.name = "answer"
    assert heard == conversation


def everything() -> dict[str, Any]:
    """A request with every field that all providers have a word for."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    return {
        "model": "m", "stream": True, "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["END"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}},
            ]},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [call], "refusal": None, "annotations": []},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "reasoning_effort": "high", "n": 1, "user": "u",
    }  # fmt: skip


def test_what_bedrock_hears() -> None:
    body = json.loads(bedrock_request.write(openai_request.read(json.dumps(everything()).encode())))
    assert body == {
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [
                {"text": "What is this?"}, {"image": {"format": "png", "source": {"bytes": "aGk="}}},
            ]},
            {"role": "assistant", "content": [
                {"text": "Let me see."}, {"toolUse": {"toolUseId": "c1", "name": "f", "input": {"a": 1}}},
            ]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "42"}]}}]},
        ],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
        "toolConfig": {
            "tools": [{"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": {"type": "object"}}}}],
            "toolChoice": {"tool": {"name": "f"}},
        },
        "outputConfig": {"effort": "high", "textFormat": {
            "type": "json_schema", "structure": {"jsonSchema": {"name": "s", "schema": '{"type": "object"}'}},
        }},
    }  # fmt: skip


def test_what_gemini_hears() -> None:
    body = json.loads(gemini_request.write(openai_request.read(json.dumps(everything()).encode())))
    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [
                {"text": "What is this?"}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
            ]},
            {"role": "model", "parts": [
                {"text": "Let me see."}, {"functionCall": {"name": "f", "args": {"a": 1}}},
            ]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "42"}}}]},
        ],
        "tools": [{"functionDeclarations": [
            {"name": "f", "description": "d", "parametersJsonSchema": {"type": "object"}},
        ]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "maxOutputTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"],
            "responseMimeType": "application/json", "responseJsonSchema": {"type": "object"},
            "thinkingConfig": {"includeThoughts": True, "thinkingLevel": "HIGH"},
        },
    }  # fmt: skip


WRITERS: dict[str, Any] = {
    "anthropic": lambda conversation: anthropic_request.write(conversation, "m", 9),
    "bedrock": bedrock_request.write,
    "gemini": gemini_request.write,
}


@pytest.mark.parametrize(
    ("fields", "param", "providers"),
    [
        ({"n": 2}, "n", "anthropic bedrock gemini"),
        ({"logprobs": True}, "logprobs", "anthropic bedrock gemini"),
        ({"logit_bias": {"1": 1}}, "logit_bias", "anthropic bedrock gemini"),
        ({"vendor_extra": 1}, "vendor_extra", "anthropic bedrock gemini"),
        ({"store": True}, "store", "anthropic bedrock gemini"),
        ({"seed": 1}, "seed", "anthropic bedrock"),
        ({"presence_penalty": 0.5}, "presence_penalty", "anthropic bedrock"),
        ({"response_format": {"type": "json_object"}}, "response_format", "anthropic bedrock"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", "bedrock gemini"),
        ({"reasoning_effort": "max"}, "reasoning_effort", "gemini"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(fields: dict[str, Any], param: str, providers: str) -> None:
    for provider, write in WRITERS.items():
        body = json.dumps({**everything(), **fields}).encode()
        if provider not in providers:
            write(openai_request.read(body))
            continue
        with pytest.raises(Rejected) as refusal:
            write(openai_request.read(body))
        assert refusal.value.status == 400 and refusal.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"container": "c"}, "container"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "extra": 1}]}]},
         "messages[0].content[0].extra"),
        ({"max_tokens": "many"}, "max_tokens"),
    ],
)  # fmt: skip
def test_what_an_anthropic_client_may_not_say_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [], **fields}
    with pytest.raises(Rejected) as refusal:
        anthropic_request.read(json.dumps(body).encode())
    assert refusal.value.status == 400
    assert str(refusal.value.param).replace("[...]", "[0]").startswith(param.split("[")[0])


@given(body=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda inner: st.dictionaries(names, inner, max_size=3)
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for request in (openai_request, anthropic_request):
        with pytest.raises(Rejected):
            request.read(body)


def test_text_that_is_not_utf_8_is_refused_wherever_it_hides() -> None:
    tool = b'{"model":"m","max_tokens":1,"messages":[],"tools":[{"name":"f","input_schema":{"a":"\xff"}}]}'
    with pytest.raises(Rejected):
        anthropic_request.read(tool)
    with pytest.raises(Garbled):
        READERS["bedrock"]().whole(whole("bedrock").replace(b"Paris", b"\xff"))


def test_a_turn_of_which_nothing_is_left_is_left_out() -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "reasoning_content": "hm"}]
    conversation = openai_request.read(json.dumps({"model": "m", "messages": messages}).encode())
    for provider, write in WRITERS.items():
        body = json.loads(write(conversation))
        assert len(body["contents" if provider == "gemini" else "messages"]) == 1
