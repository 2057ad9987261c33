"""How a value crosses from the sandbox to the grader: plain data only, in an encoding of our own.

This file runs on both sides. `encode` runs in the worker with hostile code, so it looks at exact types and never
calls a method that an answer could have defined; `decode` runs in the grader on bytes that may be forged, so it checks
every bound and builds nothing but the values named here.

A value is a tag and its content:

    N T F                     None, True, False
    i f c s b                 int, float, complex, str, bytes      (i, s and b carry their length)
    l t S Z                   list, tuple, set, frozenset          (count, then items)
    d                         dict                                 (count, then key and value by turns)
    o                         anything in BUILDERS: name, then the tuple of arguments that builds it

Written rules beyond the plain types: `defaultdict`, `OrderedDict` and `Counter` of exactly these types equal what they
equal in Python (two OrderedDicts only in the same order); a numpy scalar is the Python value that `item()` gives; a
numpy array is an `Array`, equal only to an array of the same shape with equal items. Subclasses, user classes,
iterators and functions are unsupported.
"""

import builtins
import datetime
import struct
import sys
import zoneinfo
from collections import Counter, OrderedDict, defaultdict
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_BYTES = 1 << 20  # one encoded value
MAX_DEPTH = 64  # containers inside containers
MAX_NODES = 200_000  # values inside values
MAX_HASHED = 10_000  # dict keys and set elements
MAX_FRACTIONS = 1_000
MAX_COLLISIONS = 100  # keys in one dict or set whose hash another one has: forged keys must not cost minutes
MAX_DIGITS = 1 << 14  # bytes of one int, characters of one Decimal

NAN = float("nan")  # the one NaN of `strict`: containers compare by identity first, so it equals itself


class Unsupported(Exception):
    """The value is not plain data, or too large or too deep."""


class Malformed(Exception):
    """The bytes are not one encoded value."""


class Array:
    """A numpy array as plain data: its shape and its items in nested lists. Equal only to an array like it."""

    __slots__ = ("items", "shape")

    def __init__(self, shape: tuple[int, ...], items: object):  # no dataclass: importing those makes a worker heavy
        self.shape, self.items = shape, items

    def __eq__(self, other: object) -> bool:
        return type(other) is Array and (self.shape, self.items) == (other.shape, other.items)

    def __repr__(self) -> str:
        return f"Array(shape={self.shape!r}, items={self.items!r})"


BUILTIN_TYPES = {name: kind for name, kind in vars(builtins).items() if type(kind) is type} | {"NoneType": type(None)}
TYPE_NAMES = {kind: name for name, kind in BUILTIN_TYPES.items()}
SEQUENCES: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}
DICTS = (dict, defaultdict)

_HEAP_TYPE = 1 << 9  # set in the flags of every class that Python code made
_flags = type.__dict__["__flags__"].__get__
_module = type.__dict__["__module__"].__get__


