"""A file of rows with random access: only where each row begins is kept in memory."""

import hashlib
from array import array
from pathlib import Path
from typing import Generic

from .tasks import BOM, RowT, decode_line, scan_lines
from .types import BadInput


class RowFile(Generic[RowT]):
    """The rows of a file by number, from 0; blank lines are none. A row is read and checked when it is asked for.

    fingerprint: SHA-256 of the rows in order, without what surrounds them (line ends, blank lines, byte order mark).
    Raises BadInput for a file that cannot be read or has no rows.
    """

    def __init__(self, path: str | Path, kind: type[RowT]):
        self.path = path
        self.kind: type[RowT] = kind
        self._offsets, self._numbers = array("q"), array("q")
        digest = hashlib.sha256()
        for line in scan_lines(path):
            self._offsets.append(line.offset)
            self._numbers.append(line.number)
            digest.update(line.content.strip() + b"\n")
        if not self._offsets:
            raise BadInput(f"{path}: the file has no rows, expected one JSON object a line")
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> RowT:
        """Read the row of this number. Raises BadInput where it is defective, IndexError where there is none."""
        location = f"{self.path}:{self._numbers[number]}"
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offsets[number])
                line = file.readline()
        except OSError as problem:
            raise BadInput(f"{self.path}: cannot read the file: {problem.strerror or problem}") from problem
        return self.kind.from_json(decode_line(line.removeprefix(BOM), location), location)
