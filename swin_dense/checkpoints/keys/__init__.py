"""Other projects' names and layouts of weights, to the official ones and back.

``to_official(state)`` and ``from_official(state)`` take and return a dict of tensors without
prefixes; they rename, cut, join and reorder values and never compute new ones, so a round trip is
exact. Which of them a file needs is told by the modules of
:mod:`swin_dense.checkpoints.families`. For Swin a project is a module; PVT's are together.
"""