def encode(value: object) -> bytes:
    """Encode a plain value. Raises Unsupported."""
    parts: list[bytes] = []
    left = [MAX_BYTES, MAX_NODES, MAX_HASHED]

    def put(*pieces: bytes) -> None:
        for piece in pieces:
            left[0] -= len(piece)
            if left[0] < 0:
                raise Unsupported(f"the result is larger than {MAX_BYTES} bytes")
            parts.append(piece)

    def put_sized(tag: bytes, content: bytes) -> None:
        put(tag, struct.pack("<I", len(content)), content)

    def put_object(name: str, arguments: tuple, depth: int) -> None:
        put(b"o")
        put_sized(b"", name.encode())
        write(arguments, depth + 1)

    def put_items(tag: bytes, items: Any, count: int, depth: int) -> None:
        if tag in b"SZd":
            left[2] -= count
            if left[2] < 0:
                raise Unsupported(f"the result has more than {MAX_HASHED} keys and set elements")
        put(tag, struct.pack("<I", count))
        for item in items:
            if tag == b"d":
                write(item[0], depth + 1)
                write(item[1], depth + 1)
            else:
                write(item, depth + 1)

    def write(value: Any, depth: int) -> None:
        left[1] -= 1
        if depth > MAX_DEPTH or left[1] < 0:
            raise Unsupported(f"the result is deeper than {MAX_DEPTH} or has more than {MAX_NODES} parts")
        kind = type(value)
        if value is None or kind is bool:
            put({None: b"N", True: b"T", False: b"F"}[value])
        elif kind is int:
            if value.bit_length() >= 8 * MAX_DIGITS:
                raise Unsupported(f"the result has an int of {value.bit_length()} bits")
            put_sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif kind is float:
            put(b"f", struct.pack("<d", value))
        elif kind is complex:
            put(b"c", struct.pack("<dd", value.real, value.imag))
        elif kind is str:
            put_sized(b"s", value.encode("utf-8", "surrogatepass"))
        elif kind is bytes:
            put_sized(b"b", value)
        elif type(kind) is not type and kind is not Fraction:  # a metaclass could answer `==` and `hash` for its class
            raise Unsupported("the result has a value whose class has a metaclass")
        elif kind in SEQUENCES:
            put_items(SEQUENCES[kind], value, len(value), depth)
        elif kind in DICTS:
            put_items(b"d", dict.items(value), dict.__len__(value), depth)
        else:
            put_object(*_as_object(value, kind), depth)

    write(value, 0)
    return b"".join(parts)


def _as_object(value: Any, kind: type) -> tuple[str, tuple]:
    """Name the one of BUILDERS that makes a value without a tag of its own, and its arguments. Raises Unsupported."""
    if kind is type and value in TYPE_NAMES:
        return "type", (TYPE_NAMES[value],)
    if kind is OrderedDict:
        return "OrderedDict", (dict(OrderedDict.items(value)),)
    if kind is Counter:
        return "Counter", (dict(dict.items(value)),)
    if kind is range:
        return "range", (value.start, value.stop, value.step)
    if kind is Decimal:
        return "Decimal", (str(value),)
    if kind is Fraction:
        return "Fraction", (value._numerator, value._denominator)
    if kind is datetime.datetime:
        clock = (value.hour, value.minute, value.second, value.microsecond, value.tzinfo, value.fold)
        return "datetime", (value.year, value.month, value.day, *clock)
    if kind is datetime.date:
        return "date", (value.year, value.month, value.day)
    if kind is datetime.time:
        return "time", (value.hour, value.minute, value.second, value.microsecond, value.tzinfo, value.fold)
    if kind is datetime.timedelta:
        return "timedelta", (value.days, value.seconds, value.microseconds)
    if kind is datetime.timezone:
        return "timezone", (value.utcoffset(None),)
    if kind is zoneinfo.ZoneInfo:
        return "ZoneInfo", (value.key,)
    if "numpy" in sys.modules and _module(kind) == "numpy" and not _flags(kind) & _HEAP_TYPE:
        if kind.__name__ == "ndarray":
            return "Array", (value.shape, value.tolist())
        return "scalar", (value.item(),)
    raise Unsupported(f"the result has a value of type {kind.__qualname__}"[:200])


