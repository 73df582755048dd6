"""The interface of everything that the toy domains show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from slim.datasets.toy.pen import Pen


@dataclass(frozen=True)
class Subject:
    """A class of objects with the same traits; all other properties are random.

    Attributes:
        varying: Values of the traits that differ between the images of a coarse class.
        on_road: Whether the object is rigid and stands on a road.
    """

    varying: ClassVar[Mapping[str, Sequence]] = {}
    on_road: ClassVar[bool] = False

    def draw(self, pen: Pen, rng: Random) -> None:
        """Draws one object."""
        raise NotImplementedError

    def vary(self, rng: Random) -> "Subject":
        """Returns a subject with random values of the varying traits."""
        return replace(self, **{trait: rng.choice(v) for trait, v in self.varying.items()})
