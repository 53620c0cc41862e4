"""`python -m bot.store.migrate URL`: bring the tables up to date, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError


def upgrade(url: str) -> None:
    """Run every migration that is not there yet. Raises SQLAlchemyError."""
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def main() -> None:
    """Exit 1 with one line when it does not work."""
    try:
        upgrade(sys.argv[1])
    except SQLAlchemyError as trouble:
        sys.exit(str(getattr(trouble, "orig", None) or trouble).splitlines()[0])
    except CommandError as trouble:  # a revision that this version does not have
        sys.exit(f"it was made by a newer memwarden; run that one, or give this one another store ({trouble})")


if __name__ == "__main__":
    main()
