"""every kill told once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STREAMS = ("system", "programs")
NEW = ("name", "cause", "kernel", "loud", "final", "seen_at")


def upgrade() -> None:
    """Kills with what they are looked up by, a cursor a stream, counters, and what users stage."""
    with op.batch_alter_table("kills", schema=None) as batch_op:
        batch_op.add_column(sa.Column("unit", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("name", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("cause", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("kernel", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("loud", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.add_column(sa.Column("final", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.add_column(sa.Column("seen_at", sa.Float(), nullable=False, server_default="0"))
        batch_op.create_index("ix_kills_when", ["host", "at"], unique=False)
        batch_op.create_index("ix_kills_told", ["told"], unique=False)
        batch_op.create_index("ix_kills_open", ["seen_at"], unique=False, sqlite_where=sa.text("final = 0"))
    with op.batch_alter_table("kills", schema=None) as batch_op:
        for column in NEW:
            batch_op.alter_column(column, server_default=None)
    columns = ("id", "unit", "name", "cause")
    kills = sa.table("kills", *(sa.column(column) for column in columns), sa.column("data", sa.JSON()))
    bind = op.get_bind()
    for row in bind.execute(sa.select(kills.c.id, kills.c.data)).all():
        values = {"unit": row.data.get("unit"), "name": row.data.get("name", ""), "cause": row.data.get("cause", "")}
        bind.execute(sa.update(kills).where(kills.c.id == row.id).values(**values))

    op.create_table(
        "staged",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("uid", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("began_at", sa.Float(), nullable=False),
        sa.Column("changed_at", sa.Float(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("shown", sa.Integer(), nullable=False),
        sa.Column("shown_at", sa.Float(), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_staged")),
    )
    with op.batch_alter_table("staged", schema=None) as batch_op:
        batch_op.create_index("ix_staged_whose", ["host", "uid", "began_at"], unique=False)

    op.create_table(
        "tallies",
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("booted_at", sa.Float(), nullable=False),
        sa.Column("base", sa.Integer(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_tallies")),
    )
    op.create_table(
        "journals",
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("stream", sa.String(), nullable=False),
        sa.Column("cursor", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("gap", sa.String(), nullable=False),
        sa.Column("saved_at", sa.Float(), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("host", "stream", name=op.f("pk_journals")),
    )
    for stream in STREAMS:
        op.execute(
            "INSERT INTO journals (host, stream, cursor, boot_id, gap, saved_at, first_at) "  # noqa: S608 - a word of ours
            f"SELECT host, '{stream}', cursor, boot_id, '', saved_at, first_at FROM cursors"
        )
    op.drop_table("cursors")


def downgrade() -> None:
    """As before, with the older cursor of the two streams' hosts."""
    op.create_table(
        "cursors",
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("cursor", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("saved_at", sa.Float(), nullable=False),
        sa.Column("first_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_cursors")),
    )
    op.execute(
        "INSERT INTO cursors (host, cursor, boot_id, saved_at, first_at) "
        "SELECT host, cursor, boot_id, saved_at, first_at FROM journals WHERE stream = 'system'"
    )
    op.drop_table("journals")
    op.drop_table("tallies")
    with op.batch_alter_table("staged", schema=None) as batch_op:
        batch_op.drop_index("ix_staged_whose")
    op.drop_table("staged")
    with op.batch_alter_table("kills", schema=None) as batch_op:
        batch_op.drop_index("ix_kills_open")
        batch_op.drop_index("ix_kills_told")
        batch_op.drop_index("ix_kills_when")
        for column in (*NEW, "unit"):
            batch_op.drop_column(column)
