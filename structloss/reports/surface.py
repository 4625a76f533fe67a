"""Loss surfaces: what the losses say of every place of one joint, and a figure of them (Dabral et al., Figure 4)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import functional, skeletons
from ..errors import ArgumentError, check_choice
from ..files import new_file, write_bytes
from ..skeletons import Hinge, Skeleton
from . import _style

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize

__all__ = ["EXAMPLE_POSE", "LossSurfaces", "Mark", "loss_surfaces", "plot_surfaces"]

#: a person who faces the camera, metres, camera frame (x right, y down, z forward), Human3.6M's joints; the left arm is
#: bent, 0.28 and 0.25 m long, its shoulder and wrist at one depth, so that mirroring the elbow's keeps both lengths
EXAMPLE_POSE = np.array(
    [
        [0.0, 0.0, 0.0], [-0.13, 0.0, 0.0], [-0.13, 0.45, 0.0], [-0.13, 0.9, 0.0], [0.13, 0.0, 0.0], [0.13, 0.45, 0.0],
        [0.13, 0.9, 0.0], [0.0, -0.25, 0.0], [0.0, -0.5, 0.0], [0.0, -0.6, -0.03], [0.0, -0.72, 0.0],
        [0.18, -0.48, 0.0], [0.18, -0.26907899999999996, 0.184151], [0.18, -0.1, 0.0],
        [-0.18, -0.48, 0.0], [-0.18, -0.2, 0.0], [-0.18, 0.05, 0.0],
    ]
)  # fmt: skip
EXAMPLE_POSE.setflags(write=False)

#: surface -> its title
TITLES = {
    "location": "(a) 2D location",
    "symmetry": "(b) 2D location + symmetry",
    "illegal_angle": "(c) + illegal angle",
    "euclidean": "(d) full 3D location",
}
_HIGHLIGHTS = ("#111111", "#c1121f", "#7209b7")  # of the marks


@dataclass(frozen=True)
class Mark:
    """A place of the joint.

    Attributes:
        name: what it is.
        x, z: metres.
        pose: float64 `[J, 3]`, with the joint there.
    """

    name: str
    x: float
    z: float
    pose: np.ndarray


@dataclass(frozen=True, eq=False)
class LossSurfaces:
    """Losses over places of one joint, the others fixed.

    Attributes:
        pose: float64 `[J, 3]`, metres, camera frame: the true pose.
        joint: which one moves.
        skeleton: name of the joints' order.
        x, z: float64 `[N]` each: where it is, metres.
        terms: "location" (squared distance in x and y), "symmetry" (L_s), "illegal_angle" (L_a) and "euclidean"
            (squared distance) -> float64 `[N, N]`, at `[x, z]`, each by itself.
        marks: the truth (3), the joint mirrored in depth (1), a legal place with unequal lengths (2); a mark's number
            is its place in the figure.
    """

    pose: np.ndarray
    joint: int
    skeleton: str
    x: np.ndarray
    z: np.ndarray
    terms: Mapping[str, np.ndarray]
    marks: Mapping[int, Mark]

    def shown(self) -> dict[str, np.ndarray]:
        """The four surfaces of the figure: location; with L_s; with L_s and L_a; and full 3D location."""
        terms = self.terms
        flat = terms["location"] + terms["symmetry"]
        return {
            "location": terms["location"],
            "symmetry": flat,
            "illegal_angle": flat + terms["illegal_angle"],
            "euclidean": terms["euclidean"],
        }

    def at(self, mark: int) -> dict[str, float]:
        """The four values at a mark itself, which need not be a point of the grid."""
        one = self.marks[mark]
        place = _terms(one.pose[None], self.pose, self.joint, self.skeleton)
        surfaces = LossSurfaces(self.pose, self.joint, self.skeleton, self.x, self.z, place, {})
        return {name: float(values[0]) for name, values in surfaces.shown().items()}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the numbers: `.npz` with `pose_m`, `x`, `z` and an array per term, or `.csv` with a row per place and
        a column per term. The file appears complete or not at all.

        Raises:
            ArgumentError: another ending.
        """
        path = Path(path)
        kind = check_choice("data", path.suffix.lower(), (".npz", ".csv"))
        with new_file(path) as file:
            if kind == ".npz":
                arrays: dict[str, Any] = {"pose_m": self.pose, "x": self.x, "z": self.z, **self.terms}
                np.savez_compressed(file, **arrays)
            else:
                x, z = (values.ravel() for values in np.meshgrid(self.x, self.z, indexing="ij"))
                table = np.stack([x, z, *(values.ravel() for values in self.terms.values())], axis=-1)
                head = ",".join(["x_m", "z_m", *self.terms])
                np.savetxt(file, table, delimiter=",", header=head, comments="", fmt="%.9g")
        return path


