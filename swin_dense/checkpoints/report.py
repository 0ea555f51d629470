"""What became of a checkpoint: what was filled, what was not, and whether that is expected."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

OUTSIDE_BACKBONE = re.compile(r"(^|\.)(\w*head\w*|neck|classifier)\.|num_batches_tracked$")
"""Necks and heads exist in dense models only: no classifier has them."""

CLASSIFIER = re.compile(r"^(norm|head|fc|classifier)\.")
"""The classifier of a pretrained model, and the norm before it."""

SHOWN = 6
"""Names that a line of the table lists before it stops."""


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint.

    Attributes:
        source: the file it came from, or "a state dict".
        format: whose layout was recognised, such as "official", "mm", "timm", "torchvision", "hf".
        scope: "backbone" or "model": the part of the model that the checkpoint is for.
        coverage: share of that part's parameters, by count of numbers, that were filled.
        loaded, missing, unexpected, resized, reinitialised: parameter names. ``reinitialised`` were
            in the file but of a shape that could not be fitted; the model keeps its own values
            there.
        mapped: class-wise parameters whose rows were matched by class name.
        missing_expected: of the missing, those that such a checkpoint never has: output norms,
            plugins, necks and heads.
        notes: what fits and is wrong all the same.
        classifier: names that are in such files only, and not worth a line.
        classes_kept, classes_fresh: the model's classes that the checkpoint knows, and those it
            does not.
    """

    source: str
    format: str
    scope: str
    coverage: float
    loaded: list[str] = field(repr=False)
    missing: list[str]
    unexpected: list[str]
    resized: list[str]
    reinitialised: list[str]
    mapped: list[str] = field(default_factory=list)
    classes_kept: list[str] = field(default_factory=list)
    classes_fresh: list[str] = field(default_factory=list)
    missing_expected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classifier: re.Pattern[str] = field(default=CLASSIFIER, repr=False)

    @property
    def missing_suspicious(self) -> list[str]:
        """Missing names that a whole checkpoint of this model would have."""
        return [name for name in self.missing if name not in set(self.missing_expected)]

    def __str__(self) -> str:
        lines = [
            f"{self.source}: {self.format} layout, {self.coverage:.1%} of the {self.scope}'s "
            f"parameters filled ({len(self.loaded)} tensors)"
        ]
        foreign = [name for name in self.unexpected if not self.classifier.match(name)]
        for title, names in (
            ("missing, as expected", self.missing_expected),
            ("MISSING, suspicious", self.missing_suspicious),
            ("resized", self.resized),
            ("of another shape, left fresh", self.reinitialised),
            ("rows matched by class name", self.mapped),
            ("classes that start fresh", self.classes_fresh),
            ("in the file only", foreign),
        ):
            if names:
                shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
                lines.append(f"  {title:<28} {len(names):>4}  {shown}")
        return "\n".join(lines + [f"  {note}" for note in self.notes])
