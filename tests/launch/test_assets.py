"""`launch.data assets`: the stylesheet is fetched once, checked, and else refused with one sentence."""

import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from colbench_env.design.assets import TAILWIND, Stylesheet, assets_directory, read_stylesheet
from colbench_env.types import BadInput
from launch import data
from launch.common import cli
from launch.data_tools import fetch_assets as assets
from launch.data_tools.fetch_assets import AssetsConfig, fetch_assets, npm_registry

CSS = b"body { color: red }"
SHEET = Stylesheet("small.css", hashlib.sha256(CSS).hexdigest(), ("sheets.invalid/small.css",))


def package(css, member=assets.MEMBER):
    """The bytes of an npm package that holds the stylesheet."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = len(css)
        archive.addfile(entry, io.BytesIO(css))
    return written.getvalue()


@pytest.fixture
def registry():
    """A registry on this machine: its `body` is what it answers for the package, `asked` what it was asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            self.send_response(200 if server.body else 404)
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.body, server.asked, server.url = package(CSS), [], f"http://127.0.0.1:{server.server_address[1]}/npm/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_stylesheet_is_fetched_once_from_the_registry_where_the_cdn_is_out_of_reach(registry, tmp_path):
    config, said = AssetsConfig(tmp_path / "new", registry.url), []
    path = fetch_assets(config, SHEET, said.append)
    assert (path, path.read_bytes()) == (tmp_path / "new" / "small.css", CSS)
    assert fetch_assets(config, SHEET, said.append) == path
    assert registry.asked == ["/npm/tailwindcss/-/tailwindcss-2.2.19.tgz"]
    assert said == [
        f"{path}: 19 bytes from {registry.url}tailwindcss/-/tailwindcss-2.2.19.tgz",
        f"{path} is there already",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (package(b"other"), r"sha256 [0-9a-f]{64} \(5 bytes\), expected [0-9a-f]{64} of small.css"),
        (package(CSS, "package/else"), "filename 'package/dist/tailwind.min.css' not found"),
        (b"no package", "not a gzip file"),
        (b"", "404 Client Error: Not Found"),
    ],
    ids=["other", "elsewhere", "rubbish", "none"],
)
def test_what_is_not_the_stylesheet_is_refused_with_one_sentence_and_not_kept(registry, tmp_path, body, reason):
    registry.body = body
    with pytest.raises(
        cli.Stopped, match=rf"^small.css cannot be had from \S+ \(ConnectionError\) nor from .*{reason}"
    ):
        fetch_assets(AssetsConfig(tmp_path, registry.url), SHEET)
    assert list(tmp_path.iterdir()) == []


def test_a_spoilt_file_is_named(tmp_path):
    (tmp_path / "small.css").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"small.css \(remove it to fetch it again\): sha256 [0-9a-f]{64} \(1 bytes\)"):
        fetch_assets(AssetsConfig(tmp_path), SHEET)


def test_the_command_says_where_nothing_could_be_had(in_process, monkeypatch, tmp_path):
    monkeypatch.setattr(assets.requests, "get", lambda url, **_: (_ for _ in ()).throw(assets.requests.Timeout("long")))
    ended = in_process(data.main, "assets", f"--assets-dir={tmp_path}", "--registry=https://registry.invalid/")
    assert (ended.status, ended.errors) == (
        1,
        [
            "error: tailwindcss-2.2.19.min.css cannot be had from "
            "https://cdn.jsdelivr.net/npm/tailwindcss@2.2.19/dist/tailwind.min.css (Timeout) nor from "
            "https://registry.invalid/tailwindcss/-/tailwindcss-2.2.19.tgz (Timeout); --registry names another registry"
        ],
    )


def test_the_registry_is_the_one_of_npm_and_the_directory_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("npm_config_registry", "https://one.invalid/")
    assert npm_registry() == "https://one.invalid/"
    monkeypatch.delenv("npm_config_registry")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert npm_registry() == "https://registry.npmjs.org"
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho https://two.invalid/\n")
    npm.chmod(0o755)
    assert npm_registry() == "https://two.invalid/"
    monkeypatch.setenv("COLBENCH_ASSETS", str(tmp_path / "named"))
    assert assets_directory() == tmp_path / "named"
    assert assets_directory(tmp_path) == tmp_path


def test_the_real_stylesheet_is_what_it_must_be():
    if not (assets_directory() / TAILWIND.name).exists():
        pytest.skip("the stylesheet was not fetched: python -m launch.data assets")
    assert b"tailwindcss v2.2.19" in read_stylesheet(TAILWIND, assets_directory())[:200]
