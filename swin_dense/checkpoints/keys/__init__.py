"""One module for each project's names and layouts of Swin weights, to the official ones and back.

Every module has ``to_official(state)`` and ``from_official(state)``. Both take and return a dict of
tensors without prefixes; they rename and reorder values and never compute new ones, so a round trip
is exact. Which of them a file needs is told by :mod:`swin_dense.checkpoints.families.swin`.
"""
