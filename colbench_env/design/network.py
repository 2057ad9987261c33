"""What a page gets for what it asks for: itself, the stylesheet, a picture, or a refusal that is counted."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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


@dataclass
class Network:
    """Answers every request of the renderer's pages. `images` are the real pictures by URL, once they were fetched."""

    stylesheet: Stylesheet
    assets: Path | None
    online_images: bool
    images: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    _sheet: Trimmer | None = None

    def sheet_for(self, html: str) -> str:
        """What matters of the stylesheet to the page. Raises BadInput where it was not fetched or is another."""
        if self._sheet is None:
            self._sheet = Trimmer(read_stylesheet(self.stylesheet, assets_directory(self.assets)).decode())
        return self._sheet.trimmed(html)

    def asks_for_sheet(self, url: str) -> bool:
        """Whether the URL is one of the stylesheet's, by whichever scheme and with whichever query."""
        parts = urlsplit(url)
        return f"{parts.hostname}{parts.path}" in self.stylesheet.urls


@dataclass
class Visit:
    """One page's requests: how many were refused, and the error of the machine, if there was one."""

    network: Network
    html: str
    refused: int = 0
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
        if self.network.asks_for_sheet(url) and self.sheets < SHEETS:
            self.sheets += 1
            return await route.fulfill(body=self.network.sheet_for(self.html), content_type="text/css; charset=utf-8")
        if (picture := placeholder(url)) and not navigates:
            if not self.network.online_images:
                return await route.fulfill(body=picture.svg(), content_type="image/svg+xml")
            body, kind = await self._fetched(route, url) or (picture.svg(), "image/svg+xml")
            return await route.fulfill(body=body, content_type=kind)
        self.refused += 1
        if not navigates:
            return await route.abort()
        if request.frame.parent_frame is None:
            return await route.fulfill(status=204)  # the page stays where it is
        return await route.fulfill(body=EMPTY_FRAME, content_type="text/html")

    async def _fetched(self, route: Any, url: str) -> tuple[bytes | str, str] | None:
        """The photograph, None where its host has none."""
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
