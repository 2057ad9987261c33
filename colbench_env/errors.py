"""Errors that end a run or an episode for a reason that a user can read."""


class BadInput(ValueError):
    """Input that a user can put right: one sentence with the place, what is wrong, and what was expected."""


class NoReply(Exception):
    """A reply that cannot be had, and that it is useless to ask for again: the context is full, for instance."""
