"""MkDocs hook: guides of the root folder and the example become pages; every public module gets a reference page."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
GUIDES = {
    "README.md": "index.md",
    "AGENTS.md": "agents.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
EXAMPLE = "examples/sweet.py"
PAGES = GUIDES | {EXAMPLE: "example.md"}
PACKAGES = ("models", "sweet_jax", "colbench_env")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the reference to the navigation."""
    assert config.nav is not None
    config.nav.append({"Reference": [{package: _entries(ROOT / package)} for package in PACKAGES]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are generated."""
    for guide, page in GUIDES.items():
        text = _links_of_the_site((ROOT / guide).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    example = (ROOT / EXAMPLE).read_text(encoding="utf-8")
    content = f"# SWEET-RL in one file\n\n```python\n{example}```\n"
    files.append(File.generated(config, PAGES[EXAMPLE], content=content))
    for package in PACKAGES:
        for module in sorted((ROOT / package).rglob("*.py")):
            if _is_public(module):
                name = ".".join(_parts(module))
                files.append(File.generated(config, _page(module), content=f"# {name}\n\n::: {name}\n"))
    return files


def _links_of_the_site(text: str) -> str:
    """Point links from the repository's root to the site's pages."""
    for source, page in PAGES.items():
        text = text.replace(f"]({source})", f"]({page})")
    return re.sub(r"(\]\(|src=\")docs/", r"\1", text)


def _entries(folder: Path) -> list[Any]:
    """List the reference pages of a package: itself, its modules, its packages."""
    modules = [path for path in sorted(folder.glob("*.py")) if path.stem != "__init__" and _is_public(path)]
    packages = [path for path in sorted(folder.iterdir()) if (path / "__init__.py").exists()]
    return [
        _page(folder / "__init__.py"),
        *({path.stem: _page(path)} for path in modules),
        *({path.name: _entries(path)} for path in packages),
    ]


def _is_public(module: Path) -> bool:
    return not module.stem.startswith("_") or module.stem == "__init__"


def _parts(module: Path) -> tuple[str, ...]:
    """Split a module's dotted name: sweet_jax/losses.py is ("sweet_jax", "losses")."""
    parts = module.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _page(module: Path) -> str:
    """Name the page of a module, relative to the site."""
    place = Path("reference", *_parts(module))
    return str(place / "index.md" if module.stem == "__init__" else place.with_suffix(".md"))
