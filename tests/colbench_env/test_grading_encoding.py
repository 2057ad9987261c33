"""The encoding between sandbox and grader: what it carries, what it refuses, and that forged bytes do no harm."""

import datetime as dt
import random
import struct
import time
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbench_env.grading import encoding
from colbench_env.grading.encoding import Malformed, Unsupported, decode, encode

PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    127,
    128,
    -(2**70),
    10**5000,
    0.0,
    -0.5,
    float("inf"),
    1 + 2j,
    "",
    "é\x00\ud800",
    b"\xff\x00",
    [],
    [1, [2, ["3"]]],
    (1,),
    {1, "a", (2, 3)},
    frozenset({1}),
    {"b": [1], (1, 2): {}, None: 0},
    range(1, 10, 3),
    Decimal("1.10"),
    Fraction(-3, 7),
    dt.date(2024, 2, 29),
    dt.time(1, 2, 3, 4, fold=1),
    dt.datetime(2024, 2, 29, 1, 2, 3, 4),
    dt.datetime(2024, 2, 29, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, tzinfo=ZoneInfo("UTC")),
    dt.timedelta(days=-1, microseconds=5),
    dt.timezone(dt.timedelta(hours=2)),
    int,
    type(None),
    ValueError,
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(type(value).__name__))
def test_plain_values_come_back_equal_and_of_the_same_type(value):
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


def test_the_bytes_of_a_small_value_are_these():
    assert encode({"a": (1, None)}) == b"d\x01\0\0\0" + b"s\x01\0\0\0a" + b"t\x02\0\0\0" + b"i\x01\0\0\0\x01" + b"N"


@pytest.mark.parametrize("value", [defaultdict(int, a=1), OrderedDict(a=1), Counter("a")])
def test_the_standard_kinds_of_dict_are_the_dict_they_equal(value):
    assert decode(encode(value)) == {"a": 1}


def test_ordered_dicts_and_counters_keep_their_own_equality():
    moved = OrderedDict(a=1, b=2)
    moved.move_to_end("a")
    assert decode(encode(moved)) == OrderedDict(b=2, a=1) != OrderedDict(a=1, b=2)
    assert decode(encode(Counter(a=1, b=0))) == Counter(a=1)


class _Integer(int):
    pass


class _Text(str):
    pass


class _Dict(dict):
    def items(self):
        return [("forged", 1)]


class _SaysItIsList(type):
    def __eq__(cls, other):
        return True

    def __hash__(cls):
        return hash(list)


class _LooksLikeList(list, metaclass=_SaysItIsList):
    pass


class _LiesAboutItsClass:
    __class__ = property(lambda self: int)


class _LooksLikeNumpy:
    def item(self):
        return 1


_LooksLikeNumpy.__module__ = "numpy"


