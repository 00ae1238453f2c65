"""Tables of the registry, as the newest migration leaves them.

names      one row per name: kind and mutable parts; a name is never given again
versions   one row per version (0 for sources and entities): frozen parts, state, internal ids
pins       what a version refers to: a retired target stays, so the reference always resolves
revisions  append-only log of who changed what
answers    answers kept by request id
registry   one row: revision and highest internal id
ring_epochs  append-only: the ring of each epoch, who shall serve which shard
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from headrace.names import NAME_LENGTH_MAX

NAMING: Final = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}  # fixed names, so that a later migration can find a constraint on every database

metadata = MetaData(naming_convention=NAMING)

registry = Table(
    "registry",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("highest_id", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

names = Table(
    "names",
    metadata,
    Column("name", String(NAME_LENGTH_MAX), nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("mutable", Text, nullable=False),
    Column("etag", String(64), nullable=False),
    Column("update_time_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("name"),
)

versions = Table(
    "versions",
    metadata,
    Column("name", String(NAME_LENGTH_MAX), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("frozen", Text, nullable=False),
    Column("create_time_us", BigInteger, nullable=False),
    Column("internal_id", BigInteger, nullable=True),
    Column("schema_id", BigInteger, nullable=True),
    Column("transform_digest", LargeBinary(32), nullable=True),
    PrimaryKeyConstraint("name", "version"),
    ForeignKeyConstraint(["name"], ["names.name"]),
    UniqueConstraint("internal_id"),
    UniqueConstraint("schema_id"),
)

pins = Table(
    "pins",
    metadata,
    Column("name", String(NAME_LENGTH_MAX), nullable=False),
    Column("version", Integer, nullable=False),
    Column("pinned_name", String(NAME_LENGTH_MAX), nullable=False),
    Column("pinned_version", Integer, nullable=False),
    PrimaryKeyConstraint("name", "version", "pinned_name", "pinned_version"),
    ForeignKeyConstraint(["name", "version"], ["versions.name", "versions.version"]),
    ForeignKeyConstraint(["pinned_name", "pinned_version"], ["versions.name", "versions.version"]),
)

revisions = Table(
    "revisions",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("time_us", BigInteger, nullable=False),
    Column("principal", Text, nullable=False),
    Column("action", String(32), nullable=False),
    Column("changes", Text, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    Column("request_id", String(36), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("changes", Text, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("request_id"),
)

ring_epochs = Table(
    "ring_epochs",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("time_us", BigInteger, nullable=False),
    Column("cause", String(128), nullable=False),
    Column("ring", Text, nullable=False),
)
