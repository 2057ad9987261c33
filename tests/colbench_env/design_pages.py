"""Pages made by hand for the tests of the design simulator and the structural similarity."""

from dataclasses import replace

from colbench_env.design.page import Block, Page

WIDTH = 1000


def block(path, x, y, width, height, text="", *, ink="#000000", ground="#ffffff", font=16.0, bold=False):
    """A block whose tag is that of its path."""
    tag = path.rpartition(">")[2].partition("[")[0]
    return Block(tag, text, x, y, width, height, ink, ground, font, bold, path)


def page(*blocks, height=800, problem=None):
    """A page of these blocks; its picture is not looked at."""
    return Page(b"", WIDTH, height, tuple(blocks), 0, problem)


HEADER = (
    block("body>header", 0, 0, 1000, 100, ground="#047857"),
    block("body>header>h1", 20, 20, 600, 50, "Corner Shop", ink="#ffffff", ground="#047857", font=40, bold=True),
)
COLUMNS = (
    block("body>main>section[1]>h2", 20, 120, 460, 30, "Fresh bread", font=24, bold=True),
    block("body>main>section[1]>p", 20, 160, 460, 60, "Baked at five every morning."),
    block("body>main>section[2]>h2", 520, 120, 460, 30, "Our cakes", font=24, bold=True),
    block("body>main>section[2]>img", 520, 160, 300, 200),
)
FOOTER = (
    block("body>footer", 0, 600, 1000, 80, ground="#1f2937"),
    block("body>footer>p", 20, 620, 960, 24, "Open daily", ink="#ffffff", ground="#1f2937"),
    block("body>footer>button", 20, 650, 120, 26, "Write to us", ink="#ffffff", ground="#dc2626"),
)
SHOP = page(*HEADER, *COLUMNS, *FOOTER)


def changed(original, change, *paths):
    """The page with `change` (block -> block or None) made to the blocks at and inside the paths."""
    made = []
    for one in original.blocks:
        if any(one.path == path or one.path.startswith(path + ">") for path in paths):
            one = change(one)
        if one is not None:
            made.append(one)
    return replace(original, blocks=tuple(made))


def without(original, *paths):
    """The page without what stands at the paths."""
    return changed(original, lambda one: None, *paths)


def moved(one, x, y):
    """The block moved by so much."""
    return replace(one, x=one.x + x, y=one.y + y)
