"""What a page gets for what it asks for: itself, the stylesheet, a script that brings it, a picture, or a refusal."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colbench_env.design.assets import Stylesheet, assets_directory, read_stylesheet
from colbench_env.design.placeholders import placeholder
from colbench_env.design.trimming import Trimmer

PAGE = "http://page.invalid/"
HEADERS = {
    "content-type": "text/html; charset=utf-8",
    # Popups, dialogs, downloads, forms, pointer lock and navigations of the top are refused by the browser itself.
    "content-security-policy": "sandbox allow-scripts allow-same-origin",
}
EMPTY_FRAME = "<!doctype html>"
SHEETS = 4  # times that a page gets the stylesheet
PHOTOGRAPHS = 256  # that are kept
NAMED = {"sheets": 20, "url": 200}  # most stylesheets that are named as missing, and characters of a URL

# What Tailwind's own scripts do to a page, with the rules of the stylesheet at URL: they stand at the end of the head.
# Pages set `tailwind.config`, so that must exist.
SCRIPT = """(() => {
  window.tailwind ??= {};
  const style = () => {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = "URL";
    (document.head ?? document.documentElement).append(link);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", style);
  else style();
})();"""


@dataclass
class Network:
    """Answers every request of the renderer's pages. `images` are the real pictures by URL, once they were fetched."""

    stylesheet: Stylesheet
    assets: Path | None
    online_images: bool
    images: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    _sheet: Trimmer | None = None

    def sheet_for(self, html: str) -> str:
        """Select the part of the stylesheet that matters to the page. Raises BadInput where it was not fetched or is
        another."""
        if self._sheet is None:
            self._sheet = Trimmer(read_stylesheet(self.stylesheet, assets_directory(self.assets)).decode())
        return self._sheet.trim(html)

    def script(self) -> str:
        """Return the script that brings a page the stylesheet."""
        return SCRIPT.replace("URL", f"https://{self.stylesheet.urls[0]}")


@dataclass
class Visit:
    """One page's requests: how many were refused, which of them were for stylesheets, and the error of the machine, if
    there was one."""

    network: Network
    html: str
    refused: int = 0
    missing_sheets: dict[str, None] = field(default_factory=dict)
    error: Exception | None = None
    opened: bool = False
    sheets: int = 0

    async def answer(self, route: Any) -> None:
        """Answers one request of Playwright's."""
        from playwright.async_api import Error

        try:
            await self._answer(route)
        except Error:
            pass  # the page was closed before its answer came
        except Exception as error:
            self.error = self.error or error
            await route.abort()

    def miss(self, url: str) -> None:
        """Note a stylesheet that the page asked for and did not get."""
        if len(self.missing_sheets) < NAMED["sheets"]:
            self.missing_sheets[url[: NAMED["url"]]] = None

    async def refuse_socket(self, socket: Any) -> None:
        """Refuses one web socket."""
        self.refused += 1
        await socket.close()

    async def _answer(self, route: Any) -> None:
        request = route.request
        url, navigates = request.url, request.is_navigation_request()
        if navigates and url == PAGE and not self.opened:
            self.opened = True
            return await route.fulfill(body=self.html.encode("utf-8", "replace"), headers=HEADERS)
        sheet, kind = self.network.stylesheet, request.resource_type
        if sheet.answers(url) and self.sheets < SHEETS:
            self.sheets += 1
            return await route.fulfill(body=self.network.sheet_for(self.html), content_type="text/css; charset=utf-8")
        if kind == "script" and sheet.answers_script(url):
            return await route.fulfill(body=self.network.script(), content_type="text/javascript; charset=utf-8")
        if (picture := placeholder(url)) and not navigates:
            if not self.network.online_images:
                return await route.fulfill(body=picture.svg(), content_type="image/svg+xml")
            body, kind = await self._fetch(route, url) or (picture.svg(), "image/svg+xml")
            return await route.fulfill(body=body, content_type=kind)
        self.refused += 1
        styles = kind == "stylesheet" or (kind == "script" and "tailwind" in url)
        if styles and not sheet.answers(url):  # else it was asked for too often
            self.miss(url)
        if not navigates:
            return await route.abort()
        if request.frame.parent_frame is None:
            return await route.fulfill(status=204)  # the page stays where it is
        return await route.fulfill(body=EMPTY_FRAME, content_type="text/html")

    async def _fetch(self, route: Any, url: str) -> tuple[bytes | str, str] | None:
        """Fetch the photograph, None where its host has none."""
        from playwright.async_api import Error

        images = self.network.images
        if url not in images:
            try:
                response = await route.fetch()
            except Error as error:
                raise ConnectionError(f"{url}: cannot be fetched: {str(error).splitlines()[0]}") from error
            if not response.ok:
                return None
            if len(images) >= PHOTOGRAPHS:
                del images[next(iter(images))]
            images[url] = (await response.body(), response.headers.get("content-type", "image/jpeg"))
        return images[url]
