"""The methods that are compared, their recipes, and the configurations that each recipe was chosen from."""

from __future__ import annotations

from dataclasses import dataclass
