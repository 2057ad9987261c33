"""The code in a text that a model wrote: what stands in fences, and what stands outside of them without its prose.

A fence opens as CommonMark has it: three or more backticks or tildes and an info string (`python title="f.py"`,
`{.python .numberLines}`, `python:src/f.py`), in a list or a quotation too; models also open one behind a sentence and
put code on its line. It ends where three backticks stand outside strings and comments, which no Python has, wherever
on a line that is. Texts are long and hostile: every pattern and loop takes time linear in the text.
"""

import keyword
import os.path
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_BLOCKS = 10_000  # what comes behind so many is not read

_FENCE = re.compile(r"`{3,}|~{3,}")
_PREFIX = re.compile(r"(?:[\s>]|[-*+](?=\s)|[0-9]{1,9}[.)](?=\s))*")  # of lists and quotations
_LANGUAGE = r"(?i:i?python[0-9.]*|pycon|py[0-9.]*)"
_PYTHON = re.compile(rf"(?<![^\W_]){_LANGUAGE}(?![^\W_])")
_LABEL = re.compile(r"\s*[\w.+#:/-]*\s*$")
# Code on the line of a fence. The language may stand before it, and a space between them only before a name.
_STATEMENT = r"(?:(?:async[ \t]+)?def|class|import)[ \t]+\w|from[ \t]+[\w.]+[ \t]+import\b|@\w"
_ASSIGNMENT = r"[^\W\d]\w*(?:[ \t]+=[ \t]|[ \t]*=[ \t]*lambda\b)|\"\"\"|\'\'\'|>>>[ \t]"
_CODE = re.compile(rf"[ \t]*+(?:{_LANGUAGE}?[ \t]*(?={_STATEMENT})|(?:{_LANGUAGE}[ \t]+)?(?={_ASSIGNMENT}))")
_SESSION = re.compile(r"\s*(?:>>>|In \[[0-9]+\]:) ")
_PROMPT = re.compile(r"[ \t]*(?:>>>|\.\.\.:?|In \[[0-9]+\]:)(?: |$)")
_TOKEN = re.compile(
    r"(?P<triple>\"\"\"|''')|(?P<string>\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+')|\\."
    r"|(?P<comment>#.*)|(?P<ticks>`{3,})|(?P<tildes>(?<!~)~{3,}+(?=\s*$))"
)
_MARKED = re.compile(r"[`~\"'#]")
_QUOTED = re.compile(r"[\"'#]")
_BRACKETS = re.compile(r"[(){}\[\]]")
_NOTHING, _TEXT = re.compile(""), re.compile(r"\S")
_OPERANDS = re.compile(r"([)\]}\"]|(?<!\w)\w++)[ \t]+(?=(\w++)(?!\"))")  # side by side
_NO_PYTHON = re.compile(
    r"[?$`]|!(?!=)|[^\w\s\x00-\x7f]"  # characters that Python has in strings and comments only
    r"|^\s*(?:\*\*|[/=<>|&%^,:;])|^\s*[-=*_]{3,}\s*$"  # no statement begins so, or is a rule
    r"|[^\s\d.]\.\s*$"  # the end of a sentence
)
_WORD = re.compile(r"\w*")
_COMPOUND = {"def", "class", "if", "elif", "else", "for", "while", "try", "except", "finally", "with", "async"}
_COMPOUND |= {"match", "case"}
_KEYWORDS = {*keyword.kwlist, *keyword.softkwlist}


@dataclass
class Block:
    """A fenced block. python: its info string says so or says nothing. closed: its end was found."""

    python: bool
    lines: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def source(self) -> str:
        """Its code: dedented, the prompts of a doctest taken off; of a block without an end also the prose after."""
        text = "\n".join(_dedent(self.lines)).lstrip("\ufeff")
        return without_prompts(text) if self.closed else without_prose(without_prompts(text))


