"""Compile the message catalogues while the package is built, editable installs too."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CATALOGUES = "bot/locales/*/LC_MESSAGES/*.po"


class CatalogueHook(BuildHookInterface[Any]):
    """Turns every `.po` into the `.mo` beside it; git ignores those, `artifacts` in pyproject.toml puts them in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling names the arguments
        """Compile before hatchling collects the files."""
        for catalogue in sorted(Path(self.root).glob(CATALOGUES)):
            compile_catalogue(catalogue)


def compile_catalogue(path: Path) -> None:
    """Write the `.mo` of one `.po`; a broken catalogue fails the build."""
    # Imported here: `hatchling` loads this file for metadata alone, where build requirements may not be installed yet.
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with path.open("rb") as source:
        catalogue = read_po(source, locale=path.parts[-3], abort_invalid=True)
    target = path.with_suffix(".mo")
    # Written beside and renamed: a bot that runs from this clone never reads half a catalogue.
    fresh = target.with_suffix(".mo.new")
    with fresh.open("wb") as sink:
        write_mo(sink, catalogue)
    fresh.replace(target)
