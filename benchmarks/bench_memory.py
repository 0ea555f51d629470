"""Time and peak memory of pasting masks and of sliding windows, ours and the hosts'.

    python benchmarks/bench_memory.py [--rounds 3] [--out benchmarks/results]

Masks: from the mask head's logits to compressed run lengths of the whole picture. Sliding windows:
from the preprocessed picture to label map and logits, with a network of a few layers. Every
measurement is a process of its own with the allocator set as the tools set it; the peak is what it
holds beyond what it held before. Ours and the host's must give the same result, to the last bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import swin_dense  # noqa: F401  the ops that the hosts import
from benchmarks.common import RESULTS, setting, table, versions

CASES = {
    "masks, 100 of 1/8 of the sides, 800 x 1333": ("masks", 800, 1333, 0.125),
    "masks, 100 of 1/8 of the sides, 4000 x 6000": ("masks", 4000, 6000, 0.125),
    "masks, 100 as large as the picture, 4000 x 6000": ("masks", 4000, 6000, 1.0),
    "windows, 150 classes, 2048 x 3072": ("windows", 2048, 3072, 1.0),
}
COUNT, CLASSES, CROP, STRIDE = 100, 150, 512, 341
ALLOCATOR = dict(MALLOC_MMAP_THRESHOLD_="1073741824", MALLOC_TRIM_THRESHOLD_="4294967296")


def main() -> None:
    """Measure, print, write ``memory.json`` and ``memory.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    packages = versions("torch", "mmdet", "mmsegmentation", "pycocotools")
    record = setting(rounds=options.rounds, packages=packages, rows=[])
    record["threads"] = int(os.environ.get("OMP_NUM_THREADS", record["threads"]))
    for case in CASES:
        found: dict[str, list[Any]] = {"host": [], "ours": []}
        for _ in range(options.rounds):
            for side, results in found.items():
                results.append(in_a_process(case, side))
        digests = {result["digest"] for results in found.values() for result in results}
        assert len(digests) == 1, f"{case}: the results differ"
        for side, results in found.items():
            row = {key: statistics.median(r[key] for r in results) for key in ("seconds", "mb")}
            record["rows"].append(dict(case=case, by=side, **row))
            print(record["rows"][-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    record["load_average_after"] = round(os.getloadavg()[0], 1)
    (options.out / "memory.json").write_text(json.dumps(record, indent=2) + "\n")
    (options.out / "memory.md").write_text(to_markdown(record))


def in_a_process(case: str, side: str) -> dict[str, Any]:
    """Return what :func:`measure` gives in a new process."""
    command = [sys.executable, "-m", "benchmarks.bench_memory", "--one", case, side]
    root = Path(__file__).resolve().parents[1]
    env = os.environ | ALLOCATOR
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{case}, {side}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(case: str, side: str) -> dict[str, Any]:
    """Return seconds, megabytes of the peak and a digest of the result."""
    kind, height, width, share = CASES[case]
    if side == "ours":
        from swin_dense.host.repairs import repair_hosts

        repair_hosts()
    torch.manual_seed(0)
    run = (paste_masks if kind == "masks" else slide)(height, width, share)
    before, start = peak_mb(), time.perf_counter()
    with torch.no_grad():
        result = run()
    seconds, mb = time.perf_counter() - start, peak_mb() - before
    return dict(seconds=seconds, mb=mb, digest=digest(result))


def paste_masks(height: int, width: int, share: float) -> Any:
    """Return a function from logits to run lengths."""
    import numpy as np
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead
    from mmengine.config import ConfigDict
    from pycocotools import mask as coco_mask

    head = FCNMaskHead(num_convs=0, num_classes=80)
    blobs = torch.nn.functional.interpolate(torch.randn(COUNT, 1, 7, 7), size=28, mode="bicubic")
    logits = blobs.repeat(1, 80, 1, 1)
    side = torch.tensor([width, height])
    corner = torch.rand(COUNT, 2) * side * (1 - share)
    boxes = torch.cat([corner, corner + side * share], dim=1)
    labels = torch.arange(COUNT) % 80
    meta = dict(ori_shape=(height, width), scale_factor=(1.0, 1.0))

    def run() -> Any:
        cfg = ConfigDict(mask_thr_binary=0.5)
        masks = head._predict_by_feat_single(logits, boxes, labels, meta, cfg, rescale=True)
        if hasattr(masks, "rles"):
            return [rle["counts"] for rle in masks.rles]
        pixels = (np.asfortranarray(mask.numpy(), dtype=np.uint8) for mask in masks)
        return [coco_mask.encode(mask)["counts"] for mask in pixels]

    return run


def slide(height: int, width: int, share: float) -> Any:
    """Return a function from the picture to logits and labels."""
    from mmengine.config import ConfigDict
    from mmengine.registry import MODELS, DefaultScope
    from mmseg.models import EncoderDecoder  # noqa: F401
    from mmseg.structures import SegDataSample

    head = dict(
        type="FCNHead", in_channels=128, channels=16, num_convs=1, in_index=-1,
        num_classes=CLASSES, norm_cfg=dict(type="BN"), align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
    )  # fmt: skip
    model = ConfigDict(
        type="EncoderDecoder",
        backbone=dict(type="FastSCNN", norm_cfg=dict(type="BN")),
        decode_head=head,
        test_cfg=dict(mode="slide", crop_size=(CROP, CROP), stride=(STRIDE, STRIDE)),
    )
    with DefaultScope.overwrite_default_scope("mmseg"):
        segmentor = MODELS.build(model).eval()
    image = torch.randn(1, 3, height, width)
    ori_shape = (round(height * share), round(width * share))
    sample = SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=ori_shape))

    def run() -> Any:
        (result,) = segmentor.predict(image, [sample])
        return [result.seg_logits.data, result.pred_sem_seg.data]

    return run


def digest(result: list[Any]) -> str:
    """Return a digest of bytes and tensors."""
    found = hashlib.sha256()
    for each in result:
        found.update(each if isinstance(each, bytes) else each.contiguous().numpy().data)
    return found.hexdigest()


def peak_mb() -> int:
    """Return the most memory that this process has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def to_markdown(record: dict[str, Any]) -> str:
    """Return the page."""
    packages = ", ".join(f"{name} {number}" for name, number in record["packages"].items())
    before, after = record["load_average_before"], record["load_average_after"]
    rows = [
        [row["case"], row["by"], f"{row['seconds']:.2f}", f"{row['mb']:.0f}"]
        for row in record["rows"]
    ]
    return "\n".join([
        "# Masks and sliding windows: time and peak memory",
        "",
        f"`python benchmarks/bench_memory.py`, {record['date']}, {record['machine']}, "
        f"{record['cores']} cores, threads: {record['threads']}, load {before} before, {after} "
        f"after; {packages}.",
        "",
        f"Medians of {record['rounds']}; ours and the host's results are equal to the last bit."
        + record.get("note", ""),
        "",
        *table(["Case", "By", "Seconds", "Peak, MB beyond the inputs"], rows),
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
