"""Which stylesheets the pages of graded dialogues asked for and did not get, as sentences of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from colbench_env.types import Trajectory

MOST = 5  # stylesheets that are named


def missing_sheets(source: str, rows: Sequence[Trajectory]) -> list[str]:
    """Describe pages, and references, that were rendered without a stylesheet of their own, a sentence each.

    In: "start", rows   Out: ["start: 31 of 150 pages asked for a style sheet that they did not get:
    fonts.googleapis.com/css2 (20), site.test/a.css (11)"]
    """
    graded = [page for row in rows if isinstance(page := row.extra.get("page"), dict)]
    sentences = []
    for key, what in (("missing_sheets", "pages"), ("reference_missing_sheets", "references")):
        lacking = [_places(page[key]) for page in graded if isinstance(page.get(key), list)]
        counts = Counter(place for places in lacking for place in places).most_common()
        if counts:
            named = ", ".join(f"{place} ({count})" for place, count in counts[:MOST])
            more = f" and {len(counts) - MOST} more" if len(counts) > MOST else ""
            sentences.append(
                f"{source}: {len(lacking)} of {len(graded)} {what} asked for a style sheet that they did not get: "
                f"{named}{more}"
            )
    return sentences


def _places(urls: list[object]) -> list[str]:
    """Return host and path of each URL, once.

    In: ["https://fonts.googleapis.com/css2?family=Inter"]   Out: ["fonts.googleapis.com/css2"]
    """
    return list(dict.fromkeys(str(url).partition("?")[0].split("://", 1)[-1] for url in urls))
