"""The HTTP side: /metrics for Prometheus, /healthz and /readyz for probes."""

import threading
from collections.abc import Callable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector

from birnn_service.errors import StartupError

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # With it a second server could take the same port, and half of the scrapes.
    allow_reuse_port = False

    def server_bind(self) -> None:
        """Bind without asking the DNS for this machine's name, as the standard library does; nothing here needs it."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep scrapes and probes, several a minute, out of the log."""


class HttpServer:
    """Serves the metrics registry and two probes from its own threads, so that a busy event loop hides neither."""

    def __init__(
        self, host: str, port: int, metrics: Collector, *, live: Callable[[], bool], ready: Callable[[], bool]
    ) -> None:
        """Listen at once; a scrape collects `metrics`.

        Raises:
            StartupError: The port is taken or the address is not this machine's.
        """
        registry = CollectorRegistry()
        registry.register(metrics)
        self._metrics_app = make_wsgi_app(registry)
        self._probes = {"/healthz": live, "/readyz": ready}
        try:
            self._server = make_server(host, port, self._app, server_class=_Server, handler_class=_QuietHandler)
        except OSError as error:
            raise StartupError(
                f"cannot listen on {host}:{port} for metrics: {error.strerror}; choose another with --metrics-port"
            ) from error
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="birnn-http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()

    def _app(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return list(self._metrics_app(environ, start_response))
        probe = self._probes.get(path)
        if probe is None:
            return _reply(start_response, "404 Not Found", "here are /metrics, /healthz and /readyz\n")
        if probe():
            return _reply(start_response, "200 OK", "ok\n")
        return _reply(start_response, "503 Service Unavailable", "not ok\n")


def _reply(start_response: StartResponse, status: str, text: str) -> list[bytes]:
    body = text.encode()
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