def loss_surfaces(
    pose: np.ndarray | None = None,
    *,
    joint: int | str = "left_elbow",
    reach: float = 0.3,
    grid: int = 121,
    skeleton: str = "h36m",
    x: np.ndarray | None = None,
    z: np.ndarray | None = None,
) -> LossSurfaces:
    """Move an elbow or knee of a pose through x and depth, and evaluate the losses everywhere.

    Depth is taken about that of the joint before (shoulder or hip), x about that of the joint itself. The grid, its
    size and weights of 1 are ours; the paper tells none.

    Args:
        pose: `[J, 3]`, metres, camera frame (x right, y down, z forward); None is :data:`EXAMPLE_POSE`.
        joint: number or name of an elbow or knee.
        reach: metres to both sides.
        grid: places along x, and along z.
        skeleton: name of the joints' order.
        x, z: places instead of `reach` and `grid`, metres.

    Raises:
        ArgumentError: another shape, values that are not finite, a joint that is no elbow or knee, a range that is not
            positive, or a grid of fewer than 2 places or more than 1000.
        UnknownNameError: an unknown skeleton.
    """
    body = skeletons.get(skeleton)
    true = np.array(EXAMPLE_POSE if pose is None else pose, dtype=np.float64)
    if true.shape != (body.num_joints, 3) or not np.isfinite(true).all():
        found = f"shape {list(true.shape)}" if true.shape != (body.num_joints, 3) else "NaN or infinite values"
        raise ArgumentError(f"pose has {found}, expected finite metres [{body.num_joints}, 3].")
    hinge = _hinge(body, joint)
    if not 0 < reach < 100:
        raise ArgumentError(f"reach is {reach}, expected metres above 0 and below 100.")
    if not 2 <= grid <= 1000:
        raise ArgumentError(f"grid is {grid}, expected 2 to 1000 places.")
    middle = float(true[hinge.s, 2])
    x = np.linspace(true[hinge.e, 0] - reach, true[hinge.e, 0] + reach, grid) if x is None else np.asarray(x, float)
    z = np.linspace(middle - reach, middle + reach, grid) if z is None else np.asarray(z, float)
    places = np.broadcast_to(true, (len(x), len(z), *true.shape)).copy()
    places[:, :, hinge.e, 0], places[:, :, hinge.e, 2] = x[:, None], z[None, :]
    flat = _terms(places.reshape(-1, *true.shape), true, hinge.e, skeleton)
    terms = {name: values.reshape(len(x), len(z)) for name, values in flat.items()}
    return LossSurfaces(true, hinge.e, skeleton, x, z, terms, _marks(true, hinge))


def _hinge(body: Skeleton, joint: int | str) -> Hinge:
    names = {name: hinge for hinge in body.hinges for name in (hinge.name, hinge.e, str(hinge.e))}
    if isinstance(joint, bool) or joint not in names:
        known = ", ".join(f"{hinge.name} ({hinge.e})" for hinge in body.hinges)
        raise ArgumentError(f"joint is {joint!r}, expected one that bends one way: {known}.")
    return names[joint]


def _terms(poses: np.ndarray, true: np.ndarray, joint: int, skeleton: str) -> dict[str, np.ndarray]:
    """Every term by itself at each of `[N, J, 3]` poses, `[N]`."""
    away = poses[:, joint] - true[joint]
    weights = {"bone_symmetry": 1.0, "illegal_angle": 1.0}
    found = [functional.objective(pose[None], None, weights, skeleton=skeleton).terms for pose in torch.tensor(poses)]
    return {
        "location": (away[:, :2] ** 2).sum(-1),
        "symmetry": np.array([float(terms["bone_symmetry"]) for terms in found]),
        "illegal_angle": np.array([float(terms["illegal_angle"]) for terms in found]),
        "euclidean": (away**2).sum(-1),
    }


def _marks(true: np.ndarray, hinge: Hinge) -> dict[int, Mark]:
    """The three places; (2) is half as far again from the plane of the shoulder or hip as the truth."""
    middle, depth = float(true[hinge.s, 2]), float(true[hinge.e, 2])
    places = {
        3: ("truth", depth),
        1: ("depth mirrored", 2 * middle - depth),
        2: ("legal, unequal lengths", middle + 1.5 * (depth - middle)),
    }
    marks = {}
    for number, (name, z) in places.items():
        pose = true.copy()
        pose[hinge.e, 2] = z
        marks[number] = Mark(name, float(true[hinge.e, 0]), z, pose)
    return marks


# ---- the figure ------------------------------------------------------------------------------------------------------


