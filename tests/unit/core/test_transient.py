"""Which errors of AWS pass by themselves."""

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError
from foundry_core.errors import TransientError
from foundry_core.transient import transient_errors
from pynamodb.exceptions import GetError, PutError, TransactWriteError


def answer(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Any")


PASSING = [
    answer("ThrottlingException"), answer("ProvisionedThroughputExceededException"), answer("InternalServerError", 500),
    answer("ServiceUnavailable", 503), EndpointConnectionError(endpoint_url="x"), ConnectTimeoutError(endpoint_url="x"),
    ReadTimeoutError(endpoint_url="x"), PutError("put", answer("ThrottlingException")),
    TransactWriteError("write", answer("InternalServerError", 500)),
    GetError("get", ReadTimeoutError(endpoint_url="x")),
]  # fmt: skip
LASTING = [answer("AccessDeniedException"), answer("ValidationException"), PutError("put"), KeyError("x"),
           PutError("put", answer("ConditionalCheckFailedException"))]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_is_transient(error: Exception) -> None:
    with pytest.raises(TransientError) as caught, transient_errors():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_does_not_keeps_its_name(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, transient_errors():
        raise error
    assert caught.value is error
