"""Error kinds and what each costs, after TIDE (https://arxiv.org/abs/2008.08115, section 2).

Every wrong detection is of one kind, and every annotation that no correction would find is missed.
With ``own`` and ``other`` the largest IoU with annotations of the same and of another class:

    localisation    background <= own < match
    classification  other >= match
    duplicate       own >= match, yet a better detection has the annotation
    background      every IoU <= background
    both            what is left: another class, and not well placed

tried in this order, as the authors' program does. The cost of a kind is the AP gained were it put
right by an oracle: localisation and classification errors become right where their annotation is
free (the best one, the others go), duplicate, background and both go away, missed annotations are
no longer asked for. Letters: N detections; M annotations; D and G those of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swin_dense.evaluation.analysis.matching import Matches
from swin_dense.evaluation.analysis.ranking import Ranking, mean_over_classes
from swin_dense.evaluation.analysis.table import Bools, DetectionTable, Floats, Ints

KINDS = ("correct", "classification", "localisation", "both", "duplicate", "background")
PASSED_OVER = -1
CORRECT, CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(6)
COSTS = (*KINDS[1:], "missed")

MATCH_IOU = 0.5
BACKGROUND_IOU = 0.1


@dataclass(frozen=True, eq=False)
class ErrorKinds:
    """The kind of every detection, and the annotations that are missed.

    Attributes:
        kind: (N,) index into ``KINDS``, or ``PASSED_OVER`` in a crowd.
        target: (N,) the annotation it found, nearly found, or doubles; -1 for background and both.
        overlap: (N,) the IoU with ``target``; the largest with any where there is none.
        missed: (M,) annotations that no correction of a detection would find.
        unfound: (M,) annotations that no detection found; crowds are not asked for.
    """

    kind: Ints
    target: Ints
    overlap: Floats
    missed: Bools
    unfound: Bools


def error_kinds(
    table: DetectionTable, overlaps: Sequence[Floats], matches: Matches, level: int = 0
) -> ErrorKinds:
    """Return the kinds at one threshold of ``matches``, which should be 0.5."""
    match_iou = matches.thresholds[level]
    truth_of, found_of = matches.truth_of[level], matches.found_of[level]
    kind = np.full(len(table.found), BACKGROUND, np.int64)
    target = truth_of.copy()
    overlap = np.zeros(len(table.found))
    for image, whole in enumerate(overlaps):
        found, truth = table.found.rows(image), table.truth.rows(image)
        wanted = np.flatnonzero(~table.truth.crowd[truth])
        iou = whole[:, wanted]
        if iou.size == 0:
            continue
        rows = np.arange(len(iou))
        same = table.found.label[found][:, None] == table.truth.label[truth][wanted][None]
        own, other = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
        own_best, other_best = own.argmax(axis=1), other.argmax(axis=1)
        own_iou, other_iou = own[rows, own_best], other[rows, other_best]
        conditions = [
            (own_iou >= BACKGROUND_IOU) & (own_iou < match_iou),
            other_iou >= match_iou,
            own_iou >= match_iou,
            iou.max(axis=1) <= BACKGROUND_IOU,
        ]
        choices = [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND]
        kind[found] = np.select(conditions, choices, BOTH)
        near = np.where(kind[found] == CLASSIFICATION, other_best, own_best)
        known = np.isin(kind[found], (LOCALISATION, CLASSIFICATION, DUPLICATE))
        taken = np.where(known, truth.start + wanted[near], -1)
        target[found] = np.where(truth_of[found] >= 0, truth_of[found], taken)
        reached = np.where(known, np.where(kind[found] == CLASSIFICATION, other_iou, own_iou),
                           iou.max(axis=1))  # fmt: skip
        right = truth_of[found] >= 0
        reached[right] = whole[right, truth_of[found][right] - truth.start]
        overlap[found] = reached
    kind[truth_of >= 0] = CORRECT
    kind[matches.passed_over[level]] = PASSED_OVER
    target[kind == PASSED_OVER] = -1
    unfound = (found_of < 0) & ~table.truth.crowd
    missed = unfound.copy()
    missed[target[np.isin(kind, (LOCALISATION, CLASSIFICATION))]] = False
    return ErrorKinds(kind, target, overlap, missed, unfound)


def average_precision_without(table: DetectionTable, kinds: ErrorKinds, fixed: str) -> float:
    """Return the AP (0..1) were the errors of one kind put right.

    Args:
        table: the data set.
        kinds: from :func:`error_kinds`.
        fixed: one of ``COSTS``; "" for none; "false positives" puts every wrong detection behind
            the right ones, "false negatives" asks for nothing that was not found.
    """
    label, correct = table.found.label.copy(), kinds.kind == CORRECT
    gone = kinds.kind == PASSED_OVER
    wanted = ~table.truth.crowd
    score = table.found.score
    if fixed in ("classification", "localisation"):
        chosen = kinds.kind == KINDS.index(fixed)
        rescued = _best_for_each_target(table, kinds)
        gone = gone | (chosen & ~rescued)
        correct = correct | (chosen & rescued)
        label[chosen] = table.truth.label[kinds.target[chosen]]
    elif fixed in ("both", "duplicate", "background"):
        gone = gone | (kinds.kind == KINDS.index(fixed))
    elif fixed == "missed":
        wanted = wanted & ~kinds.missed
    elif fixed == "false positives":
        score = correct.astype(np.float64)
    elif fixed == "false negatives":
        wanted = wanted & ~kinds.unfound
    ranking = Ranking(
        len(table.class_names),
        label=label[~gone],
        score=score[~gone],
        image=table.found.image[~gone],
        correct=correct[~gone][None],
        passed_over=np.zeros((1, int((~gone).sum())), np.bool_),
        truth_label=table.truth.label[wanted],
        truth_image=table.truth.image[wanted],
    )
    found = ranking.average_precision()[0]
    # as the authors' program: a class of which nothing is asked any more counts 0 while it has
    # detections, so that the mean does not rise by classes that drop out of it
    asked = np.bincount(table.truth.label[~table.truth.crowd], minlength=len(found)) > 0
    detected = np.bincount(label[~gone], minlength=len(found)) > 0
    found[np.isnan(found) & asked & detected] = 0.0
    return mean_over_classes(found)


def error_costs(table: DetectionTable, kinds: ErrorKinds) -> dict[str, float]:
    """Return the AP (0..1) that each kind costs, those of ``COSTS`` and the two special ones.

    A correction that lowers AP by a hair, through the 101 recalls, costs 0.
    """
    names = (*COSTS, "false positives", "false negatives")
    before = average_precision_without(table, kinds, "")
    return {
        name: float(max(average_precision_without(table, kinds, name) - before, 0.0))
        for name in names
    }


def error_counts(
    kinds: ErrorKinds, above: Floats | None = None, least: float = 0.0
) -> dict[str, int]:
    """Return how many errors there are of each kind, of detections that score ``least`` or more."""
    kind = kinds.kind if above is None else kinds.kind[above >= least]
    counts = {name: int((kind == index).sum()) for index, name in enumerate(KINDS) if index}
    return {**counts, "missed": int(kinds.missed.sum())}


def _best_for_each_target(table: DetectionTable, kinds: ErrorKinds) -> Bools:
    """Whether a misplaced or misnamed detection is the best one for a free annotation."""
    candidates = np.flatnonzero(np.isin(kinds.kind, (LOCALISATION, CLASSIFICATION)))
    candidates = candidates[kinds.unfound[kinds.target[candidates]]]
    order = candidates[np.argsort(-table.found.score[candidates], kind="stable")]
    _, first = np.unique(kinds.target[order], return_index=True)
    result = np.zeros(len(table.found), np.bool_)
    result[order[first]] = True
    return result
