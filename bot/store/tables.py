"""The tables. What must survive is a row: a state, its audit row and the notice it causes are one transaction."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """An aware moment, kept as seconds since 1970 (SQLite has no time zones)."""

    impl = Float
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:
        """To seconds."""
        del dialect
        return None if value is None else value.timestamp()

    def process_result_value(self, value: float | None, dialect: Dialect) -> datetime | None:
        """To an aware moment in UTC."""
        del dialect
        return None if value is None else datetime.fromtimestamp(value, UTC)


# An event with effects acts once: its platform id is kept in the transaction that keeps what it led to.
events = Table("events", metadata, Column("id", String, primary_key=True), Column("at", Moment, nullable=False, index=True))

# The outbox. A row is one living message in one chat: what it should show (`reply`, version `wanted`) and what is known to be
# shown (`shown`). `sending` is set before a send and cleared with its answer: found set at a start, the answer was lost. Cleared
# before that, the message was asked for anew meanwhile.
messages = Table(
    "messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String, nullable=False),
    Column("platform", String, nullable=False),
    Column("chat", String, nullable=False),
    Column("thread", String, nullable=False, default=""),
    Column("language", String, nullable=False),
    Column("reply", JSON, nullable=False),
    Column("wanted", Integer, nullable=False, default=1),
    Column("shown", Integer, nullable=False, default=0),
    Column("message_id", String),
    Column("sending", Boolean, nullable=False, default=False),
    Column("again", Boolean, nullable=False, default=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("due_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("failed", Text),
    UniqueConstraint("key", "platform", "chat", "thread", name="uq_messages_place"),
    Index("ix_messages_waiting", "due_at", sqlite_where=text("shown < wanted AND failed IS NULL")),
)

# A button carries a random token; the command stays here, bound to the message that shows it.
buttons = Table(
    "buttons",
    metadata,
    Column("token", String, primary_key=True),
    Column("message", ForeignKey("messages.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("command", String, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    Column("id", String, primary_key=True),
    Column("code", String, nullable=False, index=True),
    Column("digest", String, nullable=False),
    Column("host", String, nullable=False, index=True),
    Column("state", String, nullable=False, index=True),
    Column("draft", JSON, nullable=False),
    Column("proposed_by", String, nullable=False),
    Column("proposed_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("decided_by", String, nullable=False, default=""),
    Column("decided_at", Moment),
    Column("ended_at", Moment),
    Column("before", JSON),
    Column("after", JSON),
    Column("output", Text, nullable=False, default=""),
    Column("undoes", String),
    Column("undone_by", String, nullable=False, default=""),
)

steps = Table(
    "steps",
    metadata,
    Column("plan", ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("state", String, nullable=False),
    Column("output", Text, nullable=False, default=""),
    Column("holds", Boolean),
    Column("started_at", Moment),
    Column("ended_at", Moment),
)

# Who said yes, for the two-person rule; one voice a person.
approvals = Table(
    "approvals",
    metadata,
    Column("plan", ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True),
    Column("person", String, primary_key=True),
    Column("at", Moment, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("who", String, nullable=False),
    Column("what", String, nullable=False),
    Column("host", String, nullable=False, default=""),
    Column("plan", String, nullable=False, default="", index=True),
    Column("detail", JSON, nullable=False),
)

# What somebody outside asked of a host (bot/hooks): `asked` until the host was looked at, then `told` (the message with the key
# `told` tells the kill) or `none`. `note` is what the asker is still to be told, None when there is nothing (more).
hooks = Table(
    "hooks",
    metadata,
    Column("id", String, primary_key=True),
    Column("source", String, nullable=False),
    Column("host", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("label", String, nullable=False),
    Column("title", String, nullable=False),
    Column("pid", Integer),
    Column("state", String, nullable=False, default="asked"),
    Column("told", String, nullable=False, default=""),
    Column("note", Text),
    Column("at", Moment, nullable=False, index=True),
    Column("due_at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Index("ix_hooks_state", "state", "host"),
)

# A thing wrong, from first sign to its end; at most one open for each key (`memory:prod`).
incidents = Table(
    "incidents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String, nullable=False),
    Column("host", String, nullable=False, index=True),
    Column("rule", String, nullable=False),
    Column("level", String, nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
    Column("told_at", Moment),
    Column("closed_at", Moment),
    Column("data", JSON, nullable=False),
    Index(
        "uq_incidents_open",
        "key",
        unique=True,
        sqlite_where=text("closed_at IS NULL"),
        # PostgreSQL's is in the migration: named here it imports that dialect, 30 modules that SQLite has no use for.
    ),
)

# One row a kill, opened by whichever sign comes first, joined by (host, boot, pid) within the time that remote/findings states.
# `told` is the key of the message that tells it (empty: none does), `loud` whether it was told with a sound, `seen_at` when a
# sign of it last came (our clock), `final` that no more is waited for, `kernel` that the kernel's OOM killer did and counted it.
kills = Table(
    "kills",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host", String, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("pid", Integer),
    Column("monotonic_us", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("unit", String),
    Column("name", String, nullable=False, default=""),
    Column("cause", String, nullable=False, default=""),
    Column("kernel", Boolean, nullable=False, default=False),
    Column("told", String, nullable=False, default=""),
    Column("loud", Boolean, nullable=False, default=False),
    Column("final", Boolean, nullable=False, default=True),
    Column("seen_at", Moment, nullable=False),
    Column("data", JSON, nullable=False),
    Index("ix_kills_where", "host", "boot_id", "pid"),
    Index("ix_kills_when", "host", "at"),
    Index("ix_kills_told", "told"),
    Index("ix_kills_open", "seen_at", sqlite_where=text("final = 0")),
)

# Kills that somebody stages in a slice of his own: a count a user and hour, never a row a kill (10,000 are soon made).
staged = Table(
    "staged",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host", String, nullable=False),
    Column("uid", Integer, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
    Column("number", Integer, nullable=False),
    Column("shown", Integer, nullable=False, default=0),
    Column("shown_at", Moment),
    Column("data", JSON, nullable=False),
    Index("ix_staged_whose", "host", "uid", "began_at"),
)

# How far each stream of a host's journal has been read; saved in the transaction that keeps what was read. `gap` is the key of
# the message that tells what was missed, while it is being caught up.
journals = Table(
    "journals",
    metadata,
    Column("host", String, primary_key=True),
    Column("stream", String, primary_key=True),
    Column("cursor", String, nullable=False),
    Column("boot_id", String, nullable=False),
    Column("gap", String, nullable=False, default=""),
    Column("saved_at", Moment, nullable=False),
    Column("first_at", Moment, nullable=False),
)

# What the kernel of each host had counted in this boot before the kills that we know of (`base`), to hold its counter against
# our rows; `groups` is the last balanced reading by cgroup, to tell where a lost one was.
tallies = Table(
    "tallies",
    metadata,
    Column("host", String, primary_key=True),
    Column("boot_id", String, nullable=False),
    Column("booted_at", Moment, nullable=False),
    Column("base", Integer, nullable=False),
    Column("groups", JSON, nullable=False),
)

# Single values of this store: `key` seals command lines in plans, `watched_until` is when the process last lived.
meta = Table("meta", metadata, Column("name", String, primary_key=True), Column("value", String, nullable=False))
