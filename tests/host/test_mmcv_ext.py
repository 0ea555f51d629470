"""mmcv.ops on the portable ``mmcv._ext``: same values and gradients as swin_dense.ops."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import swin_dense
from swin_dense import ops
from tests.ops.test_deformable import attention_sample
from tests.ops.test_nms import crowded
from tests.ops.test_roi_align import BOXES

pytest.importorskip("mmcv", reason="needs mmcv-lite: pip install -e .")
import mmcv.ops as host

ROOT = Path(swin_dense.__file__).resolve().parent.parent
CONTEXTS: list[Callable[[], AbstractContextManager[Any]]] = [
    nullcontext,
    lambda: torch.autocast("cpu", torch.bfloat16),
]
in_and_out_of_autocast = pytest.mark.parametrize("context", CONTEXTS, ids=["float32", "autocast"])

if "swin_dense" not in str(importlib.util.find_spec("mmcv._ext")):
    pytest.skip(
        "a compiled mmcv is installed and rightly wins; install mmcv-lite for these tests",
        allow_module_level=True,
    )


def assert_same(
    theirs: Callable[..., Tensor],
    ours: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Compare values and the gradient in every input, for a random gradient of the output."""
    results = []
    for function in (theirs, ours):
        leaves = [value.detach().clone().requires_grad_() for value in inputs]
        with context():
            output = function(*leaves)
        grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        results.append([output, *torch.autograd.grad(output, leaves, grad.to(output.dtype))])
    for host_value, our_value in zip(*results, strict=True):
        assert host_value.dtype == our_value.dtype
        torch.testing.assert_close(host_value, our_value)


def rois_sample(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 9, 11).to(dtype), torch.tensor(BOXES)


@in_and_out_of_autocast
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize(("ratio", "aligned"), [(0, True), (2, False)])
def test_mmcv_roi_align_is_ours(
    context: Callable[[], AbstractContextManager[Any]],
    dtype: torch.dtype,
    mode: Any,
    ratio: int,
    aligned: bool,
) -> None:
    features, rois = rois_sample(dtype)
    layer = host.RoIAlign((3, 2), 0.5, ratio, mode, aligned)
    assert_same(
        lambda maps: layer(maps, rois),
        lambda maps: ops.roi_align(maps, rois, (3, 2), 0.5, ratio, aligned, pool_mode=mode),
        (features,),
        context,
    )


def test_the_maximum_of_a_bfloat16_map_sends_its_gradient_to_the_right_far_cell() -> None:
    """Positions beyond 256 do not fit bfloat16, in which mmcv keeps what the backward needs."""
    features = torch.zeros(1, 1, 4, 800, dtype=torch.bfloat16)
    features[0, 0, 1, 701] = 1
    features.requires_grad_()
    layer = host.RoIAlign(1, 1.0, 0, "max", True)
    layer(features, torch.tensor([[0, 697.0, 0, 706, 3]])).sum().backward()
    assert features.grad is not None
    assert features.grad.nonzero().tolist() == [[0, 0, 1, 701]]


@in_and_out_of_autocast
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mmcv_roi_pool_is_ours(
    context: Callable[[], AbstractContextManager[Any]], dtype: torch.dtype
) -> None:
    features, rois = rois_sample(dtype)
    layer = host.RoIPool((3, 2), 0.5)
    assert_same(
        lambda maps: layer(maps, rois),
        lambda maps: ops.roi_pool(maps, rois, (3, 2), 0.5),
        (features,),
        context,
    )


@pytest.mark.parametrize(
    "layer", [host.RoIAlign(3), host.RoIAlign(3, pool_mode="max"), host.RoIPool(3)]
)
def test_mmcv_pools_no_boxes_to_nothing_and_names_an_image_that_is_not_there(layer: Any) -> None:
    features, rois = rois_sample()
    features.requires_grad_()
    pooled = layer(features, rois[:0])
    assert pooled.shape == (0, 3, 3, 3)
    pooled.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))
    with pytest.raises(swin_dense.UserError, match="image indices from 0 to 1 for 1 images"):
        layer(features[:1], rois)


@in_and_out_of_autocast
def test_mmcv_nms_keeps_our_boxes_with_their_scores(
    context: Callable[[], AbstractContextManager[Any]],
) -> None:
    boxes, scores = crowded(200)
    with context():
        for offset in (0, 1):
            kept, indices = host.nms(boxes, scores, 0.5, offset=offset)
            assert torch.equal(indices, ops.nms(boxes, scores, 0.5, offset=offset))
            assert torch.equal(kept, torch.cat([boxes, scores[:, None]], dim=1)[indices])
        kept, indices = host.nms(boxes, scores, 0.5, score_threshold=0.3, max_num=7)
    expected = ops.nms(boxes[scores > 0.3], scores[scores > 0.3], 0.5)[:7]
    assert torch.equal(indices, (scores > 0.3).nonzero().squeeze(1)[expected])
    as_arrays, _ = host.nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(as_arrays, np.ndarray)