@pytest.mark.parametrize(
    "value",
    [
        _Integer(1),
        _Text("a"),
        _Dict(),
        _LooksLikeList(),
        _LiesAboutItsClass(),
        _LooksLikeNumpy(),
        namedtuple("P", "x")(1),
        _Integer,
        object(),
        len,
        iter([1]),
        (n for n in [1]),
        bytearray(b"a"),
        [lambda: 1],
        {"a": object()},
        2 ** (8 * encoding.MAX_DIGITS),
        "x" * encoding.MAX_BYTES,
        list(range(encoding.MAX_NODES)),
        set(range(encoding.MAX_HASHED + 1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_unsupported(value):
    with pytest.raises(Unsupported):
        encode(value)


def test_nesting_is_carried_to_the_limit_and_no_deeper():
    deepest = []
    for _ in range(encoding.MAX_DEPTH):
        deepest = [deepest]
    assert decode(encode(deepest)) == deepest
    with pytest.raises(Unsupported, match="deeper than 64"):
        encode([deepest])
    loop = []
    loop.append(loop)
    with pytest.raises(Unsupported):
        encode(loop)


def test_every_cut_and_every_flipped_byte_is_a_value_or_malformed():
    whole = encode({"a": [1, 2.5, (True, None)], (3,): {dt.date(2024, 1, 1), Decimal(1)}, "t": int})
    for cut in range(len(whole)):
        with pytest.raises(Malformed):
            decode(whole[:cut])
    dice = random.Random(0)
    for _ in range(5000):
        forged = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            forged[dice.randrange(len(forged))] = dice.randrange(256)
        try:
            decode(bytes(forged))
        except Malformed:
            pass


KEYS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.fractions()
    | st.decimals(allow_nan=False) | st.dates() | st.datetimes() | st.times() | st.timedeltas()
    | st.complex_numbers(allow_nan=False) | st.sampled_from([int, ValueError, range(3), ZoneInfo("UTC")]),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
VALUES = st.recursive(
    KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4) | st.sets(KEYS, max_size=4),
    max_leaves=12,
)


def _shape(value):
    """The types in a value, in the order of lists, tuples and dicts."""
    if isinstance(value, (list, tuple)):
        return type(value), [_shape(item) for item in value]
    if isinstance(value, dict):
        return dict, [(_shape(key), _shape(item)) for key, item in value.items()]
    return type(value)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(VALUES)
def test_any_plain_value_comes_back_equal_and_of_the_same_types(value):
    back = decode(encode(value))
    assert back == value
    assert _shape(back) == _shape(value)


def _read(data):
    """What bytes are: "malformed", or a "value", which is then encoded and decoded again without loss."""
    try:
        value = decode(data)
    except Malformed:
        return "malformed"
    again = encode(value)
    assert sorted(encode(decode(again))) == sorted(again)  # sets have no order
    return "value"


@pytest.mark.slow
def test_a_value_with_bytes_replaced_is_a_value_or_malformed():
    seen = Counter()

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(VALUES, st.data())
    def forge(value, data):
        forged = bytearray(encode(value))
        start = data.draw(st.integers(0, len(forged)))
        forged[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        seen[_read(bytes(forged))] += 1

    forge()
    assert min(seen["value"], seen["malformed"]) > 30


@pytest.mark.slow
def test_random_bytes_and_pieces_of_values_are_a_value_or_malformed():
    seen = Counter()
    pieces = [b"N", b"i\1\0\0\0\5", b"s\1\0\0\0a", b"l\1\0\0\0", b"t\2\0\0\0", b"S\1\0\0\0", b"d\1\0\0\0", b"o"]

    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(st.binary(max_size=64) | st.lists(st.sampled_from(pieces), max_size=6).map(b"".join))
    def read(data):
        seen[_read(data)] += 1

    read()
    assert min(seen["value"], seen["malformed"]) > 10


def _object(name, arguments):
    return b"o" + struct.pack("<I", len(name)) + name + encode(arguments)


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"?",
        b"NN",
        b"i\xff\xff\xff\xff\x01",
        b"l\xff\xff\xff\xff",
        b"d\x01\0\0\0" + b"l\0\0\0\0" + b"N",
        b"s\x01\0\0\0\xff",
        b"l\x01\0\0\0" * 5000 + b"N",
        b"i" + struct.pack("<I", 1 << 15) + b"\x01" * (1 << 15),
        _object(b"__import__", ("os",)),
        _object(b"Fraction", ("1e999999999",)),
        _object(b"Decimal", (1.5,)),
        _object(b"date", (2023, 2, 29)),
        _object(b"ZoneInfo", ("../../etc/passwd",)),
        _object(b"type", ("nothing",)),
        _object(b"range", [1]),
        _object(b"range", (True, 2, 3)),
        _object(b"date", (b"\x07\xe8\x02\xff",)),
        _object(b"datetime", (b"\x07\xe8\x02\xff\0\0\0\0\0\0", 0)),
        _object(b"timedelta", (1.5, 0, 0)),
        _object(b"Counter", ([1],)),
        b"S" + struct.pack("<I", 20000) + b"N" * 20000,
    ],
)
def test_forged_bytes_are_malformed(forged):
    with pytest.raises(Malformed):
        decode(forged)


def test_keys_that_collide_are_refused_before_they_cost_the_grader_time():
    step = 2**61 - 1  # the modulus of Python's hash of numbers
    few = {step * n for n in range(encoding.MAX_COLLISIONS + 1)}
    assert decode(encode(few)) == few
    for make in (lambda n: step * n, lambda n: Fraction(step * n), lambda n: (0, Decimal(step * n))):
        keys = b"".join(encode(make(n)) for n in range(1, encoding.MAX_HASHED // 2))
        count = struct.pack("<I", encoding.MAX_HASHED // 2 - 1)
        start = time.monotonic()
        with pytest.raises(Malformed, match="collide"):
            decode(b"S" + count + keys)
        assert time.monotonic() - start < 5


def test_numpy_values_follow_the_written_rule():
    numpy = pytest.importorskip("numpy")
    assert decode(encode(numpy.float64(1.5))) == 1.5
    assert type(decode(encode(numpy.int32(3)))) is int
    assert decode(encode(numpy.bool_(True))) is True
    assert decode(encode([numpy.str_("a")])) == ["a"]
    array = decode(encode(numpy.array([[1, 2], [3, 4]])))
    assert array == encoding.Array((2, 2), [[1, 2], [3, 4]])
    assert array != [[1, 2], [3, 4]]
    assert array != encoding.Array((4,), [1, 2, 3, 4])
    with pytest.raises(Unsupported):
        encode(numpy.ma.array([1]))
