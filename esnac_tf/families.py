"""Families of extensions: one folder, one file a member, found by the file's name."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from types import ModuleType

from esnac_tf.errors import UnknownNameError


@dataclasses.dataclass(frozen=True)
class Family:
    """The members of a folder, such as all acquisition functions.

    No member is imported before it is asked for, so a wrong name is told at once.

    Attributes:
        kind: What a member is, for error messages.
        package: The folder's package.
        support: Modules of the folder that are no members.

    Example:
        >>> family = Family("acquisition", "esnac_tf.acquisitions")
        >>> "expected_improvement" in family.names()
        True
    """

    kind: str
    package: str
    support: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """The names of all members, sorted."""
        modules = pkgutil.iter_modules(importlib.import_module(self.package).__path__)
        return sorted(
            module.name
            for module in modules
            if not module.ispkg and module.name not in self.support
        )

    def check(self, name: str) -> None:
        """Refuses a name that no member has.

        Raises:
            UnknownNameError: There is no such member.
        """
        known = self.names()
        if name not in known:
            raise UnknownNameError(self.kind, name, known, f"{self.package.replace('.', '/')}/")

    def module(self, name: str) -> ModuleType:
        """The module of a member.

        Raises:
            UnknownNameError: There is no such member.
        """
        self.check(name)
        return importlib.import_module(f"{self.package}.{name}")
