"""Time a training step of Swin on a GPU: ours with the fused attention and without, and its peers.

    python -m benchmarks.bench_attention_gpu [--batch 2] [--rounds 15] [--official PATH]
    python -m benchmarks.bench_attention_gpu --device cpu --smoke      # does it run at all?

A step is forward in bfloat16 autocast, backward and AdamW of the backbone, on a batch of 800 x 1344
images. All contenders have equal weights and no stochastic depth, and none is timed before its four
maps agree with ours, in float32 and bfloat16, on these images and on 896 x 1344, where every grid is
whole windows; timm's only on the latter, for it shifts before it pads. They take turns; figures are medians, and a ratio is the median over the
rounds of theirs / ours fused: above 1, ours is faster. Memory is the peak of one step above what
lay there before it: activations, gradients and scratch, neither weights nor optimizer.

``--official PATH`` is a checkout of the official Swin-Transformer repository. Its class takes no
ragged grids, so it meets ours on images of 896 x 1344, with its own compiled kernels off and on.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import swin_dense
from swin_dense.checkpoints.keys import LAYOUTS
from swin_dense.ops import fused
from tests.checkpoints.peers import timm_class

IMAGE_HW, WHOLE_HW = (800, 1344), (896, 1344)
SMOKE_HW, SMOKE_WHOLE_HW = (256, 288), (448, 448)
    (800, 1344),
    (896, 1344),
    (256, 288),
    (224, 448),
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}
DERIVED = ("relative_position_index", "attn_mask")
OURS = "ours, fused"


@dataclass
class Contender:
    """A model, or why there is none; the switch it runs under; whether ours pads as it does."""

    name: str
    model: Any
    switch: Callable[[], AbstractContextManager[None]] = nullcontext
    pads_alike: bool = True


@dataclass
class Row:
    """One line of the table; ``problem`` says why the others are None."""

    arch: str
    image: str
    contender: str
    compiled: bool
    step_ms: float | None = None
    images_per_s: float | None = None
    peak_mib: float | None = None
    ratio: float | None = None
    problem: str | None = None


def main() -> None:
    """Measure, print, write ``attention_gpu.json`` and ``attention_gpu.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="+", default=["tiny", "base"], choices=list(SIZES))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--official", type=Path)
    parser.add_argument("--smoke", action="store_true", help="small images, no result files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "this benchmark needs a CUDA device and found none; --device cpu --smoke only tries it"
        )
    if options.device != "cuda" and not options.smoke:
        raise SystemExit(f"--device {options.device} gives no GPU figures: it needs --smoke")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows: list[Row] = []
    image_hw, whole_hw = (SMOKE_HW, SMOKE_WHOLE_HW) if options.smoke else (IMAGE_HW, WHOLE_HW)
    for arch in ["tiny"] if options.smoke else options.arch:
        rows += measure(peers(arch, whole_hw, options), arch, [whole_hw, image_hw], options)
        if options.official is not None:
            rows += measure(officials(arch, whole_hw, options), arch, [whole_hw], options)
    page = report(setting(options), rows)
    print(page)
    if not options.smoke:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {"setting": setting(options), "rows": [asdict(row) for row in rows]}
        (options.out / "attention_gpu.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / "attention_gpu.md").write_text(page)


def measure(
    contenders: Iterator[Contender],
    arch: str,
    sizes_hw: list[tuple[int, int]],
    options: argparse.Namespace,
) -> list[Row]:
    """Check all contenders on images of each size, then let them take turns on the last."""
    torch.manual_seed(0)
    batches = [torch.randn(options.batch, 3, *size, device=options.device) for size in sizes_hw]
    images = batches[-1]
    rows: list[Row] = []
    steps: list[tuple[Row, Callable[[], None]]] = []
    expected: list[list[Tensor]] = []
    for contender in contenders:
        for compiled in (False, True):
            row = Row(arch, "{} x {}".format(*sizes_hw[-1]), contender.name, compiled)
            rows.append(row)
            if isinstance(contender.model, str):
                row.problem = contender.model
                continue
            try:
                model: Any = copy.deepcopy(contender.model).to(options.device)
                if compiled:
                    torch._dynamo.reset()
                    model = torch.compile(model, backend="eager" if options.smoke else "inductor")
                with contender.switch():
                    checked = batches if contender.pads_alike else batches[:1]
                    maps = [outputs(model, batch) for batch in checked]
                    expected = expected or maps
                    for got, right in zip(maps, expected, strict=False):
                        check(got, right)
                if isinstance(contender.model, Timm):
                    contender.model.fit(model, sizes_hw[-1])
                step = train_step(model, images, contender.switch)
                step()
                step()
            except Exception as error:
                row.problem = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                continue
            row.peak_mib = peak_mib(step, images.device)
            steps.append((row, step))
        print(contender.name, *(row.problem or "agrees" for row in rows[-2:]), sep=": ", flush=True)

    seconds: dict[int, list[float]] = {id(row): [] for row, _ in steps}
    for _ in range(options.rounds):
        for row, step in steps:
            seconds[id(row)].append(timed(step, images.device))
    for row, _ in steps:
        own = seconds[id(row)]
        row.step_ms = round(statistics.median(own) * 1e3, 2)
        row.images_per_s = round(options.batch / statistics.median(own), 2)
        for other, _ in steps:
            if other.contender == OURS and other.compiled == row.compiled:
                pairs = zip(own, seconds[id(other)], strict=True)
                row.ratio = round(statistics.median(t / o for t, o in pairs), 3)
    return rows


def peers(arch: str, image_hw: tuple[int, int], options: argparse.Namespace) -> Iterator[Contender]:
    """Yield ours plain, ours fused, mmdet's, timm's and transformers' with equal weights."""
    source = Transformers(arch)
    with torch.no_grad():
        for parameter in source.parameters():  # so that biases and tables count
            parameter.add_(torch.randn_like(parameter) * 0.02)
    sizes = SIZES[arch]
    ours = [swin_dense.SwinTransformer(arch, drop_path_rate=0.0) for _ in range(2)]
    for model in ours:
        swin_dense.load_pretrained(model, source.backbone.state_dict())
    state = {name: value.detach().clone() for name, value in ours[0].named_parameters()}
    yield Contender("ours, plain", ours[0], fused.plain)
    yield Contender(OURS, ours[1] if kernel_runs(ours[1], options.device) else NO_KERNEL)

    from mmdet.models.backbones import SwinTransformer

    names = dict(sizes, embed_dims=sizes["embed_dim"])
    del names["embed_dim"]
    yield Contender("mmdet", filled(SwinTransformer(**names, drop_path_rate=0.0), state, "mm"))
    yield Contender("timm", Timm(arch, image_hw, state), pads_alike=False)
    yield Contender("transformers, sdpa", source)


def officials(
    arch: str, image_hw: tuple[int, int], options: argparse.Namespace
) -> Iterator[Contender]:
    """Yield ours and the official classifier's trunk, its compiled kernels off and on."""
    path = options.official / "models" / "swin_transformer.py"
    if not path.is_file():
        raise SystemExit(
            f"--official {options.official}: no models/swin_transformer.py there. Give a checkout "
            "of the official Swin-Transformer repository."
        )
    timm_class("SwinTransformer")  # the official file imports timm
    sys.path.append(str(options.official))  # where it looks for its kernels
    spec = importlib.util.spec_from_file_location("official_swin", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    ours = [Pooled(arch) for _ in range(2)]
    ours[1].load_state_dict(ours[0].state_dict())
    state = {name: value.detach() for name, value in ours[0].swin.named_parameters()}
    state = {name.replace("norm3.", "norm."): value for name, value in state.items()}
    yield Contender("ours, plain", ours[0], fused.plain)
    yield Contender(OURS, ours[1] if kernel_runs(ours[1].swin, options.device) else NO_KERNEL)
    for kernels in (False, True):
        name = f"official, its kernels {'on' if kernels else 'off'}"
        if kernels and module.WindowProcess is None:
            yield Contender(name, "its kernels are not built: see kernels/window_process there")
            continue
        trunk = module.SwinTransformer(
            img_size=image_hw,
            **SIZES[arch],
            drop_path_rate=0.0,
            num_classes=0,
            fused_window_process=kernels,
        )
        yield Contender(name, Official(filled(trunk, state, "official")))


NO_KERNEL = "no kernel on this device: it needs CUDA and triton"


def kernel_runs(model: Any, device: str) -> bool:
    """Whether the first stage's attention would go through the fused kernel."""
    attention = model.layers[0].blocks[0].attn
    tokens = torch.zeros(1, 14, 14, model.num_features[0], device=device)
    with torch.autocast(device, torch.bfloat16):
        return bool(attention._has_kernel(tokens))


class Transformers(nn.Module):
    """transformers' backbone, with torch's fused attention."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        from transformers import SwinBackbone, SwinConfig

        config = SwinConfig(
            **{
                key: value if key == "embed_dim" else list(value)
                for key, value in SIZES[arch].items()
            },
            drop_path_rate=0.0,
            out_features=["stage1", "stage2", "stage3", "stage4"],
            attn_implementation="sdpa",
        )
        self.backbone = SwinBackbone(config)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four maps."""
        return list(self.backbone(images).feature_maps)


class Timm(nn.Module):
    """timm's model; its maps bear no norms, so ours are added."""

    def __init__(self, arch: str, image_hw: tuple[int, int], state: dict[str, Tensor]) -> None:
        super().__init__()
        width = SIZES[arch]["embed_dim"]
        swin = timm_class("SwinTransformer")(
            img_size=image_hw, **SIZES[arch], drop_path_rate=0.0, num_classes=0, global_pool=""
        )
        swin.norm = nn.Identity()
        norms = {name: state[name] for name in state if name.startswith("norm")}
        self.swin = filled(swin, {n: v for n, v in state.items() if n not in norms}, "timm")
        self.norms = nn.ModuleDict({f"norm{i}": nn.LayerNorm(width * 2**i) for i in range(4)})
        self.norms.load_state_dict(norms)

    @staticmethod
    def fit(model: Any, image_hw: tuple[int, int]) -> None:
        """Make the masks for images of another size."""
        device = next(model.parameters()).device
        model.swin.set_input_size(img_size=image_hw)
        model.to(device)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four maps."""
        tokens, maps = self.swin.patch_embed(images), []
        for stage, norm in zip(self.swin.layers, self.norms.values(), strict=True):
            tokens = stage(tokens)
            maps.append(norm(tokens).permute(0, 3, 1, 2).contiguous())
        return maps


class Pooled(nn.Module):
    """Ours as a classifier's trunk: the mean of the last map."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        self.swin = swin_dense.SwinTransformer(
            arch, drop_path_rate=0.0, out_indices=(3,), clamp_small_maps=True
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the one vector an image."""
        return [self.swin(images)[0].mean(dim=(2, 3))]


class Official(nn.Module):
    """The official trunk."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk: Any = trunk

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the one vector an image."""
        return [self.trunk.forward_features(images)]


def filled(model: nn.Module, state: dict[str, Tensor], layout: str) -> Any:
    """Return a peer with our values under its own names, every parameter of it."""
    own = state if layout == "official" else LAYOUTS[layout].from_official(state)
    missing, unexpected = model.load_state_dict(own, strict=False)
    left = [name for name in missing if not name.endswith(DERIVED)]
    assert not left, left
    assert not unexpected, unexpected
    return model


def outputs(model: Any, images: Tensor) -> list[Tensor]:
    """Return the maps in float32 and, after them, those in bfloat16."""
    model.eval()
    maps: list[Tensor] = []
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=enabled):
            maps += [level.float() for level in model(images)]
    model.train()
    return maps


def check(maps: list[Tensor], expected: list[Tensor]) -> None:
    """Hold float32 to 1e-3 and bfloat16 to 5e-2 of the root mean square."""
    assert len(maps) == len(expected)
    for index, (got, right) in enumerate(zip(maps, expected, strict=True)):
        share = float((got - right).square().mean().sqrt() / right.square().mean().sqrt())
        limit = 1e-3 if index < len(maps) // 2 else 5e-2
        if not share <= limit:
            raise ValueError(f"its output {index} differs from ours by {share:.1e}: not timed")


def train_step(
    model: Any, images: Tensor, switch: Callable[[], AbstractContextManager[None]]
) -> Callable[[], None]:
    """Return one step of training as a function; gradients are gone at its end."""
    on_gpu = images.is_cuda
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=on_gpu)

    def step() -> None:
        with switch():
            with torch.autocast(images.device.type, torch.bfloat16):
                maps = model(images)
            torch.stack([level.float().square().mean() for level in maps]).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of a step, its work on the device done."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def peak_mib(step: Callable[[], None], device: torch.device) -> float | None:
    """Return the peak of a step above what was held before, in MiB; None off the GPU."""
    if device.type != "cuda":
        return None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    synchronize(device)
    return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was run where."""
    on_gpu = options.device == "cuda"
    facts: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }
    for package in ("torch", "triton", "mmdet", "timm", "transformers"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    given = {key: value for key, value in vars(options).items() if key != "out"}
    return facts | {key: str(value) for key, value in given.items()}


def report(facts: dict[str, Any], rows: list[Row]) -> str:
    """Return the page: what was run where, then the table."""
    lines = ["# A training step of Swin on a GPU", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", "Medians; memory is the peak of one step above weights and optimizer; ratio is"]
    lines += [f"theirs / {OURS}, pair by pair, compiled against compiled.", ""]
    lines += ["| arch | image | contender | compiled | ms | images/s | MiB | ratio |"]
    lines += ["| --- | --- | --- | --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        head = [row.arch, row.image, row.contender, "yes" if row.compiled else "no"]
        figures = [row.step_ms, row.images_per_s, row.peak_mib, row.ratio]
        cells = ["" if figure is None else str(figure) for figure in figures]
        if row.problem is not None:
            cells[0] = f"not measured: {row.problem}"
        lines.append("| " + " | ".join(head + cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
