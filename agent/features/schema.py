"""What a feature is, and what a schema is: names, units, dtypes, meanings, and a digest over all of it.

It never computes a feature. A model bundle names the schema id and digest that it was trained on; the
agent refuses a bundle whose schema it does not have. The feature tables in the docs are generated
from here.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Feature:
    """One column of a feature matrix."""

    name: str
    unit: str
    """`packets`, `bytes`, `ns`, `us`, `ratio`, `hosts`, `ports`, `macs`, `slices`, `messages` ..."""
    dtype: str
    """`count` (whole, from int64), `ratio` (one float64 division) or `root` (one float64 square root)."""
    meaning: str


@dataclass(frozen=True)
class Schema:
    """An ordered tuple of features under an id (`ip-1`)."""

    id: str
    features: tuple[Feature, ...]

    @cached_property
    def digest(self) -> str:
        """16 hex digits of SHA-256 over canonical JSON of the id and every feature."""
        rows = [[f.name, f.unit, f.dtype, f.meaning] for f in self.features]
        text = json.dumps([self.id, rows], separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def index(self) -> dict[str, int]:
        """Column number by feature name."""
        return {f.name: i for i, f in enumerate(self.features)}

    def __len__(self) -> int:
        return len(self.features)
