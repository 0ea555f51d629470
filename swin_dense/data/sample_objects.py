"""The five kinds of things on a sample scene's beach, each told by shape and by texture.

Letters: h, w the supersampled patch of one object; u, v its own coordinates ``(h, w)``, in radii.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from swin_dense.data.sample_brush import Bools, Floats, jitter, mix, noise

THING_CLASSES = ("ball", "starfish", "shell", "leaf", "pebble")
REACH = {"ball": 1.0, "starfish": 1.2, "shell": 1.0, "leaf": 1.15, "pebble": 1.0}
"""Radius of each kind over the scene's usual one: slender things reach farther."""


@dataclass(frozen=True)
class Look:
    """How one object looks on its patch.

    Attributes:
        inside: ``(h, w)``, where it covers what lies below.
        colour: ``(h, w, 3)`` in [0, 1], unlit.
        height: ``(h, w)`` in radii; the shading comes from its slope.
        gloss: strength of the highlight.
    """

    inside: Bools
    colour: Floats
    height: Floats
    gloss: float = 0.0


def _ball(rng: np.random.Generator, u: Floats, v: Floats) -> Look:
    """A beach ball: coloured gores between two poles, turned at random in space."""
    squared = u**2 + v**2
    z = np.sqrt(np.clip(1 - squared, 0, 1))
    axis = rng.normal(size=3)
    axis[2] = abs(axis[2]) + 0.6
    axis /= np.linalg.norm(axis)
    east = np.cross(axis, [0.0, 1.0, 0.2])
    east /= np.linalg.norm(east)
    north = np.cross(axis, east)
    longitude = np.arctan2(
        u * east[0] + v * east[1] + z * east[2], u * north[0] + v * north[1] + z * north[2]
    )
    gores = np.floor(longitude / (2 * np.pi) * 6 + rng.uniform(0, 6)).astype(int) % 6
    paints = np.array(
        [(0.86, 0.16, 0.15), (0.10, 0.35, 0.75), (0.96, 0.78, 0.12), (0.10, 0.60, 0.35)]
    )
    first, second = paints[rng.permutation(4)[:2]]
    white = np.array([0.95, 0.95, 0.93])
    table = np.array([first, white, second, white, first, white])
    if rng.random() < 0.4:
        table = np.array([first, white] * 3)
    colour = table[gores]
    cap = u * axis[0] + v * axis[1] + z * axis[2] > 0.965
    colour[cap] = white
    return Look(squared < 1, colour.astype(np.float32), z.astype(np.float32), gloss=0.7)


