"""What a toy task can hide: topics, the options of each, and how people ask and answer about them.

A *topic* is one thing that a function may have to respect ("duplicates"), an *option* is one way to respect it ("count
repeated values once") together with the line of Python that does so. A task hides two to four (topic, option) facts;
every topic that is not hidden keeps the plain behaviour, which mostly needs no line at all. Options with a number carry
`{n}`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One way to decide a topic: the user simulator's `sentences` (any of them) and the `line` that it adds to the
    function."""

    name: str
    sentences: tuple[str, ...]
    line: str
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Topic:
    """Something worth asking about. `keywords` are what the scripted simulator listens for in a question."""

    name: str
    questions: tuple[str, ...]
    keywords: tuple[str, ...]
    options: tuple[Option, ...]


def _option(name: str, line: str, *sentences: str, numbers: tuple[int, ...] = ()) -> Option:
    return Option(name, sentences, line, numbers)


# --- lists of numbers ------------------------------------------------------------------------------------------------

EMPTY = Topic(
    "empty",
    ("What about an empty list?", "What should an empty list give?"),
    ("empty list",),
    (
        _option("minus-one", "if not values: return -1", "Return minus one then.", "An empty list gives minus one."),
        _option(
            "nothing",
            "if not values: return 'none'",
            "Return the word none then.",
            "An empty list gives the word none.",
        ),
        _option("number", "if not values: return {n}", "Return {n} then.", "An empty list gives {n}.", numbers=(3, 7)),
    ),
)
NEGATIVE = Topic(
    "negative",
    ("What about negative numbers?", "How should negative numbers count?"),
    ("negative number",),
    (
        _option(
            "skip", "values = [v for v in values if v >= 0]", "Skip the negative ones.", "Leave negative ones out."
        ),
        _option("absolute", "values = [abs(v) for v in values]", "Drop the minus sign.", "Use them without the sign."),
        _option("zero", "values = [max(v, 0) for v in values]", "They count as zero.", "Treat them as zero."),
    ),
)
DUPLICATE = Topic(
    "duplicate",
    ("What about duplicates?", "Can duplicates occur?"),
    ("duplicate",),
    (
        _option("once", "values = list(dict.fromkeys(values))", "Use each value once.", "Repeated values count once."),
        _option(
            "remove",
            "values = [v for v in values if values.count(v) == 1]",
            "Drop all that repeat.",
            "Repeated values are all dropped.",
        ),
    ),
)
FEE = Topic(
    "fee",
    ("Is there a fee to add?", "Should I add a fee?"),
    ("fee",),
    (
        _option("plus", "result += 5", "Yes, add five.", "Put five on top."),
        _option("minus", "result -= 2", "No, take two off.", "Deduct two instead."),
        _option("number", "result += {n}", "Yes, {n} of them.", "Put {n} there.", numbers=(3, 7)),
    ),
)
CAP = Topic(
    "cap",
    ("Is there a maximum result?", "Can the result get too large?"),
    ("maximum result", "too large"),
    (
        _option("cap", "result = min(result, 20)", "Never more than twenty.", "Stop at twenty."),
        _option("wrap", "result %= 10", "Start again after ten.", "It wraps around at ten."),
    ),
)
UNIT = Topic(
    "unit",
    ("Which unit do you want?", "In which unit is it?"),
    ("unit",),
    (
        _option("cents", "result *= 100", "In cents please.", "I want cents."),
        _option("tens", "result //= 10", "Full tens only.", "Count in full tens."),
        _option("halves", "result *= 2", "In halves please.", "Count in halves."),
    ),
)
ORDER = Topic(
    "order",
    ("Which order do you want?", "In which order should they come?"),
    ("which order",),
    (
        _option("up", "values = sorted(values)", "Smallest first.", "Going up."),
        _option("down", "values = sorted(values)[::-1]", "Largest first.", "Going down."),
        _option("back", "values = values[::-1]", "Back to front.", "Turn it around."),
    ),
)
LENGTH = Topic(
    "length",
    ("How many should I keep?", "How many do you need?"),
    ("how many",),
    (
        _option("first", "values = values[:{n}]", "Only the first {n}.", "Keep {n} from the start.", numbers=(2, 3)),
        _option("last", "values = values[-2:]", "Only the last two.", "Keep two from the end."),
        _option("second", "values = values[::2]", "Every second one.", "Every other one."),
    ),
)
SHIFT = Topic(
    "shift",
    ("Is there an offset?", "Should I apply an offset?"),
    ("offset",),
    (
        _option("plus", "values = [v + 1 for v in values]", "Raise each by one.", "Each goes up by one."),
        _option("times", "values = [v * 2 for v in values]", "Double each.", "Each is taken twice."),
    ),
)

# --- text ------------------------------------------------------------------------------------------------------------

