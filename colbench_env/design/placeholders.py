"""Pictures in place of the photographs that pages ask other hosts for: of the asked size, and the same each time.

The colour comes from which picture is asked for, not from its size. A picsum URL without an id stands for id 48, as the
released benchmark has it.
"""

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

HOSTS = {
    "picsum.photos", "i.picsum.photos", "fastly.picsum.photos", "source.unsplash.com", "images.unsplash.com",
    "via.placeholder.com", "placehold.it", "placehold.co", "dummyimage.com", "placekitten.com", "loremflickr.com",
    "placeimg.com",
}  # fmt: skip
DEFAULT_ID = "id/48"
DEFAULT_SIZE = 300
MAX_SIDE = 5000  # as picsum has it

PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<defs><linearGradient id="g" x1="0" y1="0" x2="1" y2="1"><stop offset="0" stop-color="{light}"/>\
<stop offset="1" stop-color="{dark}"/></linearGradient></defs>
<rect width="100%" height="100%" fill="url(#g)"/>
<circle cx="{sun_x}%" cy="30%" r="12%" fill="#fff" fill-opacity=".5"/>
<path d="M0 {height} L{a} {b} L{c} {height} Z M{d} {height} L{e} {f} L{width} {height} Z" fill-opacity=".25"/>
</svg>"""


@dataclass(frozen=True)
class Placeholder:
    """A picture that is asked for: which one it is, and its size in pixels."""

    identity: str
    width: int
    height: int

    def svg(self) -> str:
        """Draw the picture as an SVG document."""
        digest = hashlib.sha256(self.identity.encode()).digest()
        hue, sun = digest[0] * 360 // 256, 20 + digest[1] % 60
        width, height = self.width, self.height
        return PICTURE.format(
            width=width, height=height, light=f"hsl({hue},45%,75%)", dark=f"hsl({(hue + 40) % 360},40%,45%)", sun_x=sun,
            a=width * 30 // 100, b=height * (40 + digest[2] % 20) // 100, c=width * 65 // 100,
            d=width * 40 // 100, e=width * 75 // 100, f=height * (45 + digest[3] % 20) // 100,
        )  # fmt: skip


def placeholder(url: str) -> Placeholder | None:
    """Read what picture the URL asks for, None where its host is none that gives pictures of an asked size.

    In: "https://picsum.photos/id/48/200/300"   Out: Placeholder("picsum.photos/id/48", 200, 300)
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").removeprefix("www.")
    if host not in HOSTS:
        return None
    path, query = parts.path.strip("/"), parse_qs(parts.query)
    named = re.match(r"(id|seed)/[^/]+", path)
    rest = path[named.end() :].strip("/") if named else path
    sizes = re.search(r"(?:^|/)(\d+)(?:[x/](\d+))?(?![^/.?-])", rest)
    width, height = (sizes[1], sizes[2] or sizes[1]) if sizes else (None, None)
    width = width or _first(query, "w", "width")
    height = height or _first(query, "h", "height") or width
    identity = named[0] if named else DEFAULT_ID if host.endswith(("picsum.photos", "source.unsplash.com")) else rest
    site = "picsum.photos" if host.endswith(("picsum.photos", "source.unsplash.com")) else host
    return Placeholder(f"{site}/{identity}", _side(width), _side(height))


def _first(query: dict[str, list[str]], *names: str) -> str | None:
    return next((query[name][0] for name in names if name in query), None)


def _side(text: str | None) -> int:
    return min(max(int(text[:9]), 1), MAX_SIDE) if text and text.isdecimal() else DEFAULT_SIZE
