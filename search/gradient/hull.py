"""Distance of learnt class features to the convex hull of a bank's class features."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class BankHull:
    """The convex hull of a bank's class features: all mixtures of its templates, with the same weights for every class.

        hull = BankHull(bank_vectors)                      # (T, C, D)
        w = hull.mixture(class_features.detach())          # (T,) non-negative, sums to 1
        distance = (class_features - hull.point(w)).square().sum(1).mean()

    All classes share one mixture, because a mixture of templates can be read and used as an ensemble.

    Args:
        vectors: (T, C, D) unit class features of T templates.
    """

    def __init__(self, vectors: torch.Tensor) -> None:
        import torch

        self.vectors = vectors
        self._flat = vectors.flatten(1)  # (T, C D)
        self._gram = self._flat @ self._flat.T  # (T, T)
        self._step = 1 / float(torch.linalg.matrix_norm(self._gram, 2))

    def mixture(self, features: torch.Tensor, rounds: int = 100) -> torch.Tensor:
        """Find the mixture nearest to class features by accelerated projected gradients (FISTA, Beck & Teboulle 2009).

        It always starts from equal weights, so that the result depends only on `features`.

        Args:
            features: (C, D) class features.
            rounds: Number of gradient steps.

        Returns:
            (T,) non-negative weights that sum to 1.
        """
        import torch

        goal = self._flat @ features.flatten()  # (T,)
        w = z = torch.full_like(goal, 1 / len(goal))
        t = 1.0
        for _ in range(rounds):
            new = project_to_simplex(z - self._step * (self._gram @ z - goal))
            t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
            z = new + (before - 1) / t * (new - w)
            w = new
        return w

    def point(self, mixture: torch.Tensor) -> torch.Tensor:
        """Return the class features (C, D) of a mixture (T,)."""
        return (mixture @ self._flat).view(self.vectors.shape[1:])

    def distance(self, features: torch.Tensor) -> torch.Tensor:
        """Return the squared distance of class features (C, D) to the hull, averaged over classes.

        The gradient treats the nearest mixture as constant. This is exact: at the nearest point the distance does not
        depend on the mixture to first order.
        """
        nearest = self.point(self.mixture(features.detach()))
        return (features - nearest).square().sum(dim=1).mean()


def project_to_simplex(v: torch.Tensor) -> torch.Tensor:
    """Project a vector (T,) to the nearest non-negative one that sums to 1 (Held, Wolfe and Crowder 1974)."""
    import torch

    ordered = v.sort(descending=True).values
    excess = (ordered.cumsum(0) - 1) / torch.arange(1, len(v) + 1, device=v.device)
    largest = int((ordered > excess).nonzero()[-1])
    return (v - excess[largest]).clamp(min=0)