def split_fences(text: str) -> tuple[list[Block], str]:
    """Split a text into its blocks that are not empty, in order, and the text outside of them. Line ends are "\\n"."""
    reader = _Reader()
    for line in text.split("\n"):
        reader.read(line)
    return [block for block in reader.blocks if any(map(str.strip, block.lines))], "\n".join(reader.outside)


def without_prose(text: str) -> str:
    """Remove the lines that cannot be Python where a statement begins, and dedent what stands between them.

    A text that is Python stays as it is. So does one of which nothing would be left.
    """
    kept: list[str] = []
    source = _Source()
    base: int | None = None  # the indentation of the statements since the last prose
    open_brackets, continued = 0, False
    for line in text.split("\n"):
        if not line or line.isspace() or (line[0] == "#" and source.quote is None):
            kept.append(line)
            continue
        indent = len(line) - len(line.lstrip())
        begins = source.quote is None and open_brackets <= 0 and not continued and (base is None or indent <= base)
        bare = source.bare(line)
        if begins:
            if _is_prose(bare):
                base, source.quote = None, None
                continue
            base, open_brackets = indent, 0
        kept.append(line[indent if base is None else min(base, indent) :])
        open_brackets += sum(1 if bracket in "([{" else -1 for bracket in _BRACKETS.findall(bare))
        continued = bare.endswith("\\")
    return "\n".join(kept) if any(map(str.strip, kept)) else text


def without_prompts(text: str) -> str:
    """Extract the input of a text that is a doctest or a session from its first line on; leave any other text as it
    is."""
    if not _SESSION.match(text):
        return text
    return "\n".join(line[prompt.end() :] for line in text.split("\n") if (prompt := _PROMPT.match(line)))


def _dedent(lines: list[str]) -> list[str]:
    """As textwrap.dedent, which compiles the indentation, however long, as a regular expression."""
    margin = os.path.commonprefix([line[: -len(text)] for line in lines if (text := line.lstrip(" \t"))])
    return [line[len(margin) :] if line.strip(" \t") else "" for line in lines]


def _is_prose(bare: str) -> bool:
    """Whether a line can be no statement of Python. bare: its strings and comments blanked."""
    bare = bare.strip()
    if not bare:
        return False
    if _NO_PYTHON.search(bare) or (bare[0] in "iIpP" and _PYTHON.fullmatch(bare)):
        return True
    if bare.endswith(":") and not _BRACKETS.search(bare):
        word = _WORD.match(bare)
        return word is not None and word[0] not in _COMPOUND
    return (" " in bare or "\t" in bare) and any(
        _KEYWORDS.isdisjoint(sides.groups()) for sides in _OPERANDS.finditer(bare)
    )


class _Source:
    """Follows Python line by line: which of its characters stand in strings and comments."""

    def __init__(self) -> None:
        self.quote: str | None = None  # of the string that is open where the last line ended

    def bare(self, line: str) -> str:
        """Replace every character of a string in the line by a quotation mark, and remove its comment."""
        if self.quote is None and not _QUOTED.search(line):
            return line
        if self.quote is None and line.lstrip().startswith("#"):
            return ""
        parts: list[str] = []
        position = 0
        for kind, start, end in self._tokens(line, 0):
            if kind in ("triple", "string", "comment"):
                parts += line[position:start], '"' * (end - start if kind != "comment" else 0)
                position = end
        return "".join([*parts, line[position:]])

    def fence(self, line: str, position: int, tildes: bool) -> tuple[int, int] | None:
        """Where the fence stands that ends the code of this line, from `position` on."""
        for kind, start, end in self._tokens(line, position):
            if kind == "ticks" or (kind == "tildes" and tildes):
                return start, end
            if kind == "comment":
                comment = line[start:].rstrip()
                rest = comment.rstrip("`")
                if len(comment) - len(rest) >= 3 and not rest[-1].isspace() and "```" not in rest:
                    return start + len(rest), start + len(comment)
        return None

    def _tokens(self, line: str, position: int) -> Iterator[tuple[str | None, int, int]]:
        while position < len(line):
            if self.quote is not None:
                found = line.find(self.quote, position)
                end = len(line) if found < 0 else found + len(self.quote)
                yield "string", position, end
                self.quote, position = self.quote if found < 0 else None, end
            elif token := _TOKEN.search(line, position):
                position = token.end()
                self.quote = token[0] if token.lastgroup == "triple" else None
                yield token.lastgroup, token.start(), position
            else:
                return


