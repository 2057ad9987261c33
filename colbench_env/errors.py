"""What ends a run or an episode for a reason that can be told."""


class BadInput(ValueError):
    """Input that a user can put right: one sentence with the place, what is wrong, and what was expected."""


class NoReply(Exception):
    """A reply that cannot be had, and that it is useless to ask for again: the context is full, for instance."""
