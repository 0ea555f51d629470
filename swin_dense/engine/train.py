"""Train the model of a config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from swin_dense.engine.hooks import ValLossHook
from swin_dense.engine.runtime import use_bf16
from swin_dense.engine.session import build_runner, leaving_nothing_of_a_refusal
from swin_dense.engine.val_loss import PREFIX
from swin_dense.errors import UserError


@dataclass(frozen=True)
class TrainOptions:
    """What the command line can ask of a training run.

    Attributes:
        amp: mixed precision, in bfloat16 where the machine has it.
        auto_scale_lr: scale the learning rate by the batch size over the recipe's.
        resume: None, "auto" for the work dir's latest checkpoint, or a checkpoint's path.
        launcher: "none", "pytorch", "slurm" or "mpi".
        seed: random seed; None keeps the config's.
        deterministic: choose deterministic kernels.
        val_loss: with each validation also the losses; False keeps the config's `val_loss`.
    """

    amp: bool = False
    auto_scale_lr: bool = False
    resume: str | None = None
    launcher: str = "none"
    seed: int | None = None
    deterministic: bool = False
    val_loss: bool = False


def train(cfg: Config, options: TrainOptions | None = None) -> Runner:
    """Train until the config's end and return the runner, whose ``work_dir`` holds what came of it.

    Args:
        cfg: a whole config with ``work_dir`` set; it is changed in place.
        options: what to change in it.

    Raises:
        UserError: the data or a checkpoint is missing, or the config does not fit an option.
    """
    options = options or TrainOptions()
    if cfg.get("train_dataloader") is None:
        raise UserError("the config has no train_dataloader, so there is nothing to train on.")
    if options.amp:
        use_bf16(cfg)
    if options.auto_scale_lr:
        _enable_lr_scaling(cfg)
    if options.resume is not None:
        _resume(cfg, options.resume)
    if options.seed is not None or options.deterministic:
        randomness = dict(cfg.get("randomness") or {})
        if options.seed is not None:
            randomness["seed"] = options.seed
        if options.deterministic:
            randomness["deterministic"] = True
        cfg.randomness = randomness
    if options.val_loss:
        cfg.val_loss = True
    losses, notes = _check_val_loss(cfg), _lower_is_better(cfg)
    cfg.setdefault("custom_hooks", [])
    cfg.custom_hooks = [*(cfg.custom_hooks or []), dict(type="swin_dense.CheckFilesHook")]
    with leaving_nothing_of_a_refusal(cfg.work_dir):
        runner = build_runner(cfg, splits=("train", "val"), launcher=options.launcher)
        if losses:
            runner.register_hook(ValLossHook("val"))
        for note in notes:
            runner.logger.info(note)
        runner.train()
    return runner


def _enable_lr_scaling(cfg: Config) -> None:
    scaling = cfg.get("auto_scale_lr") or {}
    if "base_batch_size" not in scaling:
        raise UserError(
            "--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=N) in the config, the "
            "batch size "
            "that its learning rate was chosen for; this config has none."
        )
    scaling["enable"] = True
    cfg.auto_scale_lr = scaling


def _resume(cfg: Config, resume: str) -> None:
    cfg.resume = True
    if resume == "auto":
        cfg.load_from = None
    elif not Path(resume).is_file():
        raise UserError(
            f"--resume {resume}: no such checkpoint. Check the path, or give --resume alone."
        )
    else:
        cfg.load_from = resume


def _check_val_loss(cfg: Config) -> bool:
    wanted = cfg.get("val_loss")
    if wanted not in (None, False, True):
        raise UserError(f"val_loss={wanted!r} in the config; expected True or False.")
    if wanted and not (cfg.get("val_dataloader") and cfg.get("val_cfg")):
        raise UserError(
            "--val-loss (val_loss=True) needs a validation to go with; this config has not both "
            "val_dataloader and val_cfg. Add them, or leave the option out."
        )
    return bool(wanted)


def _lower_is_better(cfg: Config) -> list[str]:
    """Let ``save_best`` take the lowest validation loss; return a line for the log where the
    config's rule, which was meant for another figure, is changed.

    Raises:
        UserError: it names a validation loss that nothing will compute.
    """
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    best, rule = checkpoint.get("save_best"), checkpoint.get("rule")
    names = [best] if isinstance(best, str) else list(best or ())
    losses = [name for name in names if name.startswith(PREFIX)]
    if losses and not cfg.get("val_loss"):
        raise UserError(
            f"save_best={losses[0]!r} is computed under --val-loss (val_loss=True) only: add it."
        )
    rules = [rule] if isinstance(rule, str) else list(rule or ())
    rules = rules * len(names) if len(rules) == 1 else rules  # one rule is for all
    turned = []
    for index, (name, own) in enumerate(zip(names, rules, strict=False)):
        if name in losses and "loss" in name and own == "greater":
            rules[index] = "less"
            turned.append(f"save_best: the lowest {name} is the best (rule: less, not greater)")
    if turned:
        checkpoint["rule"] = rules
    return turned
