"""Draw the loop of SWEET-RL as docs/figures/loop.svg: python docs/figures/make_loop.py."""

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 960, 372
BOX_WIDTH, BOX_HEIGHT, GAP, MARGIN = 200, 88, 40, 20
TOP, BAND_TOP, BAND_HEIGHT = 20, 158, 40
BOTTOM = HEIGHT - MARGIN - BOX_HEIGHT

STYLE = """
  svg { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
  .page { fill: #ffffff; stroke: #d0d7de; }
  .play { fill: #e6f4f1; stroke: #0f766e; } .learn { fill: #eaf0fb; stroke: #2f5fb3; }
  .info { fill: #fdf3e1; stroke: #b45309; }
  .title { fill: #1f2328; font-size: 16px; font-weight: 600; } .text { fill: #424a53; font-size: 12.5px; }
  .stage { fill: #59636e; font-size: 11px; font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
  .flow { stroke: #424a53; stroke-width: 2; fill: none; } .tip { fill: #424a53; }
  .shown { stroke: #b45309; stroke-width: 1.5; stroke-dasharray: 5 4; fill: none; } .shown-tip { fill: #b45309; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d; }
    .play { fill: #0f2f2c; stroke: #2dd4bf; } .learn { fill: #14233f; stroke: #7aa7f0; }
    .info { fill: #33230d; stroke: #f0a94a; }
    .title { fill: #f0f6fc; } .text { fill: #c9d1d9; } .stage { fill: #9aa4ae; }
    .flow { stroke: #c9d1d9; } .tip { fill: #c9d1d9; } .shown { stroke: #f0a94a; } .shown-tip { fill: #f0a94a; }
  }
"""


@dataclass(frozen=True)
class Box:
    """A part of the loop: its place in the grid, its heading, two lines of text, and its stages' names."""

    column: int
    row: int
    kind: str
    title: str
    lines: tuple[str, str]
    stage: str

    @property
    def left(self) -> int:
        """Left edge, in pixels."""
        return MARGIN + self.column * (BOX_WIDTH + GAP)

    @property
    def top(self) -> int:
        """Upper edge, in pixels."""
        return BOTTOM if self.row else TOP

    def svg(self) -> str:
        """Draw it."""
        x = self.left + 12
        size = f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}"'
        return (
            f'<rect class="{self.kind}" x="{self.left}" y="{self.top}" {size} rx="8"/>'
            f'<text class="title" x="{x}" y="{self.top + 24}">{escape(self.title)}</text>'
            f'<text class="text" x="{x}" y="{self.top + 43}">{escape(self.lines[0])}</text>'
            f'<text class="text" x="{x}" y="{self.top + 59}">{escape(self.lines[1])}</text>'
            f'<text class="stage" x="{x}" y="{self.top + 78}">{escape(self.stage)}</text>'
        )


BOXES = (
    Box(0, 0, "play", "1 Roll out", ("the agent asks, the user", "simulator replies"), "rollouts"),
    Box(1, 0, "play", "2 Grade", ("a sandbox runs the answer:", "share of tests passed"), "grading"),
    Box(2, 0, "play", "3 Pair dialogues", ("chosen and rejected", "dialogues of one task"), "pairs"),
    Box(3, 0, "learn", "4 Train the critic", ("Bradley-Terry on dialogues,", "one advantage a turn"), "critic"),
    Box(3, 1, "play", "5 Rank candidates", ("16 candidates a turn,", "scored by the critic"), "candidates, ranking"),
    Box(2, 1, "play", "6 Pair turns", ("chosen: a better candidate,", "rejected: a worse one"), "turn-pairs"),
    Box(1, 1, "learn", "7 Train the policy", ("DPO on turns, without the", "reference solution"), "policy"),
    Box(0, 1, "play", "8 Evaluate", ("before and after, on the", "same held-out tasks"), "evaluation"),
)


def arrow(x: int, y: int, to_x: int, to_y: int, line: str, tip: str) -> str:
    """Draw a horizontal or vertical arrow."""
    dx, dy = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
    back_x, back_y = to_x - 9 * dx, to_y - 9 * dy
    side_x, side_y = 5 * dy, 5 * dx
    return (
        f'<path class="{line}" d="M{x} {y}L{back_x} {back_y}"/>'
        f'<path class="{tip}" d="M{to_x} {to_y}L{back_x + side_x} {back_y + side_y}'
        f'L{back_x - side_x} {back_y - side_y}Z"/>'
    )


def flows() -> list[str]:
    """Draw the arrows from each part to the next."""
    drawn = []
    for box, after in zip(BOXES, BOXES[1:], strict=False):
        middle = box.top + BOX_HEIGHT // 2
        if box.row == after.row:
            right = after.left > box.left
            start = box.left + BOX_WIDTH + 4 if right else box.left - 4
            end = after.left - 4 if right else after.left + BOX_WIDTH + 4
            drawn.append(arrow(start, middle, end, middle, "flow", "tip"))
        else:
            x = box.left + BOX_WIDTH - 24
            drawn.append(arrow(x, box.top + BOX_HEIGHT + 4, x, after.top - 4, "flow", "tip"))
    return drawn


def information() -> list[str]:
    """Draw what is known at training time only, and the arrows to the parts that are shown it."""
    drawn = [
        f'<rect class="info" x="{MARGIN}" y="{BAND_TOP}" width="860" height="{BAND_HEIGHT}" rx="8"/>',
        f'<text class="text" x="{MARGIN + 12}" y="{BAND_TOP + 25}">'
        '<tspan class="title">Training-time information</tspan>'
        '<tspan dx="14">reference solution, tests, what the user wants; the policy never sees it</tspan></text>',
    ]
    for box in BOXES:
        x = box.left + 100
        if box.stage in ("rollouts", "grading", "critic"):
            drawn.append(arrow(x, BAND_TOP - 3, x, TOP + BOX_HEIGHT + 4, "shown", "shown-tip"))
        elif box.stage == "candidates, ranking":
            drawn.append(arrow(x, BAND_TOP + BAND_HEIGHT + 3, x, BOTTOM - 4, "shown", "shown-tip"))
    return drawn


def figure() -> str:
    """Compose the SVG."""
    label = "SWEET-RL: roll out, grade, pair dialogues, train the critic, rank candidates, pair turns, train the policy"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="12"/>',
        *information(),
        *(box.svg() for box in BOXES),
        *flows(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("loop.svg").write_text(figure(), encoding="utf-8")
