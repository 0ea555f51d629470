"""Make a run fit the machine it is on: memory allocator, process group, what a CPU cannot do."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch.distributed as torch_dist
from mmengine.config import Config, ConfigDict
from torch import nn

from swin_dense.engine.amp import amp_wrapper_type
from swin_dense.errors import UserError
from swin_dense.layers.convolution import replace_convolutions
from swin_dense.ops.fused import send_products_to_onednn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 2**31 - 1
_NEVER_TRIM = -1


def keep_large_allocations() -> bool:
    """Tell glibc to keep large freed blocks in the process; return whether it took effect.

    By default each large activation is mapped anew and given back to the kernel, and the page
    faults cost
    more than the arithmetic: a Swin-T step on the CPU takes several times as long.
    """
    if platform.system() != "Linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES) and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))


def on_cpu() -> bool:
    """Whether no accelerator is at hand, so that models run on the CPU."""
    from mmengine.device import get_device

    return bool(get_device() == "cpu")


def fit_to_machine(cfg: Config, *, launcher: str = "none") -> list[str]:
    """Change in ``cfg`` what this machine cannot do and return a line for each change, for the log.

    Raises:
        UserError: the launcher's environment is missing.
    """
    notes = []
    if on_cpu():
        if keep_large_allocations():
            notes.append(
                "CPU: large allocations are kept by the process (mallopt), which saves page faults"
            )
        if send_products_to_onednn():
            notes.append("CPU: float32 matrix products run in oneDNN, to the same precision")
        notes += _fit_to_cpu(cfg, distributed=launcher != "none")
    if launcher == "pytorch":
        _check_torchrun()
        if on_cpu() and not torch_dist.is_initialized():
            torch_dist.init_process_group("gloo")
    cfg.launcher = launcher
    return notes


def quicken(model: nn.Module) -> list[str]:
    """Let a built model compute with less on a CPU, and return a line for the log."""
    if not on_cpu():
        return []
    count = replace_convolutions(model)
    if not count:
        return []
    return [
        f"CPU: {count} convolutions multiply less, by Winograd's method and without the places "
        "that have no gradient; SWIN_DENSE_FAST=0 leaves them as they were"
    ]


def _fit_to_cpu(cfg: Config, *, distributed: bool) -> list[str]:
    notes = []
    wrapper = cfg.get("optim_wrapper") or {}
    if wrapper.get("type") == "AmpOptimWrapper":
        use_bf16(cfg)
        notes.append("CPU: mixed precision runs in bfloat16, float16 has no kernels here")
    if _fuse_optimizer(wrapper):
        notes.append("CPU: the optimizer steps in one pass over the weights (fused=True)")
    if distributed:
        count = _replace_sync_bn(cfg.model)
        if count:
            notes.append(f"CPU: {count} SyncBN settings became BN, which torch has on GPUs only")
        wrapper_cfg = dict(cfg.get("model_wrapper_cfg") or dict(type="MMDistributedDataParallel"))
        wrapper_cfg.setdefault("broadcast_buffers", False)
        wrapper_cfg.setdefault("find_unused_parameters", cfg.get("find_unused_parameters", False))
        wrapper_cfg["device_ids"] = None
        cfg.model_wrapper_cfg = ConfigDict(wrapper_cfg)
        notes.append("CPU: the processes talk through gloo")
    return notes


def _fuse_optimizer(wrapper: Any) -> bool:
    """Choose torch's one-pass step where the config chooses none; return whether it did."""
    optimizer = wrapper.get("optimizer") or {}
    chosen = {"fused", "foreach", "differentiable"} & set(optimizer)
    if chosen or optimizer.get("type") not in ("Adam", "AdamW", "SGD"):
        return False
    optimizer["fused"] = True
    return True


def use_bf16(cfg: Config) -> None:
    """Switch the config's optimizer wrapper to mixed precision as this machine has it."""
    cfg.optim_wrapper.type = amp_wrapper_type()
    if cfg.optim_wrapper.type != "AmpOptimWrapper":
        for key in ("loss_scale", "dtype", "use_fsdp"):
            cfg.optim_wrapper.pop(key, None)


def _replace_sync_bn(node: Any) -> int:
    if isinstance(node, Mapping):
        count = sum(_replace_sync_bn(value) for value in node.values())
        if node.get("type") == "SyncBN":
            node["type"] = "BN"  # type: ignore[index]
            count += 1
        return count
    if isinstance(node, list | tuple):
        return sum(_replace_sync_bn(value) for value in node)
    return 0


def _check_torchrun() -> None:
    missing = [
        name
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
        if name not in os.environ
    ]
    if missing:
        raise UserError(
            "--launcher pytorch needs the environment that torchrun sets, and "
            f"{', '.join(missing)} are not "
            "set. Start it with tools/dist_train.sh CONFIG NUM_PROCESSES, or leave --launcher out."
        )
