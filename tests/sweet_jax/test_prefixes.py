"""Which blocks rows and prefixes hold: random comings and goings against a model of the cache's contents."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.generation.prefixes import Part, PrefixCache

BLOCK, ROOM, ROWS = 4, 5, 3


class Cache:
    """A prefix cache with the tokens that stand in its blocks, written as the programs would."""

    def __init__(self):
        self.prefixes = PrefixCache(1, ROWS * (ROOM + 1), BLOCK)
        self.held = [[None] * BLOCK for _ in range(ROWS * (ROOM + 1))]
        self.rows = []  # (row, tokens)

    def check(self):
        for row, tokens in self.rows:
            assert row.length == len(tokens)
            self.assert_holds(row.blocks, tokens)
        for prefix in self.prefixes._order[0]:
            tokens, node = [], prefix
            while node.part is not None:
                tokens, node = [*node.part.ids, *tokens], node.parent
            self.assert_holds(prefix.blocks, tokens)

    def assert_holds(self, blocks, tokens):
        assert [self.held[blocks[at // BLOCK]][at % BLOCK] for at in range(len(tokens))] == tokens

    def add(self, row, tokens, part):
        """Compute the part, in two pieces."""
        for piece in (part.ids[:1], part.ids[1:]):
            copied = self.prefixes.reserve(row, len(piece)) if piece else None
            if copied is not None:
                self.held[copied[1]] = list(self.held[copied[0]])
            for token in piece:
                self.held[row.blocks[row.length // BLOCK]][row.length % BLOCK] = token
                row.length += 1
                tokens.append(token)
            self.check()


PARTS = st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_row_and_no_prefix_loses_a_token_whatever_comes_and_goes(data):
    cache = Cache()
    for _ in range(data.draw(st.integers(1, 25))):
        act = data.draw(st.sampled_from(["begin", "add", "add", "leave", "half", "forget"]))
        if act == "begin" and len(cache.rows) < ROWS:
            cache.rows.append((cache.prefixes.begin(0), []))
        elif cache.rows and act in ("add", "leave", "half"):
            place = data.draw(st.integers(0, len(cache.rows) - 1))
            row, tokens = cache.rows[place]
            part = Part(data.draw(PARTS), data.draw(st.booleans()))
            if act != "leave" and row.length + len(part.ids) <= BLOCK * ROOM:
                if act == "add" and cache.prefixes.advance(row, part):
                    tokens += part.ids
                elif act == "half":  # cancelled before it is a part
                    cache.add(row, tokens, part)
                else:
                    cache.add(row, tokens, part)
                    cache.prefixes.keep(row, part)
            if act in ("leave", "half"):
                cache.rows.pop(place)
                cache.prefixes.end(row)
        elif act == "forget":
            cache.prefixes.forget([Part(data.draw(PARTS), True), Part(data.draw(PARTS), False)])
        cache.check()
    for row, _ in cache.rows:
        cache.prefixes.end(row)
    while cache.prefixes._order[0]:
        cache.prefixes._remove(next(p for p in cache.prefixes._order[0] if not p.children))
    assert sorted(cache.prefixes._free[0]) == list(range(ROWS * (ROOM + 1)))


def test_what_was_used_least_recently_goes_first():
    cache = PrefixCache(1, 3, BLOCK)
    parts = [Part((n,) * 4, False) for n in range(4)]
    for part in parts[:3]:
        row = cache.begin(0)
        cache.reserve(row, 4)
        row.length = 4
        cache.keep(row, part)
        cache.end(row)
    row = cache.begin(0)
    assert cache.advance(row, parts[0])
    cache.end(row)
    row = cache.begin(0)
    cache.reserve(row, 4)
    assert [len(cache.match(0, [part])) for part in parts] == [2, 1, 2, 1]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_forgotten_session_frees_what_it_drew_and_leaves_its_prompt(kept):
    cache = PrefixCache(1, 9, BLOCK)
    parts = [Part((1, 2, 3), False), Part((4, 5), True), Part((6,), False)]
    row = cache.begin(0)
    for part in parts:
        cache.reserve(row, len(part.ids))
        row.length += len(part.ids)
        cache.keep(row, part)
    if not kept:
        cache.end(row)
    cache.forget(parts)
    assert len(cache.match(0, parts)) == (4 if kept else 2)