@pytest.mark.parametrize("split_thr", [10000, 50])
def test_mmcv_batched_nms_is_ours_at_once_and_class_by_class(split_thr: int) -> None:
    boxes, scores = crowded(200)
    class_ids = torch.randint(0, 5, (200,))
    config = dict(type="nms", iou_threshold=0.4, split_thr=split_thr)
    kept, indices = host.batched_nms(boxes, scores, class_ids, config)
    assert torch.equal(indices, ops.batched_nms(boxes, scores, class_ids, 0.4))
    assert torch.equal(kept, torch.cat([boxes, scores[:, None]], dim=1)[indices])


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
def test_mmcv_soft_nms_is_ours(method: Any, offset: int) -> None:
    boxes, scores = crowded(100)
    settings = dict(iou_threshold=0.3, sigma=0.4, min_score=0.05, method=method, offset=offset)
    kept, indices = host.soft_nms(boxes, scores, **settings)
    expected, expected_indices = ops.soft_nms(boxes, scores, **settings)
    assert torch.equal(indices, expected_indices)
    assert torch.equal(kept, expected)
    assert host.soft_nms(boxes[:0], scores[:0])[0].shape == (0, 5)


def test_mmcv_nms_match_is_ours_as_tensors_and_arrays() -> None:
    boxes, scores = crowded(100)
    detections = torch.cat([boxes, scores[:, None]], dim=1)
    expected = [group.tolist() for group in ops.nms_match(boxes, scores, 0.4)]
    assert [group.tolist() for group in host.nms_match(detections, 0.4)] == expected
    assert [group.tolist() for group in host.nms_match(detections.numpy(), 0.4)] == expected


@in_and_out_of_autocast
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    ("layer", "ours"),
    [
        (host.SigmoidFocalLoss, ops.sigmoid_focal_loss),
        (host.SoftmaxFocalLoss, ops.softmax_focal_loss),
    ],
)
def test_mmcv_focal_losses_are_ours(
    layer: Any,
    ours: Callable[..., Tensor],
    reduction: str,
    weighted: bool,
    context: Callable[[], AbstractContextManager[Any]],
) -> None:
    if layer is host.SoftmaxFocalLoss and reduction == "none":
        # mmcv multiplies an (N, C) by an (N,) gradient there: right only for one gradient for all
        reduction = "sum"
    logits, targets = 3 * torch.randn(8, 5), torch.arange(8) % 5
    weight = torch.rand(5) + 0.5 if weighted else None

    def reduced(x: Tensor) -> Tensor:
        loss = ours(x, targets, 1.5, 0.3, weight)
        return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / 8}[reduction]

    assert_same(
        lambda x: layer(1.5, 0.3, weight, reduction)(x, targets), reduced, (logits,), context
    )


