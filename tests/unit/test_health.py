"""The image's health check, against a server that answers as it is told."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import health


class Server(http.server.HTTPServer):
    status = 200


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.send_response(self.server.status if self.path == "/livez" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(("status", "code", "said"), [(200, 0, "alive"), (503, 1, "answers with status 503")])
def test_it_says_what_livez_says(
    server: Server, capsys: pytest.CaptureFixture[str], host: str, status: int, code: int, said: str
) -> None:
    server.status = status
    assert health.main({"HILGATE_HTTP": f"{host}:{server.server_port}"}) == code
    assert said in capsys.readouterr().out


def test_the_address_may_stand_in_the_settings_file(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"bench: x\nhttp: 127.0.0.1:{server.server_port}\n")
    assert health.main({}, file) == 0
    server.status = 503
    assert health.main({}, file) == 1
    assert health.main({"HILGATE_HTTP": "127.0.0.1:1"}, file) == 1, "the environment wins"


def test_address_and_certificate_may_stand_in_different_places(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """TLS is spoken to an address of the environment where the file has a certificate."""
    file = tmp_path / "settings.yaml"
    file.write_text("bench: x\nhttp_cert: http.pem\n")
    assert health.main({"HILGATE_HTTP": f"127.0.0.1:{server.server_port}"}, file) == 1
    assert "SSL" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "bench: x\n"])
def test_without_an_address_there_is_nothing_to_ask(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "settings.yaml"
    if text is not None:
        file.write_text(text)
    assert health.main({}, file) == 0
    assert "nothing to ask" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["- a list", "a: [", "http: nowhere\n", "http: 127.0.0.1:99999999\n"])
def test_what_cannot_be_asked_is_not_well(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert health.main({}, file) == 1
    assert capsys.readouterr().out.strip()


def test_nobody_there(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    port = server.server_port
    server.shutdown()
    server.server_close()
    assert health.main({"HILGATE_HTTP": f"127.0.0.1:{port}"}) == 1
    assert "does not answer" in capsys.readouterr().out


def test_a_line_with_tls_is_asked_by_tls(server: Server) -> None:
    # What answers in plain text is no server of TLS.
    given = {"HILGATE_HTTP": f"127.0.0.1:{server.server_port}", "HILGATE_HTTP_CERT": "cert.pem"}
    assert health.main(given) == 1
