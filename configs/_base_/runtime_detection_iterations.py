# Iterations: a checkpoint with each validation, every 5,000.
_base_ = "runtime_detection.py"
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=5_000),
)
log_processor = dict(by_epoch=False)
