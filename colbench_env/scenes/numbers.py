"""Topics of the family that works on a list of whole numbers."""

from __future__ import annotations

from colbench_env.scenes.topics import option, topic

EMPTY = topic(
    "empty",
    ("an empty list", "a list without entries"),
    option("none", "if not values: return ['none']", "Say none for an empty one.", "An empty one gives the word none."),
    option("one", "if not values: return [{n}]", "Put {n} there if empty.", "An empty one gives {n}.", numbers=(1, 7)),
)
NEGATIVE = topic(
    "negative",
    ("negative entries", "entries below zero"),
    option("skip", "values = [v for v in values if v >= 0]", "Skip the negative ones.", "Leave negative ones out."),
    option("absolute", "values = [abs(v) for v in values]", "Drop the minus sign.", "Use them without the sign."),
    option("zero", "values = [max(v, 0) for v in values]", "Negative counts as zero.", "Treat them as zero."),
)
NOTHING = topic(
    "nothing",
    ("entries that are zero", "zeros"),
    option("skip", "values = [v for v in values if v]", "Zeros are left out.", "No zeros please."),
    option("one", "values = [v or 1 for v in values]", "Each zero becomes one.", "Write one for zero."),
)
DUPLICATE = topic(
    "duplicate",
    ("duplicates", "repeated entries"),
    option("once", "values = list(dict.fromkeys(values))", "Use each value once.", "Repeated ones count once."),
    option("remove", "values = [v for v in values if values.count(v) == 1]", "Drop all that repeat.", "None of those."),
)
ODD = topic(
    "odd",
    ("odd entries", "entries that are odd"),
    option("skip", "values = [v for v in values if v % 2 == 0]", "Even ones only.", "The odd ones go."),
    option("up", "values = [v + v % 2 for v in values]", "Make them even, upwards.", "Raise odd ones by one."),
)
LARGE = topic(
    "large",
    ("large entries", "entries that look too big"),
    option("skip", "values = [v for v in values if v < 10]", "Ignore ten and more.", "Nothing from ten on."),
    option("clip", "values = [min(v, 9) for v in values]", "Nine is the most.", "Cut them down to nine."),
)
SCALE = topic(
    "scale",
    ("the scale", "the input scale"),
    option("times", "values = [v * 3 for v in values]", "Triple each one.", "Take each three times."),
    option("half", "values = [v // 2 for v in values]", "Halve each one.", "Take half of each."),
)
SHIFT = topic(
    "shift",
    ("an offset", "some offset"),
    option("plus", "values = [v + {n} for v in values]", "Add {n} to each.", "Each goes up by {n}.", numbers=(1, 5)),
    option("minus", "values = [v - 2 for v in values]", "Take two off each.", "Each goes down by two."),
)
GAP = topic(
    "gap",
    ("the gaps", "steps between entries"),
    option(
        "differences",
        "values = [b - a for a, b in zip(values, values[1:])]",
        "Show the differences.",
        "From each to the next.",
    ),
    option(
        "running",
        "values = [sum(values[: i + 1]) for i in range(len(values))]",
        "Keep a running sum.",
        "Add them up on the way.",
    ),
)
FIVES = topic(
    "fives",
    ("rounding entries", "how to round"),
    option("down", "values = [v // 5 * 5 for v in values]", "To the five below.", "Down to full fives."),
    option("up", "values = [-(-v // 5) * 5 for v in values]", "To the next five.", "Up to full fives."),
)
ORDER = topic(
    "order",
    ("the order", "sorting"),
    option("up", "values = sorted(values)", "Smallest first.", "Going up."),
    option("down", "values = sorted(values)[::-1]", "Largest first.", "Going down."),
    option("back", "values = values[::-1]", "Back to front.", "Turn it around."),
)
EDGE = topic(
    "edge",
    ("the first and last entry", "the two ends"),
    option("first", "values = values[1:]", "Forget the first one.", "Without the first."),
    option("last", "values = values[:-1]", "Forget the last one.", "Without the last."),
)
LENGTH = topic(
    "length",
    ("how many to keep", "the length"),
    option("first", "values = values[:{n}]", "Only the first {n}.", "Keep {n} from the start.", numbers=(2, 3)),
    option("last", "values = values[-2:]", "Only the last two.", "Keep two from the end."),
)
TOTAL = topic(
    "total",
    ("a total", "a sum at the end"),
    option("after", "values = values + [sum(values)]", "Put the sum behind.", "End with the sum."),
    option("before", "values = [sum(values)] + values", "Put the sum in front.", "Begin with the sum."),
)
