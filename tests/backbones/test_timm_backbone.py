"""Models of timm as backbones: their own maps, weights, sizes; the contract test does the rest."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import swin_dense
from swin_dense import UserError, load_pretrained
from swin_dense.backbones import timm_import
from tests.checkpoints.peers import v1

if importlib.util.find_spec("timm") is None:
    pytest.skip(
        "no timm here: run `make setup`, or pip install --no-deps timm", allow_module_level=True
    )
timm: Any = timm_import.import_timm()

RESNET = dict(channels=(8, 16, 32, 64), stem_width=4)
CONVNEXT = dict(depths=(2, 1, 1, 1), dims=(8, 16, 32, 64))
SWIN = dict(embed_dim=16, depths=(2, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4, img_size=64)
VIT = dict(embed_dim=32, depth=4, num_heads=2, img_size=64)
MODELS: dict[str, dict[str, Any]] = {
    "convnext_atto": CONVNEXT,
    "mobilenetv3_small_050": {},
    "resnet18": RESNET,
    "swin_tiny_patch4_window7_224": SWIN,
    "vit_tiny_patch16_224": VIT,
}


def make(name: str, **options: Any) -> swin_dense.TimmBackbone:
    return swin_dense.TimmBackbone(name, **{**MODELS.get(name, {}), **options})


def timms_own(name: str, **options: Any) -> Any:
    """timm's classifier, all its values drawn anew, so that nothing is zero."""
    model = timm.create_model(name, **{**MODELS[name], **options})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "indices", "strides"),
    [
        ("convnext_atto", (0, 1, 2, 3), (4, 8, 16, 32)),
        ("mobilenetv3_small_050", (1, 2, 3, 4), (4, 8, 16, 32)),
        ("resnet18", (1, 2, 3, 4), (4, 8, 16, 32)),
        ("swin_tiny_patch4_window7_224", (0, 1, 2, 3), (4, 8, 16, 32)),
        ("vit_tiny_patch16_224", (1, 2, 3), (16, 16, 16)),
    ],
)
def test_maps_are_timms_own_in_the_order_of_channels_first(
    name: str, indices: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    ours = make(name).eval()
    theirs = timm.create_model(name, features_only=True, **MODELS[name]).eval()
    theirs.load_state_dict(ours.timm_model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        got, features = ours(images), theirs(images)
    if len(features) == 5:  # the stem's map, of stride 2, is not among ours
        features = features[1:]
    assert ours.timm_model.feature_info.out_indices in (indices, list(indices))
    assert ours.out_strides == strides
    assert len(got) == len(features) == len(indices)
    for each, feature, channels, stride in zip(
        got, features, ours.out_channels, strides, strict=True
    ):
        if name.startswith("swin"):
            assert feature.shape[3] == channels
            assert each.is_contiguous()
            feature = feature.permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
        assert each.shape == (2, channels, 64 // stride, 64 // stride)
        assert torch.equal(each, feature)


def test_out_indices_are_timms() -> None:
    every, two = make("resnet18", out_indices=(0, 1, 2, 3, 4)), make("resnet18", out_indices=(0, 3))
    assert every.out_strides == (2, 4, 8, 16, 32)
    assert (two.out_channels, two.out_strides) == ((64, 32), (2, 16))
    two.load_state_dict(every.state_dict(), strict=False)
    images = torch.randn(1, 3, 50, 70)
    got, want = two.eval()(images), every.eval()(images)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[3])


@pytest.mark.parametrize("name", MODELS)
def test_the_file_of_a_classifier_of_timm_fills_everything(name: str) -> None:
    peer, ours = timms_own(name), make(name).eval()
    report = load_pretrained(ours, peer.state_dict())
    assert (report.format, report.scope, report.coverage) == ("timm", "backbone", 1.0)
    assert report.missing == []
    *_, last = (key for key in peer.state_dict() if key.endswith("weight"))
    assert "timm_model." + last in report.unexpected  # the classifier, which gives no map
    images = torch.randn(1, 3, 64, 64)
    indices = list(ours.timm_model.feature_info.out_indices)
    with torch.no_grad():
        want = peer.forward_intermediates(images, indices=indices, intermediates_only=True)
        got = ours(images)
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_timms_swin_keeps_timms_names_and_refuses_the_official_ones() -> None:
    name = "swin_tiny_patch4_window7_224"
    ours = make(name)
    assert "timm_model.layers_1.downsample.reduction.weight" in ours.state_dict()
    # names are alike, but timm merges patches where a stage begins, the official code at its end
    with pytest.raises(UserError, match=r"layers_3=6.*layers_3=8.*Nothing was loaded"):
        load_pretrained(ours, {"model": v1().state_dict()})


def test_weights_of_a_deeper_model_with_the_same_names_are_refused() -> None:
    deeper = timm.create_model("resnet34", **RESNET).state_dict()
    with pytest.raises(UserError, match=r"weights in layer3=26.*weights in layer3=10"):
        load_pretrained(make("resnet18"), deeper)


def test_a_wider_model_with_the_same_names_is_refused() -> None:
    wider = timm.create_model("resnet18", channels=(16, 32, 64, 128)).state_dict()
    with pytest.raises(UserError, match="fills too little of TimmBackbone"):
        load_pretrained(make("resnet18"), wider)


def test_checkpoint_path_is_loaded_when_weights_are_initialised(tmp_path: Path) -> None:
    peer = timms_own("convnext_atto")
    torch.save(peer.state_dict(), tmp_path / "mine.pth")
    ours = make("convnext_atto", checkpoint_path=str(tmp_path / "mine.pth"))
    ours.init_weights()
    assert torch.equal(
        ours.timm_model.stages_0.blocks[0].conv_dw.weight, peer.stages[0].blocks[0].conv_dw.weight
    )


def test_pretrained_is_timms_loader_when_weights_are_initialised_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = timms_own("resnet18")
    torch.save(peer.state_dict(), tmp_path / "mine.pth")
    monkeypatch.setenv("SWIN_DENSE_OFFLINE", "1")  # a file is no download
    ours = make(
        "resnet18",
        pretrained=True,
        pretrained_cfg_overlay=dict(file=str(tmp_path / "mine.pth")),
        in_channels=1,
    )
    before = ours.timm_model.layer1[0].conv1.weight.clone()
    assert not torch.equal(before, peer.layer1[0].conv1.weight)
    ours.init_weights()
    assert torch.equal(ours.timm_model.layer1[0].conv1.weight, peer.layer1[0].conv1.weight)
    # timm sums the first convolution over the colours
    torch.testing.assert_close(ours.timm_model.conv1.weight, peer.conv1.weight.sum(1, keepdim=True))
    assert ours(torch.randn(1, 1, 64, 64))[0].shape[1] == 8


def test_nothing_is_downloaded_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIN_DENSE_OFFLINE", "1")
    with pytest.raises(UserError, match=r"SWIN_DENSE_OFFLINE is set.*checkpoint_path"):
        make("resnet18", pretrained=True).init_weights()


def test_a_failed_download_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWIN_DENSE_OFFLINE", raising=False)
    ours = make("resnet18", pretrained=True)

    def unreachable(*args: Any, **options: Any) -> None:
        raise LookupError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError, match=r"no route to the hub.*checkpoint_path"):
        ours.init_weights()


def test_a_swin_of_one_size_says_how_to_take_others() -> None:
    name = "swin_tiny_patch4_window7_224"
    with pytest.raises(UserError) as caught:
        make(name)(torch.randn(1, 3, 96, 64))
    for words in ("96x64 pixels", "Input height (96)", "dynamic_img_size=True", "img_size="):
        assert words in str(caught.value)
    free = make(name, dynamic_img_size=True)
    maps = free(torch.randn(1, 3, 96, 72))
    assert [tuple(each.shape[2:]) for each in maps] == [(24, 18), (12, 9), (6, 5), (3, 3)]
    with pytest.raises(UserError, match=r"97x72 pixels.*divisible by patch size.*pad"):
        free(torch.randn(1, 3, 97, 72))
    with pytest.raises(UserError, match="16x16 pixels"):
        make("convnext_atto")(torch.randn(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("name", "frozen_stages", "beginnings"),
    [
        ("mobilenetv3_small_050", 0, ("conv_stem", "bn1")),
        ("mobilenetv3_small_050", 2, ("conv_stem", "bn1", "blocks.0.", "blocks.1.")),
        ("vit_tiny_patch16_224", 0, ("model.cls_token", "model.pos_embed", "model.patch_embed.")),
        ("vit_tiny_patch16_224", 1, ("model.",)),
        ("swin_tiny_patch4_window7_224", 1, ("patch_embed.", "layers_0.")),
    ],
)
def test_stages_freeze_wherever_timm_keeps_them(
    name: str, frozen_stages: int, beginnings: tuple[str, ...]
) -> None:
    model = make(name, frozen_stages=frozen_stages).train()
    names = dict(model.timm_model.named_parameters())
    frozen = {key for key, value in names.items() if not value.requires_grad}
    assert frozen == {key for key in names if key.startswith(beginnings)}
    norms = (nn.BatchNorm2d, nn.LayerNorm)
    for key, module in model.timm_model.named_modules():
        if isinstance(module, norms):
            assert module.training == (not key.startswith(beginnings)), key


def test_stages_that_do_not_follow_one_another_cannot_be_frozen() -> None:
    with pytest.raises(UserError, match=r"frozen_stages=1.*hrnet.*paramwise_cfg"):
        make("hrnet_w18_small", frozen_stages=1)


def test_norm_eval_keeps_batch_norms_in_evaluation() -> None:
    model = make("resnet18", norm_eval=True).train()
    images = torch.randn(2, 3, 64, 64)
    before = model.timm_model.bn1.running_mean.clone()
    model(images)
    assert torch.equal(model.timm_model.bn1.running_mean, before)
    assert model.timm_model.layer1.training
    plain = make("resnet18").train()
    plain(images)
    assert not torch.equal(plain.timm_model.bn1.running_mean, before)


def test_checkpointing_reaches_what_a_feature_model_wraps() -> None:
    model = make("vit_tiny_patch16_224", with_cp=True)
    assert model.timm_model.model.grad_checkpointing
    assert make("resnet18", with_cp=True).timm_model.grad_checkpointing
    model.timm_model = nn.Identity()  # of timm's own, none was found that has no checkpointing
    with pytest.raises(UserError, match=r"with_cp=True.*False for vit_tiny_patch16_224"):
        model._recompute()


def test_an_option_the_model_does_not_take_is_named_with_what_it_takes() -> None:
    with pytest.raises(UserError, match=r"resnet18 of timm has no option 'norm_cfg'.*norm_layer"):
        make("resnet18", norm_cfg=dict(type="BN"))


def test_a_model_without_weights_says_so_before_training() -> None:
    with pytest.raises(UserError, match=r"no weights 'nf_resnet26'.*pretrained=False"):
        make("nf_resnet26", pretrained=True)


def test_without_timm_one_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_import, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs? timm, which is not installed.*pip install"):
        make("resnet18")


def test_a_torchvision_that_is_here_is_used_and_named_where_it_does_not_fit(
    tmp_path: Path,
) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('torchvision::nms does not exist')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from swin_dense.backbones.timm_import import import_timm; import_timm()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    (message,) = (
        line for line in done.stderr.splitlines() if line.startswith("swin_dense.errors.")
    )
    for words in ("torchvision::nms does not exist", "pip uninstall torchvision"):
        assert words in message


def test_the_stand_in_for_torchvision_is_gone_after_timm_is_imported() -> None:
    code = (
        "import sys; from swin_dense.backbones.timm_import import import_timm; import_timm(); "
        "from importlib.util import find_spec; "
        "print('torchvision' in sys.modules, find_spec('torchvision') is None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    has_it = importlib.util.find_spec("torchvision") is not None
    assert done.stdout.split() == [str(has_it), str(not has_it)]


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None, reason="torchvision is here, and works"
)
def test_what_needs_torchvision_says_so_when_it_is_called() -> None:
    transforms = timm_import.import_timm("timm.data")
    with pytest.raises(UserError, match=re.escape("is torchvision's, which was not there")):
        transforms.create_transform(input_size=64, is_training=False)
