"""The adapter against a server that misbehaves in the ways that API servers do: each gets its own kind of error."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from foundry_core.errors import TransientError
from foundry_local.kube import SimulatedCluster

from functions.cluster import engine
from functions.cluster.errors import ClusterUnreachable, EngineFailed, KubeconfigInvalid, ManifestRejected
from functions.cluster.kube import Kube
from functions.cluster.kubeconfig import Credentials, parse
from functions.cluster.tasks.removal import drained


class Server(ThreadingHTTPServer):
    daemon_threads = True
    answer: Callable[[BaseHTTPRequestHandler], None]


class _Handler(BaseHTTPRequestHandler):
    def handle_one(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        self.server.answer(self)  # type: ignore[attr-defined]

    do_GET = do_PATCH = do_DELETE = do_POST = handle_one

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), _Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def kube(server: Server) -> Kube:
    return Kube(Credentials(server=f"http://127.0.0.1:{server.server_address[1]}", token="t"))


def answers(status: int, body: bytes, content_type: str = "application/json") -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("content-type", content_type)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def status(message: str) -> bytes:
    return json.dumps({"kind": "Status", "message": message}).encode()


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (401, status("Unauthorized"), KubeconfigInvalid),
        (403, status("nodes is forbidden"), ManifestRejected),
        (403, status("namespace x is being terminated"), TransientError),
        (409, status("conflict"), ManifestRejected),
        (422, status("spec.x: Invalid"), ManifestRejected),
        (429, status("slow down"), TransientError),
        (500, b"oops", TransientError),
        (502, b"<html>", TransientError),
        (503, b"", TransientError),
        (504, status("timeout"), TransientError),
        (200, b"<html>hello</html>", ClusterUnreachable),
        (200, b"[" * 100_000, ClusterUnreachable),
        (200, b"[]", ClusterUnreachable),
        (200, b"{}", ClusterUnreachable),
        (200, b'{"gitVersion": 5}', ClusterUnreachable),
    ],
)
def test_answers(server: Server, kube: Kube, code: int, body: bytes, error: type[Exception]) -> None:
    server.answer = answers(code, body)
    with pytest.raises(error) as caught:
        kube.version()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_nothing_is_retried_here(server: Server, kube: Kube) -> None:
    calls = []

    def answer(handler: Any) -> None:
        calls.append(1)
        answers(503, b"")(handler)

    server.answer = answer
    with pytest.raises(TransientError):
        kube.version()
    assert len(calls) == 1


def test_a_redirect_is_not_followed(server: Server, kube: Kube) -> None:
    """It would carry the bearer token to whoever the server names."""
    seen = []

    def answer(handler: Any) -> None:
        seen.append(handler.path)
        handler.send_response(307)
        handler.send_header("location", f"http://127.0.0.1:{server.server_address[1]}/elsewhere")
        handler.send_header("content-length", "0")
        handler.end_headers()

    server.answer = answer
    with pytest.raises(ClusterUnreachable):
        kube.version()
    assert seen == ["/version"]


@pytest.mark.parametrize("body", [b"{}", b'{"items": 5}', b'{"items": [5]}', b'{"items": [{}]}'])
def test_lists_that_are_none(server: Server, kube: Kube, body: bytes) -> None:
    server.answer = answers(200, body)
    with pytest.raises(ClusterUnreachable):
        list(kube.items("/api/v1/nodes"))


def test_a_list_without_end(server: Server, kube: Kube) -> None:
    server.answer = answers(200, b'{"items": [], "metadata": {"continue": "more"}}')
    with pytest.raises(ClusterUnreachable, match="without end"):
        list(kube.items("/api/v1/nodes"))


def test_a_broken_connection_is_worth_another_try(server: Server, kube: Kube) -> None:
    server.answer = lambda handler: handler.connection.close()
    with pytest.raises(TransientError):
        kube.version()


def test_half_an_answer_is_worth_another_try(server: Server, kube: Kube) -> None:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "100")
        handler.end_headers()
        handler.wfile.write(b"{")
        handler.connection.close()

    server.answer = answer
    with pytest.raises(TransientError):
        kube.version()


def test_an_untrusted_certificate_is_unreachable(server: Server) -> None:
    """A server that does not speak TLS on an https address."""
    server.answer = answers(200, b"{}")
    with pytest.raises(ClusterUnreachable, match="not trusted"):
        Kube(Credentials(server=f"https://127.0.0.1:{server.server_address[1]}", token="t")).version()


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(ClusterUnreachable, match="does not resolve"):
        Kube(Credentials(server="https://no-such-host.invalid", token="t")).version()


def test_a_key_that_is_no_key() -> None:
    pem = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n").decode()
    credentials = Credentials(server="https://127.0.0.1:1", client_certificate_data=pem, client_key_data=pem)
    with pytest.raises((KubeconfigInvalid, ClusterUnreachable)):
        Kube(credentials).version()


@pytest.fixture
def real(simulated: SimulatedCluster) -> Kube:
    return Kube(parse(simulated.kubeconfig_yaml()))


CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"},
              "data": {"x": "1"}}  # fmt: skip
PATH = "/api/v1/namespaces/default/configmaps/a"


def test_apply_is_idempotent_and_takes_fields_over(real: Kube) -> None:
    first = real.apply(CONFIG_MAP)
    again = real.apply(CONFIG_MAP)
    assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
    assert first["metadata"]["managedFields"][0]["manager"] == "foundry"
    assert real.apply({**CONFIG_MAP, "data": {"y": "2"}})["data"] == {"y": "2"}
    real.delete(PATH)
    real.delete(PATH)
    assert real.get(PATH) is None


def test_apply_into_a_namespace_that_is_not_there(real: Kube) -> None:
    lost = {**CONFIG_MAP, "metadata": {"name": "a", "namespace": "nowhere"}}
    with pytest.raises(ManifestRejected, match="ConfigMap a"):
        real.apply(lost)


def test_lists_follow_pages(real: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.cluster.kube._PAGE", 2)
    names = [node["metadata"]["name"] for node in real.items("/api/v1/nodes")]
    assert len(names) == len(set(names)) >= 5


STREAM = (
    b'data: {"choices":[{"delta":{"content":"Paris"}}]}\n\ndata: {"usage":{"completion_tokens":1}}\n\ndata: [DONE]\n'
)


@pytest.mark.parametrize(
    ("stream", "word"),
    [
        (b"data: [DONE]\n\n", "no token"),
        (b"", "no token"),
        (b"data: {nope\n\n", "not a stream"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "out of memory"),
        (b"x" * (2 << 20), "no end"),
        (b"data: 5\n\ndata: [1]\n\n", "no token"),
    ],
)
def test_answers_that_are_not_completions(server: Server, kube: Kube, stream: bytes, word: str) -> None:
    server.answer = answers(200, stream, "text/event-stream")
    with pytest.raises(EngineFailed, match=word):
        engine.ask(kube, "/api/v1/namespaces/n/services/engine:http", "m")


def test_a_completion(server: Server, kube: Kube) -> None:
    server.answer = answers(200, STREAM, "text/event-stream")
    answer = engine.ask(kube, "/api/v1/namespaces/n/services/engine:http", "m")
    assert (answer.text, answer.output_tokens, answer.tpot_ms) == ("Paris", 1, None) and answer.ttft_ms > 0


def test_a_model_without_a_chat_template(server: Server, kube: Kube) -> None:
    stream = b'data: {"choices":[{"text":"Paris"}]}\n\ndata: {"choices":[{"text":"."}]}\n\ndata: [DONE]\n'

    def answer(handler: Any) -> None:
        chat = handler.path.endswith("/v1/chat/completions")
        answers(400, status("no chat template"))(handler) if chat else answers(200, stream)(handler)

    server.answer = answer
    found = engine.ask(kube, "/api/v1/namespaces/n/services/engine:http", "m")
    assert (found.text, found.output_tokens) == ("Paris.", 2)


def test_an_engine_that_refuses(server: Server, kube: Kube) -> None:
    server.answer = answers(404, status("the model does not exist"))
    with pytest.raises(EngineFailed, match="does not exist"):
        engine.ask(kube, "/api/v1/namespaces/n/services/engine:http", "m")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"data": []}', b'{"data": [{"embedding": []}]}'])
def test_an_answer_without_an_embedding(server: Server, kube: Kube, content: bytes) -> None:
    service = "/api/v1/namespaces/n/services/engine:http"
    server.answer = answers(200, content)
    with pytest.raises(EngineFailed, match="embedding"):
        engine.ask(kube, service, "m", embeds=True)
    server.answer = answers(200, b'{"data": [{"embedding": [0.5]}]}')
    assert engine.ask(kube, service, "m", embeds=True).output_tokens == 0


def test_requests_in_flight_are_read_off_the_metrics(server: Server, kube: Kube) -> None:
    text = b'# HELP x\nvllm:num_requests_running{model_name="m"} 3.0\nvllm:num_requests_waiting{model_name="m"} 2\n'
    server.answer = answers(200, text, "text/plain")
    assert engine.requests_in_flight(kube, "/api/v1/namespaces/n/services/engine:http") == 5


def test_draining_ends_when_idle_or_when_patience_does() -> None:
    looks, naps = iter([2, 1, 0, 3, 0, 0, 0, 9]), list[float]()
    assert drained(lambda: next(looks), naps.append) == 0 and len(naps) == 6
    naps.clear()
    assert drained(lambda: 1, naps.append) == 1 and sum(naps) == 30
