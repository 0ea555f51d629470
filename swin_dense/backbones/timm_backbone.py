"""Any model of timm that gives maps, as a backbone of the hosts.

timm (https://github.com/huggingface/pytorch-image-models) is optional and imported on first use.
Letters: B batch; H, W rows and columns; C channels.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import Self

from swin_dense.backbones.base import Backbone
from swin_dense.backbones.options import check_frozen_stages, check_images
from swin_dense.backbones.timm_import import import_timm
from swin_dense.backbones.timm_stages import frozen_modules, pyramid_indices, stages
from swin_dense.backbones.timm_weights import timm_family
from swin_dense.checkpoints.fetch import OFFLINE
from swin_dense.errors import UserError, did_you_mean
from swin_dense.registry import MODELS

_UNEXPECTED = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_FIXED = {
    "in_chans": "in_channels",
    "feature_cls": "timm's own for the model",
    "scriptable": "none",
}


@MODELS.register_module()
class TimmBackbone(Backbone):
    """A model of timm with ``features_only=True``; its maps leave as (B, C, H, W).

    The options are those of mmseg's and mmpretrain's wrappers, and so are the names in a state
    dict, which begin with ``timm_model.``.

    Args:
        model_name: as ``timm.create_model`` takes it, such as "resnet50.a1_in1k".
        features_only: True; a classifier gives no maps.
        pretrained: load timm's weights, with timm's own loader, when the model's weights are
            initialised: in training, and not where a checkpoint of yours is tested.
        checkpoint_path: a file of timm's, by path or URL, loaded by :func:`load_pretrained`; short
            for ``init_cfg=dict(type="Pretrained", ...)``.
        in_channels: channels of the input images; timm adapts its weights to them.
        out_indices: maps that leave, as timm counts them; None for the last maps of strides 4, 8,
            16 and 32 where the model has these, else for those that timm gives by itself.
        frozen_stages: 0 freezes what comes before the first map of stride 4 or more, k also the
            stages up to the last map of the k-th such stride, -1 nothing; as mmdet's ResNet.
        with_cp: timm's gradient checkpointing; batch norms see each batch twice.
        norm_eval: keep batch norms in evaluation, as mmdet's ResNet does for small batches.
        init_cfg: None, or ``dict(type="swin_dense.Pretrained", checkpoint=...)``.
        timm_options: anything else that the model takes, such as ``drop_path_rate``, ``img_size``
            or ``pretrained_cfg_overlay=dict(file=...)``.

    Attributes:
        timm_model: timm's own feature model.
        out_channels: channels of each map that leaves.
        out_strides: pixels of the input per cell, for each map that leaves.

    Raises:
        UserError: no timm, an unknown model, an option that the model does not take, or that timm
            does not offer for it.
    """

    def __init__(
        self,
        model_name: str,
        *,
        features_only: bool = True,
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        norm_eval: bool = False,
        init_cfg: dict[str, Any] | None = None,
        **timm_options: Any,
    ) -> None:
        timm = import_timm()
        _check_options(timm, model_name, features_only, pretrained, timm_options)
        _check_one_source(
            pretrained=pretrained or None,
            checkpoint_path=checkpoint_path or None,
            init_cfg=init_cfg,
        )
        super().__init__(
            in_channels=in_channels,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            pretrained=checkpoint_path or None,
            init_cfg=init_cfg,
        )
        self.model_name = model_name
        self.pretrained = pretrained
        self.norm_eval = norm_eval
        self.timm_options = {**timm_options, "in_chans": in_channels}
        if out_indices is None:
            with torch.device("meta"):
                out_indices = pyramid_indices(self._create().feature_info.info)
        if out_indices is not None:
            self.timm_options["out_indices"] = tuple(out_indices)
        self.timm_model = self._create()
        info = self.timm_model.feature_info
        self.out_channels, self.out_strides = tuple(info.channels()), tuple(info.reduction())
        last = max(index % len(info.info) for index in info.out_indices)
        self._stages = info.info[: last + 1]
        layout = str(getattr(self.timm_model, "output_fmt", None) or "NCHW")
        self._is_channels_last = layout.endswith("NHWC")
        if not layout.endswith(("NCHW", "NHWC")):
            raise UserError(
                f"{model_name} gives {layout}; expected maps, NCHW or NHWC. Choose another model."
            )
        # an instance's own: timm has as many layouts as models
        self.checkpoint_family = timm_family(model_name, self.state_dict())
        check_frozen_stages(type(self).__name__, frozen_stages, len(stages(self._stages)))
        if with_cp:
            self._recompute()
        self.freeze()

    def _create(self, *, pretrained: bool = False) -> Any:
        """Return a new feature model of timm.

        Raises:
            UserError: timm refuses the options.
        """
        timm = import_timm()
        try:
            return timm.create_model(
                self.model_name, features_only=True, pretrained=pretrained, **self.timm_options
            )
        except TypeError as error:
            raise UserError(_unknown_option(timm, self.model_name, error)) from error
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:
            raise UserError(
                f"timm does not make {self.model_name} with {self.timm_options}: "
                f"{error or type(error).__name__}. Expected a model with feature maps, and "
                "out_indices that it has; change what the message names."
            ) from error

    def _recompute(self) -> None:
        """Switch timm's checkpointing on, of the feature model or of what it wraps."""
        inner = getattr(self.timm_model, "model", None)
        for candidate in (self.timm_model, inner):
            if hasattr(candidate, "set_grad_checkpointing"):
                cast(Any, candidate).set_grad_checkpointing(True)
                return
        raise UserError(
            f"TimmBackbone got with_cp=True; expected False for {self.model_name}, for which timm "
            "has no gradient checkpointing."
        )

    def frozen_parts(self, frozen_stages: int) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the stem, and the first stages.

        Raises:
            UserError: timm's model does not hold its stages one after another.
        """
        parts = frozen_modules(self.timm_model, self._stages, frozen_stages)
        if parts is None:
            raise UserError(
                f"TimmBackbone got frozen_stages={frozen_stages}; expected -1 for "
                f"{self.model_name}, whose stages do not follow one another in timm's model. "
                "Freeze by lr_mult=0 in paramwise_cfg.custom_keys."
            )
        return parts

    def train(self, mode: bool = True) -> Self:
        """Switch to training; frozen parts, and norms under ``norm_eval``, stay in evaluation."""
        super().train(mode)
        if self.norm_eval:
            for module in self.timm_model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Load timm's weights, or what ``init_cfg`` names, or keep the fresh initialisation.

        Raises:
            UserError: the weights cannot be had or do not fit.
        """
        if not self.pretrained:
            super().init_weights()
            return
        if os.environ.get(OFFLINE, "0") not in ("", "0") and not _names_file(self.timm_options):
            raise UserError(
                f"TimmBackbone got pretrained=True and {OFFLINE} is set, so that nothing is "
                "downloaded; expected weights on the disk: give checkpoint_path, or unset "
                f"{OFFLINE}."
            )
        try:
            source = self._create(pretrained=True)
        except UserError:
            raise
        except Exception as error:  # of the network, or of the file: a dozen libraries' own
            raise UserError(
                f"timm could not load the weights of {self.model_name}: {error}. Try again, or "
                "download the file and give its path as checkpoint_path."
            ) from error
        self.timm_model.load_state_dict(source.state_dict())
        self._is_init = True

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return one ``(B, C_i, H_i, W_i)`` map per out index; the model rounds the sides its way.

        Raises:
            UserError: ``images`` is not (B, in_channels, H, W), or of a size the model refuses.
        """
        check_images(images, self.in_channels)
        try:
            maps = self.timm_model(images)
        except AssertionError as error:
            raise UserError(self._refused(images, error)) from error
        except RuntimeError as error:
            if min(images.shape[2:]) >= max(self.out_strides):
                raise
            raise UserError(self._refused(images, error)) from error
        if self._is_channels_last:
            return tuple(each.permute(0, 3, 1, 2).contiguous() for each in maps)  # NHWC -> NCHW
        return tuple(maps)

    def _refused(self, images: Tensor, error: Exception) -> str:
        height, width = images.shape[2:]
        return (
            f"{self.model_name} of timm refuses images of {height}x{width} pixels: {error} "
            "Expected a size that it takes. Give the backbone img_size=(height, width) if all your "
            "images have one size, or dynamic_img_size=True where the model has that option; pad "
            "to a multiple by pad_size_divisor (mmdet) or size_divisor (mmseg) of the data "
            "preprocessor; or choose a convolutional model, which takes any size."
        )


def _check_options(
    timm: Any, model_name: str, features_only: bool, pretrained: bool, others: Mapping[str, Any]
) -> None:
    """Raise a UserError for a model that timm does not know or an option that is ours."""
    if not features_only:
        raise UserError(
            "TimmBackbone got features_only=False; expected True: a classifier gives no maps. "
            "Leave it out."
        )
    if not isinstance(pretrained, bool):
        raise UserError(
            f"TimmBackbone got pretrained={pretrained!r}; expected True or False. A file goes into "
            "checkpoint_path."
        )
    for name in others:
        if name in _FIXED:
            raise UserError(
                f"TimmBackbone got {name}={others[name]!r}; expected {_FIXED[name]}. Leave it out."
            )
    if ":" in model_name:  # hf-hub:..., local-dir:...
        return
    bare, _, tag = model_name.partition(".")
    if not timm.is_model(bare):
        known = [*timm.list_models(), *timm.list_pretrained()]
        close = difflib.get_close_matches(model_name, known, n=5, cutoff=0.5)
        raise UserError(
            f"timm {timm.__version__} has no model {model_name!r}; expected one of "
            f"timm.list_models(){', such as ' + ', '.join(close) if close else ''}."
        )
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{bare}.*")]
    if (tag and tag not in tags) or (pretrained and not tags and not _names_file(others)):
        raise UserError(
            f"timm {timm.__version__} has no weights {model_name!r}{did_you_mean(tag, tags)}; "
            f"expected {'one of the tags ' + ', '.join(tags) if tags else 'pretrained=False'}."
        )


def _names_file(timm_options: Mapping[str, Any]) -> bool:
    """Whether timm's weights are to come from a file that the options name."""
    given = (timm_options.get(key) for key in ("pretrained_cfg", "pretrained_cfg_overlay"))
    return any(isinstance(cfg, Mapping) and cfg.get("file") for cfg in given)


def _check_one_source(**sources: object) -> None:
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise UserError(
            f"TimmBackbone got both {' and '.join(given)}; expected one of them: pretrained for "
            "timm's own weights, checkpoint_path or init_cfg for a file."
        )


def _unknown_option(timm: Any, model_name: str, error: TypeError) -> str:
    """Say which option a model of timm does not take, and which was meant."""
    found = _UNEXPECTED.search(str(error))
    if found is None:
        return f"timm does not make {model_name}: {error}. Check the options given to TimmBackbone."
    entry = timm.model_entrypoint(model_name.partition(".")[0])
    owner = getattr(sys.modules[entry.__module__], found[1], None)
    known = list(inspect.signature(TimmBackbone).parameters)[:-1]
    known += list(inspect.signature(owner).parameters) if owner else []
    return (
        f"{model_name} of timm has no option {found[2]!r}{did_you_mean(found[2], known)}; expected "
        f"those of TimmBackbone and of timm's {found[1]}: {', '.join(known)}."
    )
