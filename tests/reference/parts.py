"""The parts of a shape template by their definition: invert the matrix, look up the template's Gaussian at every pixel.

Float64, no bounding box, nothing of the package.
"""

import torch


def gaussian(parameters, rows, columns):
    """One part (row, column, s_row, s_column, angle, peak) at real rows and columns of the template."""
    row, column, s_row, s_column, angle, peak = parameters
    u = torch.cos(angle) * (rows - row) - torch.sin(angle) * (columns - column)
    v = torch.sin(angle) * (rows - row) + torch.cos(angle) * (columns - column)
    return peak * torch.exp(-(u**2) / (2 * s_row**2) - v**2 / (2 * s_column**2))


def render_part(matrix, parameters, size):
    """[size, size]: the part, moved by a matrix [2, 3] that takes (x, y, 1) of the template to (x, y) of the image."""
    if not torch.isfinite(matrix).all():
        return matrix.new_full((size, size), torch.nan)
    if torch.linalg.det(matrix[:, :2].detach()) == 0:
        return matrix.new_zeros(size, size)
    last = torch.tensor([[0.0, 0.0, 1.0]], dtype=matrix.dtype)
    inverse = torch.linalg.inv(torch.cat([matrix, last]))
    y, x = torch.meshgrid(*2 * [torch.arange(size, dtype=matrix.dtype)], indexing="ij")
    column, row, _ = torch.einsum("ij,jyx->iyx", inverse, torch.stack([x, y, torch.ones_like(x)]))
    return gaussian(parameters, row, column)


def render_parts(matrices, template, size):
    """[N, P, size, size] of matrices [N, P, 2, 3] and a template [P, 6], in float64."""
    matrices, template = matrices.double(), template.double()
    images = [[render_part(m, part, size) for m, part in zip(row, template, strict=True)] for row in matrices]
    return torch.stack([torch.stack(row) for row in images])


def sample_parts(matrices, template, size):
    """[P, size, size] as published: parts drawn where the template has them, then sampled through the inverse of each
    matrix [P, 2, 3] with bilinear weights, 0 outside of the drawing."""
    rows, columns = torch.meshgrid(*2 * [torch.arange(size, dtype=torch.float64)], indexing="ij")
    drawn = torch.stack([gaussian(part, rows, columns) for part in template.double()])
    last = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(len(matrices), 1, 3)
    inverse = torch.linalg.inv(torch.cat([matrices.double(), last], 1))
    points = torch.stack([columns, rows, torch.ones_like(rows)], -1)
    sampled = torch.einsum("pij,yxj->pyxi", inverse, points)[..., :2]
    grid = 2 * sampled / (size - 1) - 1
    return torch.nn.functional.grid_sample(drawn[:, None], grid, mode="bilinear", align_corners=True)[:, 0]
