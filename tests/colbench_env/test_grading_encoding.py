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
        with pytest.raises(Malformed, match="keys that collide"):
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
