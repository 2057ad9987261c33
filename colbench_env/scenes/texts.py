"""Topics of the family that works on a line of text."""

from __future__ import annotations

from colbench_env.scenes.topics import option, topic

BLANK = topic(
    "blank",
    ("a blank text", "a text with nothing in it"),
    option("none", "if not text.strip(): return 'none'", "A blank one gives none.", "Write none for a blank one."),
    option("dots", "if not text.strip(): return '...'", "Three dots if blank.", "A blank one gives dots."),
)
DIGIT = topic(
    "digit",
    ("digits", "figures in the text"),
    option(
        "drop", "text = ''.join(c for c in text if not c.isdigit())", "Figures are dropped.", "Leave all figures out."
    ),
    option(
        "mask",
        "text = ''.join('#' if c.isdigit() else c for c in text)",
        "Hide figures by a hash.",
        "A hash for each figure.",
    ),
)
COMMA = topic(
    "comma",
    ("commas", "punctuation"),
    option("drop", "text = text.replace(',', '')", "Take commas away.", "No commas at all."),
    option("semicolon", "text = text.replace(',', ';')", "Semicolons for commas.", "Use a semicolon there."),
)
VOWEL = topic(
    "vowel",
    ("vowels", "letters like a and e"),
    option(
        "star",
        "text = ''.join('*' if c in 'aeiou' else c for c in text)",
        "A star for each vowel.",
        "Hide vowels by stars.",
    ),
    option(
        "drop",
        "text = ''.join(c for c in text if c not in 'aeiou')",
        "Vowels are left out.",
        "Only consonants stay.",
    ),
)
TINY = topic(
    "tiny",
    ("short words", "very small words"),
    option(
        "drop", "text = ' '.join(w for w in text.split() if len(w) > 2)", "Drop words under three.", "Small words go."
    ),
    option("only", "text = ' '.join(w for w in text.split() if len(w) < 5)", "Keep the short ones.", "Long words go."),
)
AGAIN = topic(
    "again",
    ("repeated words", "words that occur twice"),
    option("once", "text = ' '.join(dict.fromkeys(text.split()))", "Each word just once.", "Say no word twice."),
    option(
        "drop",
        "text = ' '.join(w for w in text.split() if text.split().count(w) == 1)",
        "Repeated words vanish.",
        "Only words that are unique.",
    ),
)
SEQUENCE = topic(
    "sequence",
    ("the word order", "how words are sorted"),
    option("back", "text = ' '.join(text.split()[::-1])", "Last word first.", "Words from the end."),
    option("sorted", "text = ' '.join(sorted(text.split()))", "By the alphabet.", "Sort the words."),
)
CASE = topic(
    "case",
    ("the case", "capital letters"),
    option("upper", "text = text.upper()", "All capitals.", "Upper please."),
    option("lower", "text = text.lower()", "All small letters.", "Lower please."),
    option("swap", "text = text.swapcase()", "Swap big and small.", "Exchange big and small."),
)
WIDTH = topic(
    "width",
    ("the width", "a text that is too long"),
    option("cut", "text = text[:{n}]", "Only {n} letters.", "Cut it to {n} letters.", numbers=(4, 6)),
    option("tail", "text = text[-5:]", "The final five letters.", "Cut all but five."),
)
SPACE = topic(
    "space",
    ("spaces", "gaps between words"),
    option("none", "text = text.replace(' ', '')", "Remove the spaces.", "No spaces at all."),
    option("under", "text = text.replace(' ', '_')", "Use underscores.", "Make them underscores."),
    option("dash", "text = text.replace(' ', '-')", "Use dashes.", "Make them dashes."),
)
MIRROR = topic(
    "mirror",
    ("the direction", "the way it is read"),
    option("back", "text = text[::-1]", "From right to left.", "Mirror all of it."),
    option("twice", "text = text + text", "Say it twice.", "Twice in a row."),
)
PREFIX = topic(
    "prefix",
    ("a prefix", "how it begins"),
    option("hash", "text = '#' + text", "With a hash in front.", "A hash sign first."),
    option("at", "text = '@' + text", "With an at in front.", "An at sign first."),
)
SUFFIX = topic(
    "suffix",
    ("a suffix", "how it ends"),
    option("stop", "text = text + '.'", "A full stop behind.", "Finish with a full stop."),
    option("mark", "text = text + '!'", "An exclamation mark.", "Finish with a shout."),
)
QUOTE = topic(
    "quote",
    ("quotes", "brackets around it"),
    option("round", "text = '(' + text + ')'", "In round brackets.", "Brackets on both sides."),
    option("angle", "text = '<' + text + '>'", "In angle brackets.", "Sharp ones on both sides."),
)
