"""Energy profiles by name: files of this package, entry points of others. Listing them imports nothing heavy."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hardware.registry import Entry, Registry, Requirement, UnknownName, says

PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class ProfileFile(Entry):
    """A profile that is a YAML file; ``target`` is its path."""

    def _import(self) -> Any:
        import yaml  # not needed to list profiles

        return yaml.safe_load(Path(self.target).read_text(encoding="utf-8"))


class Profiles(Registry):
    """The registry of energy profiles, for whose users the path of a ``.yaml`` file is a name too."""

    def by_user(self, name: str) -> Entry:
        """What a user means by a name: something registered, ``module:attribute``, or a file.

        Raises:
            UnknownName: there is none.
        """
        if not name.endswith(".yaml"):
            return super().by_user(name)
        if not Path(name).is_file():
            raise UnknownName(f"no energy profile at {name}")
        return ProfileFile(name, "named by its file", None)


@cache
def energy_profiles() -> Profiles:
    """The shipped profiles, and those that other packages register in the group ``snnbench.energy``."""
    shipped: dict[str, Entry] = {
        file.stem: ProfileFile(str(file), says(file, "title")) for file in sorted(PROFILES.glob("*.yaml"))
    }
    return Profiles(
        "energy profile", "snnbench.energy", shipped, Requirement("collections.abc:Mapping", instances=True)
    )
