"""Smooth deformations that images and points follow exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from BrainLandmarksLib.geometry.affine import apply_affine

from .variation import Variation


class Spline:
    """Uniform cubic B-spline of a lattice of coefficients on a cube centred at the origin."""

    def __init__(self, coefficients: torch.Tensor, spacing_mm: float) -> None:
        self.coefficients = coefficients  # (C, n, n, n)
        self.spacing = spacing_mm
        self.first = -spacing_mm * (coefficients.shape[1] - 1) / 2

    @classmethod
    def random(
        cls,
        channels: int,
        deviation: float,
        spacing_mm: float,
        reach_mm: float,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> Spline:
        """Random smooth field of a given standard deviation (mm or log units) up to a reach."""
        count = int(np.ceil(2 * reach_mm / spacing_mm)) + 4
        shape = (channels, count, count, count)
        # Per axis a B-spline keeps 0.48 of the variance of independent coefficients on average,
        # in three dimensions 0.11, which is 0.33 of their deviation.
        noise = torch.randn(shape, generator=generator).to(device)
        return cls(noise * (deviation / 0.33), spacing_mm)

    def basis(self, at: torch.Tensor) -> torch.Tensor:
        """(n,) positions in mm -> (n, count) weights."""
        knots = self.first + self.spacing * torch.arange(
            self.coefficients.shape[1], device=at.device, dtype=at.dtype
        )
        t = ((at[:, None] - knots) / self.spacing).abs()
        return torch.where(
            t < 1, 2 / 3 - t**2 + t**3 / 2, torch.where(t < 2, (2 - t).clamp(min=0) ** 3 / 6, 0.0)
        )

    def on_lattice(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Values on the lattice x * y * z: (C, nx, ny, nz)."""
        c = self.coefficients
        values = torch.tensordot(self.basis(x), c, ([1], [1]))  # (x, c, j, k)
        values = torch.tensordot(self.basis(y), values, ([1], [2]))  # (y, x, c, k)
        values = values.permute(2, 1, 0, 3)
        return values @ self.basis(z).T

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values at (n, 3) points: (n, C), float64; only the 4^3 coefficients that matter."""
        c = self.coefficients.cpu().numpy().astype(float)
        count = c.shape[1]
        where = (points - self.first) / self.spacing
        base = np.floor(where)
        t = where - base
        weights = (
            np.stack(
                [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], -1
            )
            / 6
        )  # (n, 3, 4)
        index = base.astype(int)[..., None] + np.arange(-1, 3)
        weights *= (index >= 0) & (index < count)
        index = index.clip(0, count - 1)
        near = c[
            :, index[:, 0, :, None, None], index[:, 1, None, :, None], index[:, 2, None, None, :]
        ]
        return np.einsum("cnijk,ni,nj,nk->nc", near, *weights.transpose(1, 0, 2), optimize=True)


class Deformation:
    """Image point to canonical head point: x -> matrix x + shift + warp(x)."""

    def __init__(self, matrix: np.ndarray, shift: np.ndarray, warps: Sequence[Spline]) -> None:
        self.matrix = matrix
        self.shift = shift
        self.warps = list(warps)

    @classmethod
    def random(
        cls,
        variation: Variation,
        rng: np.random.Generator,
        generator: torch.Generator,
        reach_mm: float,
        device: torch.device | str,
    ) -> Deformation:
        """Draw pose, size, shear and warps."""
        angles = np.deg2rad(rng.uniform(-1, 1, 3) * variation.rotation_deg)
        rotation = rotation_matrix(angles)
        size = np.exp(
            rng.uniform(-1, 1) * variation.scale + rng.uniform(-1, 1, 3) * variation.stretch
        )
        shear = np.eye(3)
        shear[np.triu_indices(3, 1)] = rng.uniform(-1, 1, 3) * variation.shear
        # Anatomy first (in the head's own axes), pose last: image -> head undoes the pose first.
        matrix = np.diag(1 / size) @ shear @ rotation
        if rng.random() < variation.flip_share:
            matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
        shift = -matrix @ (rng.uniform(-1, 1, 3) * variation.translation_mm)
        warps = [
            Spline.random(3, rng.uniform(0, deviation), spacing, reach_mm, generator, device)
            for deviation, spacing in zip(variation.warp_mm, variation.warp_spacing_mm)
        ]
        for warp in warps:
            warp.coefficients = _alike(warp.coefficients, variation.warp_symmetry)
        return cls(matrix, shift, warps)

    @property
    def flips(self) -> bool:
        """Whether left and right are swapped."""
        return bool(np.linalg.det(self.matrix) < 0)

    def on_lattice(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Canonical points of the lattice x * y * z: (3, nx, ny, nz)."""
        m = torch.as_tensor(self.matrix, dtype=x.dtype, device=x.device)
        s = torch.as_tensor(self.shift, dtype=x.dtype, device=x.device)
        mapped = (
            (m[:, 0, None] * x)[:, :, None, None]
            + (m[:, 1, None] * y)[:, None, :, None]
            + (m[:, 2, None] * z)[:, None, None, :]
            + s[:, None, None, None]
        )
        for warp in self.warps:
            mapped += warp.on_lattice(x, y, z)
        return mapped

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """Sum of the warps at (n, 3) image points, mm."""
        return np.sum([warp.at(points) for warp in self.warps], axis=0)

    def inverse(self, points: np.ndarray, tolerance_mm: float = 1e-3) -> np.ndarray:
        """Image points whose canonical points are ``points`` (n, 3); NaN where none is found."""
        inverse = np.linalg.inv(self.matrix)
        guess = (points - self.shift) @ inverse.T
        for _ in range(60):
            new = (points - self.shift - self.displacement(guess)) @ inverse.T
            moved = np.abs(new - guess).max(initial=0.0)
            guess = new
            if moved < tolerance_mm / 4:
                break
        reached = guess @ self.matrix.T + self.shift + self.displacement(guess)
        lost = np.abs(reached - points).max(1) > tolerance_mm
        guess[lost] = np.nan
        return guess


def image_points(
    deformation: Deformation, to_head: np.ndarray, landmarks: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Where a deformed image shows the landmarks of a head.

    Args:
        to_head: 4x4 from canonical points to the head's RAS.
        landmarks: (K, 3) RAS mm, NaN for missing ones.
        mirror: (K,) swaps left and right landmarks of a flipped image.

    Returns:
        (K, 3) image mm.
    """
    canonical = apply_affine(np.linalg.inv(to_head), landmarks)
    points = np.full_like(canonical, np.nan)
    known = np.isfinite(canonical).all(1)
    points[known] = deformation.inverse(canonical[known])
    return points[mirror] if deformation.flips else points


def _alike(coefficients: torch.Tensor, share: float) -> torch.Tensor:
    """Random vectors (3, n, n, n) with ``share`` of their variance symmetric about x = 0."""
    sign = torch.tensor([-1.0, 1.0, 1.0], device=coefficients.device).view(3, 1, 1, 1)
    mirrored = coefficients.flip(1) * sign
    even, odd = (coefficients + mirrored) / 2, (coefficients - mirrored) / 2
    return float(np.sqrt(2 * share)) * even + float(np.sqrt(2 * (1 - share))) * odd


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """Rotation about x, then y, then z by angles in radians, (3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return rz @ ry @ rx
