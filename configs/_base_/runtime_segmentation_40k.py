# Short runs: a checkpoint every 4,000 iterations, with each validation.
_base_ = "runtime_segmentation.py"
default_hooks = dict(checkpoint=dict(interval=4_000))
