"""Topics of the family that works on one whole number."""

from __future__ import annotations

from colbench_env.scenes.topics import option, topic

ABSENT = topic(
    "absent",
    ("an amount of zero", "nothing at all"),
    option("none", "if value == 0: return 'none'", "Zero gives the word none.", "Say none for nothing."),
    option("fixed", "if value == 0: return {n}", "Zero gives {n}.", "Nothing gives {n}.", numbers=(1, 8)),
)
SIGN = topic(
    "sign",
    ("a negative amount", "an amount below zero"),
    option("absolute", "value = abs(value)", "Its sign is dropped.", "Without its sign."),
    option("zero", "value = max(value, 0)", "Below zero is zero.", "It counts as zero."),
    option("error", "if value < 0: return 'error'", "Answer error then.", "That gives the word error."),
)
BOUND = topic(
    "bound",
    ("a huge amount", "amounts that look wrong"),
    option("clip", "value = min(value, 40)", "Forty is the limit.", "Stop reading at forty."),
    option("wrap", "value = value % 40", "Begin again at forty.", "It wraps at forty."),
)
BASE_UNIT = topic(
    "pack",
    ("the pack size", "how it is packed"),
    option("dozen", "value = value * 12", "Packs hold twelve.", "Twelve in a pack."),
    option("pair", "value = value * 2", "They come in pairs.", "Two in a pack."),
)
START = topic(
    "start",
    ("the starting value", "where to count from"),
    option("five", "value = value + 5", "Count on from five.", "It starts at five."),
    option("minus", "value = value - 1", "Start one lower.", "The first is free."),
)
FEE = topic(
    "fee",
    ("a fee", "extra charges"),
    option("plus", "result += {n}", "A fee of {n}.", "Charge {n} more.", numbers=(3, 7)),
    option("minus", "result -= 2", "A refund of two.", "Give two back."),
)
BULK = topic(
    "bulk",
    ("large orders", "a discount"),
    option("half", "if value > 20: result //= 2", "Half price over twenty.", "Halve it over twenty."),
    option("ten", "if value > 20: result -= 10", "Ten less over twenty.", "Over twenty take ten off."),
)
LEAST = topic(
    "least",
    ("a minimum", "results that are too small"),
    option("ten", "result = max(result, 10)", "At least ten.", "Never below ten."),
    option("zero", "result = max(result, 0)", "At least zero.", "Never below zero."),
)
MOST = topic(
    "most",
    ("a maximum", "results that are too large"),
    option("cap", "result = min(result, 60)", "Never more than sixty.", "Stop at sixty."),
    option("cut", "result = min(result, 90)", "Never more than ninety.", "Stop at ninety."),
)
TAX = topic(
    "tax",
    ("tax", "what the state takes"),
    option("fifth", "result += result // 5", "A fifth on top.", "Add a fifth for it."),
    option("tenth", "result += result // 10", "A tenth on top.", "Add a tenth for it."),
)
PARITY = topic(
    "parity",
    ("odd results", "results that are odd"),
    option("even", "result += result % 2", "Make it even.", "Up to an even one."),
    option("drop", "result -= result % 2", "Down to an even one.", "One less if odd."),
)
ROUND = topic(
    "round",
    ("rounding", "the precision"),
    option("up", "result = -(-result // 5) * 5", "Up by fives.", "To the five above."),
    option("down", "result = result // 10 * 10", "Down by tens.", "To the ten below."),
)
UNIT = topic(
    "unit",
    ("the unit", "the currency"),
    option("cents", "result *= 100", "In cents please.", "I want cents."),
    option("halves", "result *= 2", "In halves please.", "Count in halves."),
)
FORM = topic(
    "form",
    ("the output form", "how it is printed"),
    option("text", "result = str(result)", "As a text.", "Give me a string."),
    option("list", "result = [result]", "Inside a list.", "Wrap it in a list."),
)
