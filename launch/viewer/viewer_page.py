"""`show.html`: all episodes in one file that opens from the disk and needs nothing else.

Every episode is a line of base64 of gzip of JSON, unpacked by the browser when it is looked at; so is the list, and the
text that is searched. Base64 cannot end a script element, and the page's script puts all text in as text nodes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from markupsafe import Markup

from launch.reporting.html import TEMPLATES, template
from launch.viewer.episodes import STATUSES, Episode
from launch.viewer.highlight import coloured
from launch.viewer.inputs import Group
from launch.viewer.token_rows import Pieces, Shown, counts
from launch.viewer.turns import Turn
from sweet_jax.data.token_rows import row_to_json

SCRIPTS = ("show_dom.js", "show_episode.js", "show_list.js")
TITLE = 90  # characters of a problem in the list


def page(episodes: Sequence[Episode], groups: Sequence[Group], pieces: Pieces) -> str:
    """Render the page as HTML."""
    blocks = [packed(_episode(one, pieces)) for one in episodes]
    index = {
        "statuses": STATUSES,
        "groups": {group.name: str(group.path) for group in groups},
        "pieces": pieces.table(token for one in episodes for token in _tokens(one)),
        "texts": pieces.chat is not None,
        "rows": [
            [one.group, one.line, STATUSES.index(one.status), " ".join(one.problem.split())[:TITLE], one.outcome,
             len(one.turns), one.reward]
            for one in episodes
        ],
    }  # fmt: skip
    style = (TEMPLATES / "show.css").read_text(encoding="utf-8")
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return template("show.html").render(
        title=", ".join(str(group.path) for group in groups),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        index=Markup(packed(index)),
        search=Markup(packed([_searched(one) for one in episodes])),
        blocks=Markup("\n".join(blocks)),
    )


def packed(data: Any) -> str:
    """Return base64 of gzip of the data's JSON, the same for the same data."""
    return base64.b64encode(gzip.compress(json.dumps(data, separators=(",", ":")).encode(), 6, mtime=0)).decode()


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _searched(one: Episode) -> str:
    texts = [text for turn in one.turns for text in (turn.thought, turn.said)] + [reply.text for reply in one.replies]
    return "\n".join([one.task_id, one.problem, *texts, one.answer, one.error]).lower()


def _tokens(one: Episode) -> Iterator[int]:
    """Yield every token that the page may show."""
    for together in one.rows:
        for shown in together.rows:
            yield from shown.row.ids.tolist()
    for turn in one.turns:
        yield from turn.ids or ()
        for candidate in turn.candidates:
            yield from candidate.ids or ()


def _episode(one: Episode, pieces: Pieces) -> dict[str, Any]:
    """Return the episode as the page's script reads it, with null for what is not recorded."""
    plain = {
        "id": [one.group, one.line],
        "outcome": one.outcome,
        "answer": coloured(one.answer),
        "reference": coloured(one.reference),
        "turns": [_turn(turn) for turn in one.turns],
        "tests": [asdict(test) for test in one.tests],
        "replies": [asdict(reply) for reply in one.replies],
        "images": None if one.images is None else asdict(one.images),
        "rows": [
            {"title": together.title, "rows": [_row(shown, pieces) for shown in together.rows]} for together in one.rows
        ],
    }
    same = ("task_id", "problem", "status", "reward", "facts", "error", "hidden", "more_pairs", "baseline")
    return plain | {name: getattr(one, name) for name in same}


def _rounded(ratios: Sequence[float | None] | None) -> list[float | None] | None:
    return None if ratios is None else [ratio if ratio is None else round(ratio, 3) for ratio in ratios]


def _turn(turn: Turn) -> dict[str, Any]:
    found = asdict(replace(turn, pairs=())) | {"log_ratios": _rounded(turn.log_ratios)}
    del found["pairs"], found["more_pairs"]  # the episode's rows have them
    for candidate in found["candidates"]:
        candidate |= {"log_ratios": _rounded(candidate["log_ratios"]), "advantage": round(candidate["advantage"], 4)}
        if candidate["ids"] is not None and candidate["log_ratios"] is None:
            candidate["ids"] = None  # nothing to colour: the text says as much
    return found


def _row(shown: Shown, pieces: Pieces) -> dict[str, Any]:
    about = {"title": shown.title, "counts": counts(shown.row, pieces.chat).text}
    return row_to_json(shown.row) | about | {"log_ratios": _rounded(shown.log_ratios)}
