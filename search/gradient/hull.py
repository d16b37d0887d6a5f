"""The point of a convex hull nearest to a given one: how far learnt class features are from a bank's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class BankHull:
    """The convex hull of a bank's class features: all mixtures of its templates, the same for every class.

        hull = BankHull(bank_vectors)                      # (T, C, D)
        w = hull.mixture(class_features.detach())          # (T,) non-negative, sums to 1
        distance = (class_features - hull.point(w)).square().sum(1).mean()

    One mixture for all classes, because a mixture of templates is what can be read and used as an ensemble.
    """

    def __init__(self, vectors: torch.Tensor) -> None:
        import torch

        self.vectors = vectors
        self._flat = vectors.flatten(1)  # (T, C D)
        self._gram = self._flat @ self._flat.T  # (T, T)
        self._step = 1 / float(torch.linalg.matrix_norm(self._gram, 2))

    def mixture(self, features: torch.Tensor, rounds: int = 100) -> torch.Tensor:
        """(T,) weights of the nearest point to class features (C, D), by accelerated projected gradients.

        Beck and Teboulle's FISTA (2009), started from the even mixture each time: a function of `features` alone.
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
        """(C, D) the mixture's class features."""
        return (mixture @ self._flat).view(self.vectors.shape[1:])

    def distance(self, features: torch.Tensor) -> torch.Tensor:
        """Mean over classes of the squared distance of (C, D) to the hull.

        The mixture is held fixed in the gradient, which is exact: at the nearest point it does not change the
        distance to first order.
        """
        nearest = self.point(self.mixture(features.detach()))
        return (features - nearest).square().sum(dim=1).mean()


def project_to_simplex(v: torch.Tensor) -> torch.Tensor:
    """The nearest non-negative vector (T,) that sums to 1 (Held, Wolfe and Crowder 1974)."""
    import torch

    ordered = v.sort(descending=True).values
    excess = (ordered.cumsum(0) - 1) / torch.arange(1, len(v) + 1, device=v.device)
    largest = int((ordered > excess).nonzero()[-1])
    return (v - excess[largest]).clamp(min=0)
