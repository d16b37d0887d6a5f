"""The extension points: banks, data sets, objectives, proposers and searchers that can be named on the command line.

Another package adds one with an entry point of the group `promptsearch.KIND` (docs/plug-ins.md). Each
package of promptsearch registers its own when it is imported: `Registry("objectives", {"xent": XENT})`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from promptsearch.errors import PromptSearchError, PromptSearchWarning

#: What an entry point of each kind must refer to; shown by `promptsearch plugins`.
KINDS = {
    "banks": "a function without arguments that returns a Bank",
    "datasets": "a hub id, or a function without arguments that returns a folder or a hub id",
    "objectives": "an objective: a function of a Score that returns a tuple to sort by, larger is better",
    "proposers": "a function of a Space that returns an object with propose(requests, seed)",
    "searchers": "a class of Searcher, or a function (bank, options) that returns a Searcher",
}

#: The built-in objects of each kind by name, which promptsearch's own packages register.
_BUILT_IN: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}


class PluginWarning(PromptSearchWarning):
    """A plug-in is ignored; the message says why."""


@dataclass(frozen=True)
class Plugin:
    """A named object of promptsearch or of another package.

    Attributes:
        kind: A key of `KINDS`.
        name: Its name on the command line.
        point: The entry point; None for promptsearch's own.
        package: The package that provides it, with its version.
        thing: The object, for promptsearch's own.
    """

    kind: str
    name: str
    point: EntryPoint | None
    package: str
    thing: Any = None

    @property
    def value(self) -> str:
        """Place of the object, as "module:name"."""
        if self.point is not None:
            return self.point.value
        module = getattr(self.thing, "__module__", type(self.thing).__module__)
        return f"{module}:{getattr(self.thing, '__qualname__', self.name)}"

    def load(self) -> Any:
        """Import and return the object.

        Raises:
            PromptSearchError: It cannot be imported.
        """
        if self.point is None:
            return self.thing
        try:
            return self.point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as e:  # a plug-in may raise anything while it is imported, or exit
            reason = f"{type(e).__name__}: {e}".splitlines()[0]
            raise PromptSearchError(
                f"plug-in {self.name!r} ({self.kind}) of {self.package} cannot be loaded ({reason}); "
                f"update that package, or uninstall it"
            ) from e


@cache
def found(kind: str) -> tuple[dict[str, Plugin], tuple[str, ...]]:
    """Find the plug-ins of a kind without importing them.

    Args:
        kind: A key of `KINDS`.

    Returns:
        The plug-ins by name, promptsearch's own first, and a message for each one that is ignored because another has
        the same name.
    """
    group = f"promptsearch.{kind}"
    every = {name: Plugin(kind, name, None, "promptsearch", thing) for name, thing in _BUILT_IN[kind].items()}
    shadowed = []
    for point in sorted(entry_points(group=group), key=lambda p: (p.dist.name if p.dist else "", p.name)):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"
        if (first := every.get(point.name)) is None:
            every[point.name] = Plugin(kind, point.name, point, package)
        elif first.value != point.value:
            shadowed.append(
                f"plug-in {point.name!r} ({kind}) of {package} is ignored, because {first.package} has one of this name"
            )
    return every, tuple(shadowed)


class Registry(Mapping[str, Any]):
    """A mapping from names to the plug-ins of one kind, which are imported on access.

        objectives = Registry("objectives", {"xent": XENT})
        print(sorted(objectives), objectives["xent"])

    Accessing a name raises KeyError if it is unknown and PromptSearchError if it cannot be imported.

    Args:
        kind: A key of `KINDS`.
        built_in: promptsearch's own of this kind, by name.
    """

    def __init__(self, kind: str, built_in: Mapping[str, Any] | None = None) -> None:
        self.kind = kind
        if built_in:
            _BUILT_IN[kind].update(built_in)
            found.cache_clear()

    @property
    def built_in(self) -> tuple[str, ...]:
        """The names of promptsearch's own."""
        return tuple(_BUILT_IN[self.kind])

    def __getitem__(self, name: str) -> Any:
        if name in _BUILT_IN[self.kind]:  # answered without reading the entry points of all installed packages
            return _BUILT_IN[self.kind][name]
        return found(self.kind)[0][name].load()

    def __contains__(self, name: object) -> bool:
        return name in _BUILT_IN[self.kind] or name in found(self.kind)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(found(self.kind)[0])

    def __len__(self) -> int:
        return len(found(self.kind)[0])

    def loaded(self) -> dict[str, Any]:
        """Import all and return those that succeed, by name; a PluginWarning tells of each that fails."""
        things = {}
        for name in self:
            try:
                things[name] = self[name]
            except PromptSearchError as e:
                warnings.warn(str(e), PluginWarning, stacklevel=2)
        return things


def all_plugins() -> list[tuple[Plugin, str | None]]:
    """Return every plug-in of every kind, each with the reason why it cannot be imported, or None."""
    rows: list[tuple[Plugin, str | None]] = []
    for kind in KINDS:
        for plugin in found(kind)[0].values():
            try:
                plugin.load()
                rows.append((plugin, None))
            except PromptSearchError as e:
                rows.append((plugin, str(e)))
    return rows
