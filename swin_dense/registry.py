"""Our nodes in mmengine's registry tree, scope ``swin_dense``.

mmdet and mmseg each own a ``SwinTransformer``, so a bare name cannot serve both. A child node with
its own scope can: ``type="swin_dense.SwinTransformer"`` resolves from either host to the very same
class, and mmengine imports this module by itself when it first meets the scope.
"""

from __future__ import annotations

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

SCOPE = "swin_dense"

MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=["swin_dense.backbones", "swin_dense.models"],
)
DATASETS = Registry("dataset", parent=MMENGINE_DATASETS, scope=SCOPE, locations=["swin_dense.data"])
TRANSFORMS = Registry(
    "transform", parent=MMENGINE_TRANSFORMS, scope=SCOPE, locations=["swin_dense.data"]
)
METRICS = Registry(
    "metric", parent=MMENGINE_METRICS, scope=SCOPE, locations=["swin_dense.evaluation"]
)
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope=SCOPE, locations=["swin_dense.engine.hooks"])
OPTIM_WRAPPERS = Registry(
    "optimizer wrapper",
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope=SCOPE,
    locations=["swin_dense.engine.amp"],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=["swin_dense.engine.layer_decay"],
)
WEIGHT_INITIALIZERS = Registry(
    "weight initializer",
    parent=MMENGINE_WEIGHT_INITIALIZERS,
    scope=SCOPE,
    locations=["swin_dense.backbones.pretrained"],
)
