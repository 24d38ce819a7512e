"""The Hub is a small HTTP server on this machine: an export is uploaded to it, downloaded from it, and predicts."""

import base64
import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest
from synthetic_run import loader_of, make_dataset, run_config

from unstill.pipeline.errors import InputError
from unstill.trainer.inference.classifier import load_classifier
from unstill.trainer.inference.config import ExportConfig
from unstill.trainer.inference.export import export
from unstill.trainer.inference.hub import model_folder
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.train import train

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.usefixtures("one_thread")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub's interface as one upload and one download need; ``files`` is its one repository."""

    files: dict[str, bytes]
    asked: list[str]
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(f"POST {self.path}")
        if self.path.endswith("/repos/create"):
            if b"private" not in body:  # as visibility or as a flag, by version
                return self._json({"error": "a new repository must be private"}, 400)
            self._json({"url": f"http://{self.headers['Host']}/me/mine", "name": "me/mine", "id": "1"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": n, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for n in names]
            self._json({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json(
                {"commitUrl": f"https://huggingface.co/me/mine/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
            )
        else:
            self._json({"warnings": [], "errors": []})

    def do_HEAD(self):
        self._file(send=False)

    def do_GET(self):
        self._file(send=True)

    def _file(self, send):
        self.asked.append(f"{self.command} {self.path}")
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/api/"):
            return self._json({"id": "me/mine", "sha": COMMIT, "private": True, "siblings": []})
        content = self.files.get(name)
        if content is None or not self.path.startswith("/me/mine/resolve/"):
            return self._json({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if send:
            self.wfile.write(content)

    def _json(self, content, status=200, headers=None):
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    Hub.files, Hub.asked = {}, []
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{found.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield Hub
    found.shutdown()
    found.server_close()


@pytest.mark.slow
def test_an_export_goes_to_the_hub_and_comes_back(server, tmp_path):
    make_dataset(tmp_path / "data")
    config = run_config(tmp_path, model=ModelConfig(name="motion_cnn"), epochs=8 / 24)
    train(config, make_loader=loader_of())
    written = export(ExportConfig(run=config.out, out=tmp_path / "mine", formats=(), push="me/mine"))
    assert written.address and written.address.endswith("me/mine")
    assert set(server.files) == {"README.md", "config.json", "labels.txt", "model.safetensors"}
    assert server.files["README.md"].startswith(b"---\nlibrary_name: unstill\n")

    server.asked.clear()
    folder = model_folder(Path("hf:me/mine"))
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "mine/model.safetensors").read_bytes()
    _, facts = load_classifier(folder)
    assert facts.classes and not (folder / "README.md").exists()  # what is not needed is not asked for
    assert not [path for path in server.asked if path.startswith("GET") and not path.endswith((".json", ".txt", "ors"))]


def test_a_model_that_is_not_there_is_said_in_a_line(server, tmp_path):
    for name in ("hf:me/other", "hf:me/mine@gone"):
        with pytest.raises(InputError, match=r"not to be had from the Hub"):
            model_folder(Path(name))
    for name in ("hf:", "hf:a", "hf:../..//x", "hf:a/b/c"):
        with pytest.raises(InputError, match="expected hf:ORG/NAME"):
            model_folder(Path(name))
    assert model_folder(tmp_path) == tmp_path


def test_without_a_network_nothing_is_tried_again(monkeypatch, caplog):
    """It took 23 s and 22 lines."""
    monkeypatch.setenv("HF_ENDPOINT", "http://nowhere.invalid")
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    with pytest.raises(InputError, match="not in the cache, and the Hub cannot be reached; give a folder"):
        model_folder(Path("hf:me/mine"))
    assert not caplog.records
