"""Fetches what the renderer of frontend pages needs, once: from its CDN, else from the npm registry."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests

from colbench_env.design.assets import TAILWIND, Stylesheet, assets_directory, check_hash
from colbench_env.replace_file import replace_file
from colbench_env.types import BadInput
from launch.common import cli

PUBLIC_REGISTRY = "https://registry.npmjs.org"
PACKAGE = "tailwindcss/-/tailwindcss-2.2.19.tgz"
MEMBER = "package/dist/tailwind.min.css"
TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class AssetsConfig:
    """Fetch the Tailwind 2.2.19 stylesheet that the frontend pages ask for, check its sha256 and keep it."""

    assets_dir: Path | None = None
    """Directory that it is kept in; none: $COLBENCH_ASSETS, else the user's cache directory."""
    registry: str | None = None
    """npm registry that is asked after the CDN; none: $npm_config_registry, that of `npm config`, or the public one."""


def fetch_assets(config: AssetsConfig, sheet: Stylesheet = TAILWIND, say: Callable[[str], None] = print) -> Path:
    """Fetch and check the stylesheet unless it is there; return its path. Raises `cli.Stopped` if it cannot be had."""
    directory = assets_directory(config.assets_dir)
    path = directory / sheet.name
    if path.exists():
        check_hash(sheet, path.read_bytes(), f"{path} (remove it to fetch it again)")
        say(f"{path} is there already")
        return path
    registry = (config.registry or npm_registry()).rstrip("/")
    sources: dict[str, Callable[[bytes], bytes]] = {
        f"https://{sheet.urls[0]}": bytes,
        f"{registry}/{PACKAGE}": from_package,
    }
    failed = []
    for url, unpacked in sources.items():
        try:
            content = check_hash(sheet, unpacked(_get(url)), url)
        except (requests.RequestException, tarfile.TarError, KeyError, BadInput) as error:
            failed.append(f"{url} ({_reason(error)})")
            continue
        directory.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as file:
            file.write(content)
        say(f"{path}: {len(content)} bytes from {url}")
        return path
    raise cli.Stopped(f"{sheet.name} cannot be had from {' nor from '.join(failed)}; --registry names another registry")


def npm_registry() -> str:
    """Return the registry that npm is configured with, else the public one."""
    named = os.environ.get("npm_config_registry") or os.environ.get("NPM_CONFIG_REGISTRY")
    if named:
        return named
    if npm := shutil.which("npm"):
        answer = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.startswith("http"):
            return answer.stdout.strip()
    return PUBLIC_REGISTRY


def from_package(package: bytes) -> bytes:
    """Extract the stylesheet from the bytes of its npm package."""
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        member = archive.extractfile(MEMBER)
        if member is None:
            raise KeyError(f"{MEMBER} is no file")
        return member.read()


def _reason(error: Exception) -> str:
    short = isinstance(error, requests.ConnectionError | requests.Timeout)  # their texts are pages long
    return type(error).__name__ if short else str(error).splitlines()[0]


def _get(url: str) -> bytes:
    response = requests.get(url, timeout=TIMEOUT)
    response.raise_for_status()
    return response.content
