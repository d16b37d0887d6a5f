"""Gram matrices of the templates' text vectors, from which the norm of an ensemble's summed vector follows."""

from __future__ import annotations

import itertools

import numpy as np

#: The norms of larger ensembles are computed from summed vectors, because the Gram matrix costs k * k.
LARGE = 64

#: Number of templates whose vectors are copied at a time.
PAIRS = 64


class Gram:
    """Gram matrices of the templates' vectors, one per class, whose rows are computed on demand.

        gram = Gram(np.empty((2048, 2048, 10), np.float32))
        gram.add(vectors, row=0)                # its own squared length
        gram.know(vectors, size, index)         # every pair in these sets (S, k)
        norm = np.sqrt(gram.of(index).sum(axis=(1, 2)))

    Computing all rows would take time quadratic in the size of the bank, and the sets of a beam search need only a few.
    A product has the same bits whichever row it is computed with.

    Args:
        products: (T, T, C) uninitialised memory for the products.
    """

    def __init__(self, products: np.ndarray) -> None:
        self.products = products
        # Number of known products at the start of each row. It differs between tables that share rows, because a
        # template can be added to one of them only.
        self._known = np.zeros(len(products), np.intp)

    def __len__(self) -> int:
        return len(self.products)

    def grown(self, products: np.ndarray) -> Gram:
        """Return the same matrices in larger memory, to which the known products were copied."""
        other = Gram(products)
        other._known[: len(self._known)] = self._known[: len(other._known)]
        return other

    def part(self, size: int) -> Gram:
        """Return the matrices of the first `size` templates; both objects share what is computed later."""
        other = Gram(self.products[:size, :size])
        other._known = self._known[:size]
        return other

    def add(self, vectors: np.ndarray, row: int) -> None:
        """Compute a new template's product with itself, and with the templates whose rows are complete up to it.

        Args:
            vectors: (T, C, D) class vectors of the templates.
            row: Index of the new template.
        """
        whole = np.flatnonzero(self._known[:row] == row)
        self._multiply(vectors, np.append(whole, row), row)
        self._known[whole] = row + 1

    def know(self, vectors: np.ndarray, size: int, index: np.ndarray) -> None:
        """Compute the products of all pairs within sets, unless the sets are large.

        Args:
            vectors: (T, C, D) class vectors of the templates.
            size: Number of templates in use.
            index: (S, k) templates of S sets.
        """
        if not len(self) or index.shape[1] > LARGE:
            return
        for a, b in itertools.combinations(range(index.shape[1]), 2):
            pairs = index[:, [a, b]]
            while len(pairs := pairs[(self._known[pairs] <= pairs[:, ::-1]).all(axis=1)]):
                self.know_row(vectors, size, int(np.bincount(pairs.reshape(-1)).argmax()))

    def know_row(self, vectors: np.ndarray, size: int, row: int) -> None:
        """Compute one template's products with all templates in use."""
        if self._known[row] < size:
            self._multiply(vectors, np.arange(self._known[row], size), row)
            self._known[row] = size

    def of(self, index: np.ndarray) -> np.ndarray:
        """Return the products (S, k, k, C) within sets (S, k); all pairs must be known."""
        return np.asarray(self.products[index[:, :, None], index[:, None, :]])

    def _multiply(self, vectors: np.ndarray, others: np.ndarray, row: int) -> None:
        for at in range(0, len(others), PAIRS):
            some = others[at : at + PAIRS]
            products = np.einsum("tcd,cd->tc", vectors[some], vectors[row])
            self.products[row, some] = products
            self.products[some, row] = products