def test_mmcv_focal_losses_keep_their_gradient_where_float32_saturates() -> None:
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    for layer in (host.SigmoidFocalLoss, host.SoftmaxFocalLoss):
        (grad,) = torch.autograd.grad(layer(2.0, 0.25)(logits, torch.tensor([0])), logits)
        miss = 0.75 if layer is host.SigmoidFocalLoss else 0.25
        torch.testing.assert_close(grad, torch.tensor([[-0.25, miss]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mmcv_deformable_attention_function_is_ours(dtype: torch.dtype) -> None:
    value, shapes, locations, weights = (x.to(dtype) for x in attention_sample())
    shapes = shapes.long()
    starts = torch.tensor([0, 20, 26])
    attend = host.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    assert_same(
        lambda v, at, w: attend(v, shapes, starts, at, w, 64),
        lambda v, at, w: ops.multi_scale_deformable_attention(v, shapes, at, w),
        (value, locations, weights),
    )


def test_mmcv_deformable_attention_function_under_autocast_is_ours_at_its_rounded_places() -> None:
    value, shapes, locations, weights = attention_sample(torch.float32)
    starts = torch.tensor([0, 20, 26])
    attend = host.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend(value.bfloat16(), shapes, starts, locations, weights, 64)
    rounded = locations.bfloat16(), weights.bfloat16()
    expected = ops.multi_scale_deformable_attention(value.bfloat16(), shapes, *rounded)
    assert torch.equal(mixed, expected)


@in_and_out_of_autocast
@pytest.mark.parametrize(("groups", "deform_groups"), [(1, 1), (2, 1), (1, 2), (2, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_mmcv_modulated_deform_conv_is_ours(
    bias: bool,
    groups: int,
    deform_groups: int,
    context: Callable[[], AbstractContextManager[Any]],
) -> None:
    layer = host.ModulatedDeformConv2d(4, 6, 3, 2, 1, 1, groups, deform_groups, bias)
    inputs = (
        torch.randn(2, 4, 7, 9),
        torch.randn(2, 18 * deform_groups, 4, 5),
        torch.rand(2, 9 * deform_groups, 4, 5),
        layer.weight,
        *((torch.randn(6),) if bias else ()),
    )
    options = dict(stride=(2, 2), padding=(1, 1), groups=groups, deform_groups=deform_groups)
    theirs = host.modulated_deform_conv2d
    assert_same(
        lambda x, o, m, w, b=None: theirs(x, o, m, w, b, 2, 1, 1, groups, deform_groups),
        lambda x, o, m, w, b=None: ops.modulated_deform_conv2d(x, o, m, w, b, **options),
        inputs,
        context,
    )


@in_and_out_of_autocast
def test_mmcv_modulated_deform_conv_pack_is_ours_on_its_own_offsets(
    context: Callable[[], AbstractContextManager[Any]],
) -> None:
    layer = host.ModulatedDeformConv2dPack(4, 6, 3, padding=1)
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.1)
    images = torch.randn(2, 4, 7, 9)

    def ours(x: Tensor) -> Tensor:
        first, second, mask = layer.conv_offset(x).chunk(3, dim=1)
        offset, mask = torch.cat([first, second], dim=1), mask.sigmoid()
        # the layer follows the type of its offsets
        return ops.modulated_deform_conv2d(
            x.type_as(offset),
            offset,
            mask,
            layer.weight.type_as(offset),
            layer.bias.type_as(offset),
            padding=(1, 1),
        )

    assert_same(layer, ours, (images,), context)


def test_modulated_deform_conv_pack_starts_as_half_a_convolution() -> None:
    layer = host.ModulatedDeformConv2dPack(4, 6, 3, padding=1)
    images = torch.randn(2, 4, 7, 9)
    torch.testing.assert_close(
        layer(images), torch.nn.functional.conv2d(images, layer.weight / 2, layer.bias, padding=1)
    )


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda x: host.carafe(x, torch.zeros(1, 25, 8, 8), 5, 1, 2), "carafe_forward"),
        (lambda x: host.deform_conv2d(x, torch.zeros(1, 18, 4, 4), torch.zeros(4, 4, 3, 3), 1, 1),
         "deform_conv_forward"),
        (lambda x: host.nms_rotated(torch.zeros(2, 5), torch.zeros(2), 0.5), "nms_rotated"),
    ],
)  # fmt: skip
def test_an_op_that_is_not_portable_raises_on_use_with_its_name_and_both_ways_out(
    use: Callable[[Tensor], Any], name: str
) -> None:
    with pytest.raises(NotImplementedError) as caught:
        use(torch.randn(1, 4, 4, 4))
    message = str(caught.value)
    assert f"mmcv op '{name}'" in message
    assert "pip install mmcv" in message
    assert "choose a layer without it" in message


def test_find_spec_and_mmcvs_own_check_see_the_portable_module() -> None:
    from mmcv.utils.ext_loader import check_ops_exist

    spec = importlib.util.find_spec("mmcv._ext")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin) == ROOT / "swin_dense" / "host" / "mmcv_ext.py"
    assert check_ops_exist()
    assert host.get_compiler_version() == "none (portable ops of swin_dense)"


def test_the_finder_stands_behind_pythons_own_and_installing_it_again_adds_none() -> None:
    before = list(sys.meta_path)
    swin_dense.install_mmcv_ext_finder()
    assert sys.meta_path == before
    names = [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path]
    assert names.count("_MmcvExtFinder") == 1
    assert names.index("_MmcvExtFinder") > names.index("PathFinder")


def run_python(code: str) -> str:
    """Run code in a fresh interpreter that sees this checkout, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_ext_on_the_ordinary_path_wins_over_the_portable_one(tmp_path: Path) -> None:
    """A plain module plays the compiled one: what counts is where it is found."""
    (tmp_path / "_ext.py").write_text("WHO = 'compiled'\n")
    assert (
        run_python(
            f"""
        import swin_dense, mmcv
        mmcv.__path__.append({str(tmp_path)!r})
        import mmcv._ext
        print(mmcv._ext.WHO)
        """
        )
        == "compiled"
    )


def test_importing_swin_dense_imports_neither_torch_nor_mmcv() -> None:
    assert (
        run_python(
            """
        import sys, swin_dense
        print([name for name in ("torch", "mmcv", "mmengine", "numpy") if name in sys.modules])
        """
        )
        == "[]"
    )