class _Reader:
    """Reads a text line by line into blocks and what stands outside of them."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.outside: list[str] = []
        self._open: Block | None = None
        self._source = _Source()
        self._fence, self._indent, self._quoted = "`", 0, _NOTHING
        self._prefix = 0  # characters of the line before its text

    def read(self, line: str) -> None:
        """Read one line. A fence on it may open a block, close one, or both, several times."""
        if len(self.blocks) > MAX_BLOCKS:
            return
        if not line or (self._open is None and not _FENCE.search(line)):
            (self.outside if self._open is None else self._open.lines).append(line)
            return
        if (block := self._open) is not None:
            if quoted := self._quoted.match(line):
                line = line[quoted.end() :]
                own, indent = line.strip(), len(line) - len(line.lstrip())
                if len(own) >= 3 and not own.strip(self._fence) and indent <= self._indent:
                    self._close(block)
                    return
            else:  # the quotation has ended, and the block with it
                self._close(block)
        prefix = _PREFIX.match(line)
        self._prefix = prefix.end() if prefix else 0
        position: int | None = 0
        while position is not None and len(self.blocks) <= MAX_BLOCKS:
            block = self._open
            position = self._outside(line, position) if block is None else self._inside(block, line, position)

    def _outside(self, line: str, position: int) -> int | None:
        """Read on outside of blocks, and return where the line goes on in one, None where it does not."""
        start = position
        while fence := _FENCE.search(line, position):
            after = self._open_block(line, *fence.span(), reopen=False)
            if self._open is not None or after is None:
                self.outside.append(line[start : fence.start()])
                return after
            position = after
        self.outside.append(line[start:])
        return None

    def _inside(self, block: Block, line: str, position: int) -> int | None:
        """Read on in the open block, and return where the line goes on behind its end, None where it does not."""
        comment = position == 0 and line[:1] == "#" and "```" not in line
        if self._source.quote is None and (comment or not _MARKED.search(line, position)):
            block.lines.append(line[position:])
            return None
        fence = self._source.fence(line, position, self._fence == "~")
        code = line[position : fence[0] if fence else len(line)]
        if fence is None or code.strip():
            block.lines.append(code)
        if fence is None:
            return None
        self._close(block)
        return self._open_block(line, *fence, reopen=True) if _TEXT.search(line, fence[1]) else None

    def _open_block(self, line: str, start: int, end: int, reopen: bool) -> int | None:
        """Open a block where the fence does that, and return where to read on, None where the line is done.

        reopen: the fence has just closed a block, and what follows it may be prose as well as an info string.
        """
        code, following = _CODE.match(line, end), _FENCE.search(line, end)
        python = True
        if code is None:
            if following is not None and following[0][0] == line[start]:
                return end if reopen else following.end()  # a span of code in prose
            if (reopen or start != self._prefix) and not _LABEL.match(line, end):
                return end
            info = line[end:]
            python = bool(_PYTHON.search(info)) or not re.search(r"[^\W_]", info)
            if reopen and not python:
                return end
        self._open = Block(python)
        self.blocks.append(self._open)
        self._source = _Source()
        if not reopen:
            prefix = line[:start] if start == self._prefix else ""
            depth = prefix.count(">")
            self._quoted = re.compile(rf"(?:[ \t]*>){{{depth}}} ?") if depth else _NOTHING
            self._indent = len(prefix) if prefix.isspace() else 0
        self._fence = line[start]
        return code.end() if code else None

    def _close(self, block: Block) -> None:
        block.closed = True
        self._open = None
