"""May another deployment be tried? Only before the first byte, and only for what another one could do better."""

from typing import Final

RETRIED_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
# These mean that the deployment is not well; 429 and 4xx say something about the request or the load.
FAILURE_STATUS: Final = frozenset({500, 502, 503, 504, 529})


def may_retry(status: int | None, retries: int, allowed: int, sent: bool) -> bool:
    """``status`` None: the connection failed. ``sent``: bytes have reached the client."""
    return not sent and retries < allowed and (status is None or status in RETRIED_STATUS)