def plot_surfaces(surfaces: LossSurfaces, path: str | os.PathLike[str], *, dpi: int = 120) -> Path:
    """Draw the four surfaces with one colour scale, and the marked poses from above, and write them as PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OSError: the file can't be written there.
    """
    figure = _style.new_figure(11.4, 7.8)
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm

    shown = surfaces.shown()
    top = max(float(values.max()) for values in shown.values())
    colours: Normalize = PowerNorm(0.4, vmin=0, vmax=top)  # the valleys are told apart, too
    palette = colormaps["viridis"]
    for number, (name, values) in enumerate(shown.items()):
        place = (0.0 + 0.345 * (number % 2), 0.5 - 0.485 * (number // 2), 0.325, 0.45)
        axes: Any = figure.add_axes(place, projection="3d")
        _draw_surface(axes, surfaces, name, values, top, colours, palette)
    bar = figure.colorbar(ScalarMappable(colours, palette), cax=figure.add_axes((0.705, 0.09, 0.012, 0.8)))
    bar.set_label("loss, all weights 1 (squared distance in m², symmetry in m, angle in m³)", fontsize=8.5)
    bar.set_ticks([tick for tick in (0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5) if tick <= top])
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.tick_params(labelsize=7.5)
    for row, number in enumerate(sorted(surfaces.marks)):
        _draw_pose(figure.add_axes((0.81, 0.69 - 0.325 * row, 0.17, 0.235)), surfaces, number)
    return write_bytes(path, _style.png(figure, dpi))


def _draw_surface(
    axes: Any, surfaces: LossSurfaces, name: str, values: np.ndarray, top: float, colours: Normalize, palette: Colormap
) -> None:
    x, z = np.meshgrid(surfaces.x, surfaces.z, indexing="ij")
    step = max(1, len(surfaces.x) // 60)
    axes.computed_zorder = False  # marks and contours lie on the surface
    axes.plot_surface(x, z, values, rstride=step, cstride=step, cmap=palette, norm=colours, linewidth=0, zorder=1)
    levels = [level for level in (0.003, 0.01, 0.03, 0.1, 0.3) if values.min() < level < values.max()]
    axes.contour(x, z, values, levels=levels, colors="white", linewidths=0.7, alpha=0.8, zorder=2)
    for number, mark in surfaces.marks.items():
        height, colour = surfaces.at(number)[name], _HIGHLIGHTS[number - 1]
        end = height + 0.22 * top
        axes.plot([mark.x] * 2, [mark.z] * 2, [height, end], color=colour, linewidth=1, zorder=20)
        axes.scatter([mark.x], [mark.z], [height], color=colour, s=14, depthshade=False, zorder=21)
        badge = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": colour, "linewidth": 0.9}
        look = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": "bold", "color": colour, "zorder": 22}
        axes.text(mark.x, mark.z, end, str(number), bbox=badge, **look)
    axes.set_zlim(0, top)
    axes.view_init(elev=42, azim=-62)
    axes.set_box_aspect((1, 1, 0.72), zoom=0.95)
    axes.set_xlabel("x (m)", fontsize=8, labelpad=-3)
    axes.set_ylabel("depth z (m)", fontsize=8, labelpad=-2)
    axes.tick_params(labelsize=7, pad=-2)
    axes.set_title(TITLES[name], fontsize=10.5, fontweight="bold", y=1.0)


def _draw_pose(axes: Any, surfaces: LossSurfaces, number: int) -> None:
    """One of the marked poses, the truth in grey behind it, obliquely from the side: depth to the right, x slanted."""
    body, mark, colour = skeletons.get(surfaces.skeleton), surfaces.marks[number], _HIGHLIGHTS[number - 1]
    slant = np.array([[0.45, 0.2], [0.0, -1.0], [1.0, 0.0]])
    truth, pose = surfaces.pose @ slant, mark.pose @ slant
    for points, tint, width in ((truth, "#c4c4c4", 3.2), (pose, "#333333", 1.5)):
        for child, parent in body.bones:
            own = tint != "#c4c4c4" and surfaces.joint in (child, parent)
            style = {"color": colour if own else tint, "linewidth": width * (1.6 if own else 1.0)}
            axes.plot(*points[[parent, child]].T, solid_capstyle="round", **style, zorder=3 if own else 2)
    axes.scatter(*pose[surfaces.joint], color=colour, s=22, zorder=4, clip_on=False)
    low, high = truth.min(0), truth.max(0)
    middle, below = (low[0] + high[0]) / 2, low[1] - 0.06 * (high[1] - low[1])
    arrow = {"arrowstyle": "->", "color": "#999999", "linewidth": 0.8}
    length = 0.25 * (high[1] - low[1])
    axes.annotate("", xy=(middle + length, below), xytext=(middle, below), arrowprops=arrow)
    axes.text(middle - 0.02, below, "depth", fontsize=7, color="#777777", ha="right", va="center")
    axes.set_xlim(middle - (high[1] - low[1]) / 2, middle + (high[1] - low[1]) / 2)
    axes.set_ylim(below, high[1])
    axes.set_aspect("equal")
    axes.set_axis_off()
    losses = surfaces.at(number)
    text = "  ".join(f"({letter}) {value:.3f}" for letter, value in zip("abcd", losses.values(), strict=True))
    axes.set_title(f"{number}: {mark.name}", fontsize=9.5, fontweight="bold", color=colour, pad=17)
    axes.text(0.5, 1.04, text, transform=axes.transAxes, ha="center", fontsize=7, color="#444444")
