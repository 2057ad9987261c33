from typing import Any


def write_report(run: Any, seconds: float | None) -> None:
    pass
