"""How the toy benchmark asks about a topic: every noun of the topic in every frame, behind one of many openings."""

from __future__ import annotations

from colbench_env.mini.topics import Option, Topic

FRAMES = (
    "What about {noun}?",
    "How should I treat {noun}?",
    "Is there a rule for {noun}?",
    "What do you want for {noun}?",
    "Can you tell me about {noun}?",
    "Does anything hold for {noun}?",
)
OPENINGS = ("", "", "", "Thanks. ", "Okay. ", "I see. ", "Good to know. ", "One more question: ", "Let me ask: ")
#: Nouns of questions that sound sensible and never matter.
NEEDLESS = (
    "the run time",
    "memory use",
    "comments",
    "type hints",
    "error logs",
    "the Python version",
    "unit tests",
    "the file name",
    "who will use it",
    "the deadline",
)
#: What the user says about anything that is not among the hidden facts.
UNKNOWN_REPLIES = (
    "No preference.",
    "Nothing special there.",
    "Up to you.",
    "I never thought about that.",
    "I don't mind.",
)
#: What a vague user says when asked about a hidden fact for the first time.
VAGUE = ("It depends a bit.", "Hmm, hard to say.", "The usual way, I think.", "As we always do.")
#: How the answer to one question points at another hidden topic.
HINTS = (" Mind {noun} too.", " And think of {noun}.", " But {noun} matters as well.")
REMARKS = ("", "", "Thanks, that is all. ", "Now I know enough. ", "Here it is. ", "This should do. ")


def option(name: str, line: str, *sentences: str, numbers: tuple[int, ...] = ()) -> Option:
    """Make one way to decide a topic."""
    return Option(name, sentences, line, numbers)


def topic(name: str, nouns: tuple[str, ...], *options: Option) -> Topic:
    """Make a topic that is asked about, and listened for, by its nouns."""
    return Topic(name, tuple(frame.format(noun=noun) for noun in nouns for frame in FRAMES), nouns, options)
