"""What AWS answers while it is busy or out of reach, by one name."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
)
from pynamodb.exceptions import PynamoDBException

from foundry_core.errors import TransientError

_THROTTLED = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)


@contextmanager
def transient_errors() -> Iterator[None]:
    """Tell such an answer as ``TransientError``, which state machines retry."""
    try:
        yield
    except (BotoCoreError, ClientError, PynamoDBException) as error:
        if not _is_transient(error):
            raise
        raise TransientError("A service of AWS did not answer.", next_action="Retry the run.") from error


def _is_transient(error: BaseException | None) -> bool:
    if isinstance(error, PynamoDBException):
        return _is_transient(error.cause)
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or error.response["Error"].get("Code") in _THROTTLED
    return isinstance(error, ConnectionError | HTTPClientError | CredentialRetrievalError)
