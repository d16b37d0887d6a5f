"""Products of templates' text vectors: what the norm of a sum of them is made of."""

from __future__ import annotations

import itertools

import numpy as np

#: Ensembles of more templates take their norms from summed vectors: the Gram matrix would cost k*k.
LARGE = 64

#: Templates whose vectors are copied at a time.
PAIRS = 64


class Gram:
    """Gram matrices, one for each class, of which rows are computed when a set first needs them.

        gram = Gram(np.empty((2048, 2048, 10), np.float32))
        gram.add(vectors, row=0)                # its own squared length
        gram.know(vectors, size, index)         # every pair in these sets (S, k)
        norm = np.sqrt(gram.of(index).sum(axis=(1, 2)))

    All rows would take time with the square of the bank; a beam's sets share their parents' few.  A product has the
    same bits from either row, and in any company.

    Args:
        products: (T, T, C) room; what is in it counts where one of the two rows is known.
    """

    def __init__(self, products: np.ndarray) -> None:
        self.products = products
        # Of each row, how many of its products are known, from the first on: templates that are added to one table
        # are not there for another that shares its rows.
        self._known = np.zeros(len(products), np.intp)

    def __len__(self) -> int:
        return len(self.products)

    def grown(self, products: np.ndarray) -> Gram:
        """The same in larger room, where what is known was copied to."""
        other = Gram(products)
        other._known[: len(self._known)] = self._known[: len(other._known)]
        return other

    def part(self, size: int) -> Gram:
        """The first templates' alone; what one of the two learns the other knows, too."""
        other = Gram(self.products[:size, :size])
        other._known = self._known[:size]
        return other

    def add(self, vectors: np.ndarray, row: int) -> None:
        """Multiply a new template's vectors by its own and by those whose rows were known up to it."""
        whole = np.flatnonzero(self._known[:row] == row)
        self._multiply(vectors, np.append(whole, row), row)
        self._known[whole] = row + 1

    def know(self, vectors: np.ndarray, size: int, index: np.ndarray) -> None:
        """Compute the rows that the sets (S, k), if not large, lack: of every pair one template's is enough.

        Args:
            vectors: (T, C, D) of which the first `size` are there.
        """
        if not len(self) or index.shape[1] > LARGE:
            return
        for a, b in itertools.combinations(range(index.shape[1]), 2):
            pairs = index[:, [a, b]]
            while len(pairs := pairs[(self._known[pairs] <= pairs[:, ::-1]).all(axis=1)]):
                self.know_row(vectors, size, int(np.bincount(pairs.reshape(-1)).argmax()))

    def know_row(self, vectors: np.ndarray, size: int, row: int) -> None:
        """Compute one template's products with all."""
        if self._known[row] < size:
            self._multiply(vectors, np.arange(self._known[row], size), row)
            self._known[row] = size

    def of(self, index: np.ndarray) -> np.ndarray:
        """(S, k, k, C) products within sets (S, k) whose pairs are known."""
        return np.asarray(self.products[index[:, :, None], index[:, None, :]])

    def _multiply(self, vectors: np.ndarray, others: np.ndarray, row: int) -> None:
        for at in range(0, len(others), PAIRS):
            some = others[at : at + PAIRS]
            products = np.einsum("tcd,cd->tc", vectors[some], vectors[row])
            self.products[row, some] = products
            self.products[some, row] = products
