"""Colours as people see and name them: CIE L*a*b* under D65, and a table of names."""

from functools import cache

Lab = tuple[float, float, float]

# The names that a person would say, each with colours that it is said of. Where a colour lies nearest, that name is it.
NAMED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("white", ("#ffffff",)),
    ("very light grey", ("#f3f4f6", "#f9fafb", "#e5e7eb", "#f5f5f5")),
    ("light grey", ("#d1d5db", "#cccccc", "#dddddd")),
    ("grey", ("#9ca3af", "#6b7280", "#888888", "#a9a9a9")),
    ("dark grey", ("#4b5563", "#374151", "#444444")),
    ("very dark grey", ("#1f2937", "#222222", "#333333")),
    ("black", ("#000000", "#111111", "#111827")),
    ("very light red", ("#fee2e2",)),
    ("light red", ("#fca5a5", "#f87171")),
    ("red", ("#ef4444", "#dc2626", "#ff0000")),
    ("dark red", ("#b91c1c", "#7f1d1d", "#991b1b", "#8b0000")),
    ("beige", ("#f5f5dc", "#fdf6e3", "#faebd7")),
    ("light orange", ("#fed7aa", "#ffd8a8", "#fdba74")),
    ("orange", ("#f97316", "#ffa500", "#ff8c00", "#ea580c")),
    ("brown", ("#92400e", "#78350f", "#8b4513", "#a0522d", "#b45309")),
    ("light yellow", ("#fef3c7", "#fde68a", "#fefce8", "#ffffcc")),
    ("yellow", ("#fbbf24", "#ffff00", "#fcd34d", "#facc15", "#ffd700")),
    ("dark yellow", ("#d97706", "#ca8a04", "#b8860b")),
    ("very light green", ("#d1fae5", "#a7f3d0", "#dcfce7")),
    ("light green", ("#6ee7b7", "#86efac", "#90ee90")),
    ("green", ("#10b981", "#22c55e", "#34d399", "#00ff00", "#059669", "#16a34a", "#008000")),
    ("dark green", ("#047857", "#065f46", "#064e3b", "#006400", "#166534")),
    ("light teal", ("#99f6e4", "#5eead4", "#b2f5ea")),
    ("teal", ("#14b8a6", "#0d9488", "#008080", "#2dd4bf", "#38b2ac")),
    ("dark teal", ("#0f766e", "#134e4a", "#115e59")),
    ("very light blue", ("#dbeafe", "#eff6ff", "#e0f2fe")),
    ("light blue", ("#93c5fd", "#bfdbfe", "#60a5fa", "#add8e6", "#87ceeb")),
    ("blue", ("#3b82f6", "#2563eb", "#0000ff", "#0ea5e9", "#1e90ff")),
    ("dark blue", ("#1d4ed8", "#1e40af", "#1e3a8a", "#00008b", "#000080", "#0b2545", "#2c5282")),
    ("very light indigo", ("#e0e7ff",)),
    ("light indigo", ("#a5b4fc", "#c7d2fe")),
    ("indigo", ("#6366f1", "#4f46e5", "#818cf8")),
    ("dark indigo", ("#3730a3", "#312e81", "#4338ca")),
    ("very light purple", ("#ede9fe", "#f3e8ff")),
    ("light purple", ("#c4b5fd", "#ddd6fe", "#d8b4fe")),
    ("purple", ("#8b5cf6", "#7c3aed", "#a855f7", "#800080", "#9333ea")),
    ("dark purple", ("#5b21b6", "#4c1d95", "#4b0082", "#6d28d9")),
    ("light pink", ("#fbcfe8", "#fce7f3", "#ffc0cb")),
    ("pink", ("#f472b6", "#ec4899", "#ff69b4", "#f9a8d4", "#ff00ff")),
    ("dark pink", ("#be185d", "#9d174d", "#db2777", "#831843")),
)


@cache
def lab(colour: str) -> Lab:
    """L*, a* and b* of "#rrggbb". White is about (100, 0, 0)."""
    linear = []
    for start in (1, 3, 5):
        part = int(colour[start : start + 2], 16) / 255
        linear.append(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear
    x = (0.4124564 * red + 0.3575761 * green + 0.1804375 * blue) / 0.95047
    y = 0.2126729 * red + 0.7151522 * green + 0.0721750 * blue
    z = (0.0193339 * red + 0.1191920 * green + 0.9503041 * blue) / 1.08883
    fx, fy, fz = (part ** (1 / 3) if part > 216 / 24389 else (24389 / 27 * part + 16) / 116 for part in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def distance(one: str, other: str) -> float:
    """How different the colours look: the Euclidean distance in L*a*b* (CIE 1976), 100 from black to white."""
    return sum((a - b) ** 2 for a, b in zip(lab(one), lab(other), strict=True)) ** 0.5


@cache
def name(colour: str) -> str:
    """Name the colour as a person does.

    In: "#047857", "#fefefe"   Out: "dark green", "white"
    """
    return min(NAMED, key=lambda entry: min(distance(colour, example) for example in entry[1]))[0]


def contrast(wanted: str, seen: str) -> tuple[str, str]:
    """Name a wanted and a seen colour; where one name fits both, say what tells them apart.

    In: "#10b981", "#3b82f6"   Out: "green", "blue"
    In: "#3b82f6", "#2563eb"   Out: "a lighter blue", "too dark"
    """
    ours, theirs = name(wanted), name(seen)
    if ours != theirs:
        return ours, theirs
    lighter = lab(wanted)[0] - lab(seen)[0]
    if abs(lighter) < 2:
        return f"another shade of {ours}", "a little off"
    return (f"a lighter {ours}", "too dark") if lighter > 0 else (f"a darker {ours}", "too light")
