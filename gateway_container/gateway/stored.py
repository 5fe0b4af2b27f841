"""What clients ask of the control plane through a gateway, for the project of their key: how it is asked, and how its
answers and refusals become OpenAI's."""

import contextlib
import logging
import re
from collections.abc import Iterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.control import ControlPlaneAway, Refused
from gateway.core.problems import Rejected
from gateway.core.snapshot import Key

log = logging.getLogger("gateway.stored")
MAX_PAGE = 100
ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
NOT_THERE = "The control plane of this gateway keeps no files and no batches. Send the requests one by one."


def key_of(request: Request) -> Key:
    key: Key = request.state.key
    return key


def of_project(request: Request, path: str) -> str:
    """Path of something of the project whose key the client showed; nothing else says which project it is."""
    return f"/projects/{key_of(request).project_id}{path}"


def id_in(request: Request, name: str) -> str:
    """An id of the path. Raises Rejected for what is none, so that it is never part of another path."""
    id_: str = request.path_params[name]
    if ID.fullmatch(id_) is None:
        raise Rejected("not_found", f"There is nothing with the id {id_[:100]!r}.")
    return id_


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Inside the block, what the control plane says becomes a Rejected."""
    try:
        yield
    except Refused as refused:
        raise _rejected(refused) from None
    except (ControlPlaneAway, OSError) as error:
        log.warning("files and batches: %s", error)
        raise Rejected("storage_unavailable", retry_after_s=5) from None
    except ClientDisconnect:
        raise Rejected("invalid_request", "The request breaks off.") from None


def _rejected(refused: Refused) -> Rejected:
    if refused.status != 404:
        return Rejected("invalid_request", refused.detail)
    known = refused.code.endswith("_not_found")  # not the path itself
    return Rejected("not_found", refused.detail if known else NOT_THERE)


def answer(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def page_of(request: Request) -> dict[str, str | int]:
    """``limit`` and ``after`` as the control plane takes them. Raises Rejected."""
    asked = request.query_params
    limit = asked.get("limit", str(MAX_PAGE))
    if not limit.isascii() or not limit.isdigit() or not 1 <= len(limit) <= 6 or int(limit) < 1:
        raise Rejected("invalid_request", "limit is a number from 1.", param="limit")
    page: dict[str, str | int] = {"limit": min(int(limit), MAX_PAGE)}
    after = asked.get("after", "")
    if after and ID.fullmatch(after) is None:
        raise Rejected("invalid_request", "after is the id of the last one of the page before.", param="after")
    return page | ({"after": after} if after else {})
