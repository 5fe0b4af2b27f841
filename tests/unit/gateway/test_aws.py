"""AWS's signature and binary framing, compared with botocore's own."""

import json
from datetime import UTC, datetime

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import RestJSONParser
from botocore.validate import ParamValidator
from gateway.core.dialects import bedrock_request
from gateway.core.dialects.conversation import Conversation
from gateway.core.dialects.eventstream import MessageReader
from gateway.core.dialects.sigv4 import AwsCredential, sign
from gateway.core.problems import Rejected
from gateway.core.stage import Garbled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .provider_fixtures import frame, stream, whole
from .test_dialects import conversations

HOST = "bedrock-runtime.us-east-1.amazonaws.com"


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize(
    "path", ["/model/us.anthropic.claude-x-v1%3A0/converse", "/model/arn%3Aaws%2Fm/converse-stream"]
)
def test_the_signature_is_botocores(path: str, token: str | None) -> None:
    body = '{"messages": []} ü'.encode()
    request = AWSRequest("POST", f"https://{HOST}{path}", {"content-type": "application/json"}, body)
    SigV4Auth(Credentials("AKID", "secret", token), "bedrock", "us-east-1").add_auth(request)
    signed_at = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    credential = AwsCredential("AKID", "secret", "us-east-1", token)
    ours = dict(sign(credential, "bedrock", HOST, path, body, "application/json", signed_at.timestamp()))
    assert ours[b"authorization"].decode() == request.headers["Authorization"]
    assert ours[b"x-amz-date"].decode() == request.headers["X-Amz-Date"]


def test_messages_are_read_as_botocore_reads_them() -> None:
    theirs = EventStreamBuffer()
    theirs.add_data(stream("bedrock"))
    expected = [(message.headers, message.payload) for message in theirs]
    assert MessageReader().feed(stream("bedrock")) == expected


@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_damaged_message_is_refused(place: int, flip: int) -> None:
    message = bytearray(frame({":message-type": "event"}, {"a": 1}))
    message[place % len(message)] ^= flip
    reader = MessageReader()
    with pytest.raises(Garbled):
        reader.feed(bytes(message))


def test_other_headers_than_strings_are_refused() -> None:
    with pytest.raises(Garbled):
        MessageReader().feed(frame({"a": "b"}, {}, kind=6))


@pytest.fixture(scope="module")
def service() -> ServiceModel:
    """Bedrock's own description of its API."""
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))


@given(conversation=conversations)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_bedrock_hears_fits_its_service_model(service: ServiceModel, conversation: Conversation) -> None:
    try:
        body = json.loads(bedrock_request.write(conversation))
    except Rejected:
        return
    shape = service.operation_model("ConverseStream").input_shape
    report = ParamValidator().validate({"modelId": "m", **body}, shape)
    assert not report.has_errors(), report.generate_report()
    assert set(body) <= set(shape.members)


def test_the_transcribed_answer_fits_the_service_model(service: ServiceModel) -> None:
    shape = service.operation_model("Converse").output_shape
    parsed = RestJSONParser().parse({"body": whole("bedrock"), "headers": {}, "status_code": 200}, shape)
    content = parsed["output"]["message"]["content"]
    assert [next(iter(block)) for block in content] == ["reasoningContent", "text", "toolUse", "toolUse"]
    assert parsed["stopReason"] in shape.members["stopReason"].enum and parsed["usage"]["cacheReadInputTokens"] == 7


def test_the_transcribed_stream_fits_the_service_model(service: ServiceModel) -> None:
    events = service.operation_model("ConverseStream").output_shape.members["stream"].members
    for headers, payload in MessageReader().feed(stream("bedrock")):
        members = set(events[headers[":event-type"]].members)
        assert set(json.loads(payload)) <= members | {"p"}  # padding, which is not in the model
