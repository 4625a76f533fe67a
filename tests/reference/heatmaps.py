"""Heatmaps and decoded poses one joint at a time, as the papers print them, in float64 Python."""

import math

import numpy as np

#: (child, parent) of the 14 bones: legs and hips, arms and shoulders on the neck, trunk, head; joint 7 has none
BONES = [(0, 1), (1, 2), (2, 6), (3, 6), (4, 3), (5, 4), (10, 11), (11, 12), (12, 8), (13, 8), (14, 13), (15, 14)]
BONES += [(8, 6), (9, 8)]


def target(joint, annotated, input_size, size, sigma):
    """The map `[size][size]` of one joint (x, y)."""
    out = np.zeros((size, size))
    if not annotated or not all(math.isfinite(value) for value in joint):
        return out
    column, row = (math.floor((value + 0.5) * size / input_size) for value in joint)
    if not (0 <= column < size and 0 <= row < size):
        return out
    reach = math.ceil(3 * sigma)
    for y in range(row - reach, row + reach + 1):
        for x in range(column - reach, column + reach + 1):
            if 0 <= x < size and 0 <= y < size:
                out[y][x] = math.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * sigma**2))
    return out


def highest(heatmap):
    """(x, y) in cells from the upper left corner of one map `[H][W]`, and its value; NaN if the map holds one."""
    rows, columns = len(heatmap), len(heatmap[0])
    best = None
    for y in range(rows):
        for x in range(columns):
            if math.isnan(heatmap[y][x]):
                return math.nan, math.nan, math.nan
            if best is None or heatmap[y][x] > heatmap[best[1]][best[0]]:
                best = x, y
    x, y = best
    px, py = float(x), float(y)
    if 0 < x < columns - 1:
        px += 0.25 * ((heatmap[y][x + 1] > heatmap[y][x - 1]) - (heatmap[y][x + 1] < heatmap[y][x - 1]))
    if 0 < y < rows - 1:
        py += 0.25 * ((heatmap[y + 1][x] > heatmap[y - 1][x]) - (heatmap[y + 1][x] < heatmap[y - 1][x]))
    return px + 0.5, py + 0.5, heatmap[y][x]


def millimetres(heatmaps, depth, root=(0.0, 0.0, 0.0), length=4296.99):
    """The pose `[16, 3]` of maps `[16][H][H]` and depths `[16]`."""
    size = len(heatmaps[0])
    pose = []
    for heatmap, d in zip(heatmaps, depth, strict=True):
        x, y, _ = highest(heatmap)
        pose.append((x, y, (d + 1) / 2 * size))
    total = sum(math.dist(pose[child], pose[parent]) for child, parent in BONES)
    scaled = [[value * length / total for value in joint] for joint in pose]
    shifted = [[value - base + at for value, base, at in zip(joint, scaled[6], root, strict=True)] for joint in scaled]
    shifted[7] = [(a + b) / 2 for a, b in zip(shifted[6], shifted[8], strict=True)]
    return np.array(shifted)