def decode(data: bytes, nan: float | None = None) -> object:
    """Decode a plain value; every float NaN becomes the object `nan` if one is given. Raises Malformed."""
    position, nodes, hashed = 0, 0, 0
    fractions: list[int] = []  # hashes: since 3.12 Python keeps fractions in a dict of its own to hash them

    def take(count: int) -> bytes:
        nonlocal position
        piece = data[position : position + count]
        if len(piece) != count:
            raise Malformed("the value ends too early")
        position += count
        return piece

    def take_sized() -> bytes:
        return take(struct.unpack("<I", take(4))[0])

    def read_all(count: int, depth: int) -> list:
        if count > len(data):  # every item has at least one byte
            raise Malformed("more items than bytes")
        return [read(depth + 1) for _ in range(count)]

    def read_container(tag: bytes, depth: int) -> object:
        nonlocal hashed
        (count,) = struct.unpack("<I", take(4))
        if tag in b"SZd":
            hashed += count
            if hashed > MAX_HASHED:
                raise Malformed("too many keys")
        if tag == b"d":
            flat = read_all(2 * count, depth)
            return dict(zip(_keys(flat[::2]), flat[1::2], strict=True))
        items = read_all(count, depth)
        return {b"l": list, b"t": tuple, b"S": set, b"Z": frozenset}[tag](_keys(items) if tag in b"SZ" else items)

    def read(depth: int) -> object:
        nonlocal nodes
        nodes += 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise Malformed("too deep or too many parts")
        tag = take(1)
        if tag in b"NTF":
            return {b"N": None, b"T": True, b"F": False}[tag]
        if tag == b"i":
            content = take_sized()
            if len(content) > MAX_DIGITS:
                raise Malformed("an int with too many digits")
            return int.from_bytes(content, "little", signed=True)
        if tag == b"f":
            (number,) = struct.unpack("<d", take(8))
            return nan if nan is not None and number != number else number
        if tag == b"c":
            return complex(*struct.unpack("<dd", take(16)))
        if tag == b"s":
            return take_sized().decode("utf-8", "surrogatepass")
        if tag == b"b":
            return take_sized()
        if tag in b"ltSZd":
            return read_container(tag, depth)
        if tag == b"o":
            kinds, build = BUILDERS[take_sized().decode()]
            arguments = read(depth + 1)
            if type(arguments) is not tuple or len(arguments) != len(kinds):
                raise Malformed("arguments are not a tuple of the right length")
            if not all(kind is None or type(each) in kind for each, kind in zip(arguments, kinds, strict=True)):
                raise Malformed("an argument of a wrong type")
            if build is Fraction:
                fractions.append(hash(arguments))
                if len(fractions) - len(set(fractions)) > MAX_COLLISIONS or len(fractions) > MAX_FRACTIONS:
                    raise Malformed("too many fractions, or fractions that collide")
            return build(*arguments)
        raise Malformed(f"no value starts with {tag!r}")

    try:
        value = read(0)
    except Malformed:
        raise
    except Exception as error:  # forged content: a bad key, an impossible date, text that is not UTF-8
        raise Malformed(f"{type(error).__name__} while decoding") from None
    if position != len(data):
        raise Malformed("bytes after the value")
    return value


def _keys(keys: list) -> list:
    """Return the same keys. Raises Malformed if so many collide that a dict of them would take long."""
    if len(keys) - len({hash(key) for key in keys}) > MAX_COLLISIONS:
        raise Malformed("keys that collide")
    return keys


def _decimal(text: str) -> Decimal:
    if len(text) > MAX_DIGITS:
        raise Malformed("a Decimal that is not a short text")
    return Decimal(text)


def _datetime(*fields: Any) -> datetime.datetime:
    *clock, fold = fields
    return datetime.datetime(*clock, fold=fold)


def _time(*fields: Any) -> datetime.time:
    *clock, fold = fields
    return datetime.time(*clock, fold=fold)


_INT, _STR, _DICT = (int,), (str,), (dict,)
_ZONE = (type(None), datetime.timezone, zoneinfo.ZoneInfo)
_ANY = None

# name: (the exact types that each argument may have, what builds the value)
BUILDERS: dict[str, tuple[tuple, Any]] = {
    "type": ((_STR,), lambda name: BUILTIN_TYPES[name]),
    "range": ((_INT, _INT, _INT), range),
    "Decimal": ((_STR,), _decimal),
    "Fraction": ((_INT, _INT), Fraction),
    "OrderedDict": ((_DICT,), OrderedDict),
    "Counter": ((_DICT,), Counter),
    "date": ((_INT, _INT, _INT), datetime.date),
    "time": ((_INT, _INT, _INT, _INT, _ZONE, _INT), _time),
    "datetime": ((_INT, _INT, _INT, _INT, _INT, _INT, _INT, _ZONE, _INT), _datetime),
    "timedelta": ((_INT, _INT, _INT), datetime.timedelta),
    "timezone": (((datetime.timedelta,),), datetime.timezone),
    "ZoneInfo": ((_STR,), zoneinfo.ZoneInfo),
    "Array": (((tuple,), _ANY), Array),
    "scalar": ((_ANY,), lambda value: value),
}
