"""The families of backbones whose weights are known here; each is a module that names its layouts.

To add one: a module beside these with a :class:`~swin_dense.checkpoints.families.family.Family`
called ``FAMILY``, and its row below. A backbone outside this package has its ``Family`` itself as
``checkpoint_family``.
"""

from __future__ import annotations

from importlib import import_module

from torch import nn

from swin_dense.checkpoints.families.family import Family
from swin_dense.errors import UserError

MODULES = {
    "focal": "swin_dense.checkpoints.families.focal",
    "scalable_vit": "swin_dense.checkpoints.families.scalable_vit",
    "pvt": "swin_dense.checkpoints.families.pvt",
    "swin": "swin_dense.checkpoints.families.swin",
    "vit": "swin_dense.checkpoints.families.vit",
}
"""The module of each family, by the name that its backbones have as ``checkpoint_family``."""


def family(name: str) -> Family:
    """Return the family of this name."""
    found: Family = import_module(MODULES[name]).FAMILY
    assert found.name == name
    return found


def families() -> tuple[Family, ...]:
    """Return every family."""
    return tuple(map(family, MODULES))


def family_of(backbone: nn.Module) -> Family | None:
    """Return the family that a backbone, or its class, says; None where neither does.

    Raises:
        UserError: it is one that is not known.
    """
    name = getattr(backbone, "checkpoint_family", None)
    if name is None or isinstance(name, Family):
        return name
    if name not in MODULES:
        raise UserError(
            f"{type(backbone).__name__} has checkpoint_family={name!r}; expected one of "
            f"{', '.join(MODULES)}, a row of its own in {__name__}.MODULES, or a Family."
        )
    return family(name)