CASE = Topic(
    "case",
    ("Upper or lower case?", "Which letter case do you want?"),
    ("lower case", "letter case"),
    (
        _option("upper", "text = text.upper()", "All capitals.", "Upper please."),
        _option("lower", "text = text.lower()", "All small letters.", "Lower please."),
        _option("swap", "text = text.swapcase()", "Swap big and small.", "The other way round."),
    ),
)
SPACE = Topic(
    "space",
    ("What about spaces?", "What becomes of the spaces?"),
    ("spaces",),
    (
        _option("none", "text = text.replace(' ', '')", "Remove them.", "No spaces at all."),
        _option("under", "text = text.replace(' ', '_')", "Use underscores.", "Make them underscores."),
        _option("dash", "text = text.replace(' ', '-')", "Use dashes.", "Make them dashes."),
    ),
)
PREFIX = Topic(
    "prefix",
    ("Is there a prefix?", "How should it begin?"),
    ("prefix", "begin"),
    (
        _option("hash", "text = '#' + text", "With a hash sign.", "A hash sign in front."),
        _option("at", "text = '@' + text", "With an at sign.", "An at sign in front."),
        _option("number", "text = '{n}' + text", "With the digit {n}.", "The digit {n} in front.", numbers=(1, 9)),
    ),
)
SUFFIX = Topic(
    "suffix",
    ("Is there a suffix?", "How should it end?"),
    ("suffix", "should it end"),
    (
        _option("stop", "text = text + '.'", "With a full stop.", "A full stop at the end."),
        _option("mark", "text = text + '!'", "With an exclamation mark.", "An exclamation mark at the end."),
        _option("more", "text = text + '...'", "With three dots.", "Three dots at the end."),
    ),
)
WIDTH = Topic(
    "width",
    ("How long may it be?", "What is the longest text?"),
    ("how long may", "longest text"),
    (
        _option("cut", "text = text[:{n}]", "Only {n} letters.", "Cut it to {n} letters.", numbers=(4, 6)),
        _option("tail", "text = text[-5:]", "The final five letters.", "Cut all but the final five."),
    ),
)
MIRROR = Topic(
    "mirror",
    ("Which direction do you read?", "In which direction should it go?"),
    ("direction",),
    (
        _option("back", "text = text[::-1]", "From right to left.", "Reversed please."),
        _option("twice", "text = text * 2", "Both, say it twice.", "Twice in a row."),
    ),
)

# --- lists of words --------------------------------------------------------------------------------------------------

JOIN = Topic(
    "join",
    ("What goes between the words?", "How should I join the words?"),
    ("between the words", "join the words"),
    (
        _option("comma", "text = text.replace(' ', ',')", "Commas.", "Put commas there."),
        _option("slash", "text = text.replace(' ', '/')", "Slashes.", "Put slashes there."),
        _option("plus", "text = text.replace(' ', '+')", "Plus signs.", "Put plus signs there."),
    ),
)
SHORT = Topic(
    "short",
    ("What about short words?", "Do short words count?"),
    ("short words",),
    (
        _option(
            "skip", "values = [v for v in values if len(v) > 3]", "Only those over three.", "Skip up to three letters."
        ),
        _option(
            "only", "values = [v for v in values if len(v) < 5]", "Only the short ones.", "Keep just the short ones."
        ),
    ),
)

# --- single numbers --------------------------------------------------------------------------------------------------

SIGN = Topic(
    "sign",
    ("What about a negative value?", "Can the value be negative?"),
    ("negative value", "value be negative"),
    (
        _option("absolute", "value = abs(value)", "Drop its minus sign.", "Use it without the sign."),
        _option("zero", "value = max(value, 0)", "It counts as zero.", "Treat it as zero."),
        _option("error", "if value < 0: return 'error'", "Answer error then.", "That gives the word error."),
    ),
)
BORDER = Topic(
    "border",
    ("Where is the border?", "Which border do you use?"),
    ("border",),
    (
        _option("low", "limit = 20", "At twenty.", "The border is twenty."),
        _option("high", "limit = 60", "At sixty.", "The border is sixty."),
        _option("zero", "limit = 0", "At zero.", "The border is zero."),
    ),
)
LABEL = Topic(
    "label",
    ("Which words do you want?", "Which words should come out?"),
    ("which words",),
    (
        _option("yes", "names = ('yes', 'no')", "Say yes or no.", "Yes and no."),
        _option("pass", "names = ('pass', 'fail')", "Say pass or fail.", "Pass and fail."),
        _option("hot", "names = ('hot', 'cold')", "Say hot or cold.", "Hot and cold."),
    ),
)
SCALE = Topic(
    "scale",
    ("What is the input scale?", "On which scale is the input?"),
    ("scale",),
    (
        _option("times", "value *= 3", "Triple it first.", "Take it three times."),
        _option("shift", "value += {n}", "It starts at {n} below.", "Raise it by {n} first.", numbers=(5, 9)),
        _option("half", "value //= 2", "Halve it first.", "Take half of it."),
    ),
)
ROUND = Topic(
    "round",
    ("How should I round it?", "Which way do I round?"),
    ("round",),
    (
        _option("up", "result = -(-result // 5) * 5", "Up to full fives.", "To the next five."),
        _option("down", "result = result // 5 * 5", "Down to full fives.", "To the five below."),
    ),
)
SPELL = Topic(
    "spell",
    ("How should the word look?", "Any style for the word?"),
    ("the word look", "style for the word"),
    (
        _option("upper", "text = text.upper()", "All capitals.", "Upper please."),
        _option("title", "text = text.title()", "First letter big.", "Capital first letter."),
    ),
)

#: Questions that sound sensible and never matter; several sound like one that does.
DISTRACTORS = (
    "Is there a maximum run time?",
    "What words describe it best?",
    "In what order do you work?",
    "Do you need it fast?",
    "Should I add a comment?",
    "Is there a memory limit?",
    "Which letter is it for?",
    "Who will use it?",
)
#: What the scripted simulator says about anything that is not among the hidden facts.
UNKNOWN_REPLIES = ("I don't know.", "No idea.", "I did not think of that.", "Up to you.")