def _starfish(rng: np.random.Generator, u: Floats, v: Floats) -> Look:
    """Five tapering arms, a light ridge and rows of dots on each."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    arm = np.round(angle / (2 * np.pi / 5)).astype(int) % 5
    reach = (1 - rng.uniform(0, 0.16, 5))[arm]
    off_axis = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    waist = rng.uniform(0.34, 0.42)
    edge = waist + (reach - waist) * np.exp(-((off_axis / rng.uniform(0.32, 0.40)) ** 2) * 1.6)
    depth = np.clip(1 - radius / edge, 0, 1)
    tones = [(0.93, 0.40, 0.10), (0.84, 0.20, 0.22), (0.60, 0.24, 0.58), (0.90, 0.35, 0.45)]
    body = jitter(rng, tones[rng.integers(len(tones))], 0.03)
    across, along = radius * np.sin(off_axis), radius * np.cos(off_axis)
    dots = np.cos(along * 24) * np.exp(-((across / 0.05) ** 2))
    rim_dots = 0.6 * np.cos(along * 24 + np.pi) * np.exp(-(((across - 0.12) / 0.04) ** 2))
    pale = np.clip(body * 0.4 + 0.6, 0, 1)
    colour = mix(body, pale, np.clip(dots + rim_dots, 0, 1) * 0.9)
    return Look(radius < edge, colour, (0.5 * np.sqrt(depth)).astype(np.float32), gloss=0.12)


def _shell(rng: np.random.Generator, u: Floats, v: Floats) -> Look:
    """A scallop: a ribbed fan opening from its hinge, with growth bands and two ears."""
    hinge = 0.82
    x, y = (u + hinge) / 1.75, v / 1.75  # the fan's own frame: hinge at the origin
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    half_angle = rng.uniform(0.86, 1.0)
    ribs = int(rng.integers(7, 11))
    phase = angle / half_angle * ribs * np.pi / 2
    edge = (1.0 + 0.035 * np.cos(2 * phase)) * (1 - 0.12 * (angle / half_angle) ** 2)
    edge = np.maximum(edge, 0.2)  # behind the hinge, where nothing is drawn
    fan = (radius < edge) & (np.abs(angle) < half_angle)
    ears = (np.abs(y) < 0.27) & (x > -0.03) & (x < 0.15 + 0.1 * np.abs(y))
    tones = [(0.93, 0.70, 0.64), (0.95, 0.86, 0.70), (0.82, 0.52, 0.42), (0.78, 0.66, 0.76)]
    body = jitter(rng, tones[rng.integers(len(tones))], 0.025)
    bands = 0.5 + 0.5 * np.sin(radius * rng.uniform(16, 24) + rng.uniform(0, 6))
    colour = mix(np.clip(body * 1.12, 0, 1), body * 0.62, 0.65 * bands**2 * radius)
    groove = (0.5 - 0.5 * np.cos(2 * phase)) ** 2
    colour = mix(colour, body * 0.45, 0.55 * groove * np.clip(radius * 2, 0, 1))
    dome = np.sqrt(np.clip(radius * (1.05 - radius / edge), 0, 1))
    height = 0.55 * dome + 0.05 * np.cos(2 * phase) * radius
    return Look(fan | ears, colour.astype(np.float32), height.astype(np.float32), gloss=0.2)


def _leaf(rng: np.random.Generator, u: Floats, v: Floats) -> Look:
    """A pointed blade bent along its midrib, with side veins and a stalk."""
    bend = rng.uniform(-0.22, 0.22)
    across = v - bend * (1 - u**2)
    along = np.clip((u + 1) / 1.85, 0, 1)  # 0 at the stalk's end, 1 at the tip
    width = rng.uniform(0.42, 0.54) * np.sin(np.pi * np.clip((along - 0.12) / 0.88, 0, 1) ** 0.8)
    width = width * (1 + 0.05 * np.sin(along * 60))
    blade = (np.abs(across) < width) & (u < 0.85)
    stalk = (np.abs(across) < 0.035) & (u > -1) & (u < 0)
    tones = [(0.40, 0.62, 0.16), (0.86, 0.70, 0.14), (0.66, 0.42, 0.12), (0.60, 0.66, 0.22)]
    body = jitter(rng, tones[rng.integers(len(tones))], 0.03)
    other = jitter(rng, tones[rng.integers(len(tones))], 0.03)
    colour = mix(body, other, 0.45 * along.astype(np.float32) + 0.1 * np.sin(u * 5))
    veins = np.exp(-((across / 0.035) ** 2))
    side = np.cos((u - 0.9 * np.abs(across)) * 26)
    veins = np.maximum(veins, 0.7 * np.clip(6 * side - 5, 0, 1))
    colour = mix(colour, np.clip(body * 0.55 + 0.42, 0, 1), 0.65 * veins.astype(np.float32))
    height = 0.22 * np.clip(np.abs(across), 0, 0.4) + 0.02 * side
    return Look(blade | stalk, colour, height.astype(np.float32), gloss=0.1)


def _pebble(rng: np.random.Generator, u: Floats, v: Floats) -> Look:
    """A smooth irregular stone, speckled, sometimes with a quartz vein."""
    angle = np.arctan2(v, u)
    edge = np.ones_like(u) * 0.86
    for order in (2, 3, 4):
        edge += rng.uniform(0.02, 0.16 / order) * np.cos(order * angle + rng.uniform(0, 6))
    squeeze = rng.uniform(0.68, 0.95)
    radius = np.hypot(u, v / squeeze)
    tones = [(0.48, 0.48, 0.50), (0.33, 0.34, 0.37), (0.60, 0.55, 0.50), (0.45, 0.36, 0.31)]
    body = jitter(rng, tones[rng.integers(len(tones))], 0.025)
    speckles = noise(rng, (u.shape[0], u.shape[1]), 4.0, octaves=2)
    colour = body * (1 + 0.16 * np.clip(speckles, -2, 2))[..., None]
    if rng.random() < 0.5:
        slant = rng.uniform(-0.5, 0.5)
        vein: Floats = np.exp(-(((v - slant * u - rng.uniform(-0.4, 0.4)) / 0.07) ** 2))
        colour = mix(colour, np.array([0.88, 0.87, 0.84], np.float32), 0.75 * vein)
    dome = np.clip(1 - (radius / edge) ** 2, 0, 1) ** 0.5
    return Look(radius < edge, colour.astype(np.float32), (0.6 * dome).astype(np.float32), 0.25)


PAINTERS: dict[str, Callable[[np.random.Generator, Floats, Floats], Look]] = {
    "ball": _ball,
    "starfish": _starfish,
    "shell": _shell,
    "leaf": _leaf,
    "pebble": _pebble,
}
