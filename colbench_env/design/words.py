"""What a person calls the things on a page."""

from colbench_env.design import colour
from colbench_env.design.page import Block
from colbench_env.design.tree import HEADINGS, Box, Tree, kind_of, parent_of, tag_of

PLACES = {"body": "page", "header": "header", "nav": "navigation bar", "footer": "footer", "aside": "sidebar"}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MAX_QUOTE = 40
PLURALS = {tag: "headings" for tag in HEADINGS} | {"a": "links", "button": "buttons", "p": "texts", "li": "list items"}


def quote(text: str) -> str:
    """Quote the words of a text, at most MAX_QUOTE characters of them."""
    if len(text) > MAX_QUOTE:
        text = text[: MAX_QUOTE - 3].rsplit(" ", 1)[0].rstrip(" ,.;:") + "..."
    return f"'{text}'"


def number_word(count: int) -> str:
    """Write the count as a word, up to ten."""
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def join_names(names: list[str]) -> str:
    """Join the names to a list in a sentence.

    In: ["a", "b", "c"]   Out: "a, b and c"
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def pixels(box: Box) -> str:
    """Estimate the size of a box in round numbers, as a person does."""
    return f"{round(box.width):,} by {round(box.height):,} pixels"


def name_of(tree: Tree, path: str) -> str:
    """Name the element at the path, without an article: "header", "heading 'Menu'", "section 'Our team'"."""
    tag, number_word = tag_of(path), tree.at.get(path)
    block = tree.blocks[number_word] if number_word is not None else None
    title = _title(tree, path)
    if tag in PLACES:
        alike = [other for other in tree.under if tag_of(other) == tag]
        return PLACES[tag] if len(alike) == 1 or not title else f"{PLACES[tag]} with {quote(title)}"
    if block is not None and (name := _own_name(tree, block)):
        return name
    texts = [n for n in tree.under[path] if tree.blocks[n].text]
    if len(tree.under[path]) == 1 and texts and (name := _own_name(tree, tree.blocks[texts[0]])):
        return name
    if tag == "main":
        return "main part"
    if tag == "form":
        return f"form {quote(title)}" if title else "form"
    if tag in ("ul", "ol"):
        return f"list that begins with {quote(title)}" if title else "list"
    kind = "section" if tag in ("section", "article") or _has_heading(tree, path) else "part"
    if title:
        return f"{kind} {quote(title)}"
    if pictures := [n for n in tree.under[path] if _own_name(tree, tree.blocks[n]).startswith("picture")]:
        return "picture" if len(pictures) == 1 else "row of pictures"
    around = parent_of(path)
    return f"box in the {name_of(tree, around)}" if around else "box"


def _own_name(tree: Tree, block: Block) -> str:
    tag, text = block.tag, quote(block.text)
    if tag in ("img", "svg", "video", "canvas", "iframe", "object", "embed"):
        what = {"video": "video", "iframe": "frame", "svg": "icon"}.get(tag, "picture")
        near = tree.context(block.path)
        return f"{what} with {quote(near)}" if near else what
    if tag in ("input", "textarea", "select"):
        return f"input field {text}" if block.text else "input field"
    if not block.text or block.path == "body":
        return ""
    if tag in HEADINGS:
        return f"heading {text}"
    if tag == "button":
        return f"button {text}"
    if tag == "a":
        return f"link {text}"
    return f"text {text}"


def _title(tree: Tree, path: str) -> str:
    blocks = [tree.blocks[n] for n in tree.under[path] if tree.blocks[n].text]
    headings = [block.text for block in blocks if block.tag in HEADINGS]
    return headings[0] if headings else blocks[0].text if blocks else ""


def _has_heading(tree: Tree, path: str) -> bool:
    return any(tree.blocks[n].tag in HEADINGS for n in tree.under[path])


def made_of(tree: Tree, path: str) -> str:
    """Say what a missing element consists of, where that is worth a word."""
    inside = [tree.blocks[n] for n in tree.under[path] if tree.blocks[n].path != path]
    counts = {
        "picture": sum(kind_of(block) == "picture" for block in inside),
        "button": sum(block.tag == "button" for block in inside),
        "input field": sum(kind_of(block) == "control" for block in inside),
    }
    parts = [f"{number_word(count)} {what}{'s' if count > 1 else ''}" for what, count in counts.items() if count]
    return f" (it has {join_names(parts)})" if parts and len(inside) > 1 else ""


def letters_sentence(kind: str, wanted: object, seen: object, name: str, many: bool) -> tuple[float, str]:
    """How severe a change of the letters is, and the sentence; `many` where the name is plural."""
    yours = "yours are" if many else "yours is"
    if kind == "colour":
        names = colour.contrast(str(wanted), str(seen))
        gap = min(colour.distance(str(wanted), str(seen)) / 60, 1)
        subject = name if name.startswith("text in") else f"letters of the {name}"
        return 0.3 + 0.5 * gap, f"The {subject} should be {names[0]}, yours are {names[1]}."
    if kind == "weight":
        return 0.3, f"The {name} should {'' if wanted else 'not '}be bold."
    ratio = float(wanted) / float(seen)  # type: ignore[arg-type]
    how = ("much " if max(ratio, 1 / ratio) > 1.6 else "") + ("larger" if ratio > 1 else "smaller")
    severity = 0.4 + 0.6 * min(max(ratio, 1 / ratio) - 1, 1)
    return severity, f"The letters of the {name} should be {how}, about {wanted:g} pixels high; {yours} {seen:g}."


def compared_size(wanted: Block, seen: Block) -> str:
    """How the seen block would have to change: "wider", "narrower and higher"."""
    words = []
    for want, see, more, less in (
        (wanted.width, seen.width, "wider", "narrower"),
        (wanted.height, seen.height, "higher", "lower"),
    ):
        if max(want, see) / max(min(want, see), 1) >= 1.1:
            words.append(more if want > see else less)
    return " and ".join(words)


def with_article(name: str) -> str:
    """Begin a sentence with the name."""
    if name in ("header", "footer", "navigation bar", "sidebar", "page", "form", "list", "main part", "picture"):
        return f"The {name}"
    return f"{'An' if name[0] in 'aeiou' else 'A'} {name}"
