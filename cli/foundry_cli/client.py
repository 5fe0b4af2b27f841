"""The REST API over httpx: problems become one-line errors, pages become one list, runs are followed by ETag."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from foundry_cli import auth, profile
from foundry_cli.errors import CliError

_NEXT_BY_STATUS = {401: "foundry login", 403: None, 404: None}
_POLL_SECONDS = 0.5
Json = dict[str, Any]


class ApiError(CliError):
    """The platform's problem document."""

    def __init__(self, status: int, problem: Json) -> None:
        detail = str(problem.get("detail") or f"The platform answered {status}.")
        super().__init__(detail, problem.get("next_action") or _NEXT_BY_STATUS.get(status))
        self.status, self.code = status, str(problem.get("code", ""))


class Api:
    """A signed-in client. Tokens are refreshed a minute before they expire."""

    def __init__(self, user: profile.Profile | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self.profile = user or profile.load()
        self._http = httpx.Client(base_url=self.profile.api_url, timeout=60, transport=transport)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        self.profile = auth.fresh(self.profile)
        headers = {"authorization": f"Bearer {self.profile.access_token}", **options.pop("headers", {})}
        try:
            response = self._http.request(method, path, headers=headers, **options)
        except httpx.TransportError as error:
            raise CliError(f"No answer from {self.profile.api_url} ({error}).", "foundry status") from error
        if response.status_code >= 400:
            raise ApiError(response.status_code, _problem(response))
        return response

    def get(self, path: str, **query: Any) -> Json:
        params = {name: value for name, value in query.items() if value is not None}
        return dict(self.request("GET", path, params=params).json())

    def post(self, path: str, body: Json | None = None, idempotency_key: str | None = None) -> Json:
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        return dict(self.request("POST", path, json=body or {}, headers=headers).json())

    def put(self, path: str, body: Json) -> Json:
        return dict(self.request("PUT", path, json=body).json())

    def patch(self, path: str, body: Json) -> Json:
        return dict(self.request("PATCH", path, json=body).json())

    def delete(self, path: str) -> Json | None:
        response = self.request("DELETE", path)
        return dict(response.json()) if response.content else None

    def items(self, path: str, **query: Any) -> list[Json]:
        """Every item of a paged list."""
        return list(self._pages(path, query))

    def _pages(self, path: str, query: Json) -> Iterator[Json]:
        cursor: str | None = None
        while True:
            page = self.get(path, **query, limit=100, cursor=cursor)
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def find(self, path: str, name_or_id: str, what: str, list_command: str) -> Json:
        """The item with that id or name."""
        found = [item for item in self.items(path) if name_or_id in (item.get("id"), item.get("name"))]
        if not found:
            raise CliError(f"There is no {what} {name_or_id!r}.", list_command)
        return found[0]

    def follow(self, run_id: str, on_change: Callable[[Json], None]) -> Json:
        """Poll a run by ETag until it ends; ``on_change`` sees every new version."""
        etag = ""
        while True:
            response = self.request("GET", f"/runs/{run_id}", headers={"if-none-match": etag})
            if response.status_code == httpx.codes.OK:
                run: Json = response.json()
                etag = response.headers.get("etag", "")
                on_change(run)
                if run["status"] not in {"pending", "running"}:
                    return run
            time.sleep(_POLL_SECONDS)


def _problem(response: httpx.Response) -> Json:
    try:
        body = response.json()
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    # API Gateway's own errors carry {"message"}, ours are problem documents.
    return {"detail": body.get("message"), **body} if "detail" not in body else body
