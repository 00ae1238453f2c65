"""Tables of the registry, as the newest migration leaves them.

names      one row per name: kind and mutable parts; a name is never given again
versions   one row per version (0 for sources and entities): frozen parts, state, internal ids
pins       what a version refers to: a retired target stays, so the reference always resolves
revisions  append-only log of who changed what
answers    answers kept by request id
registry   one row: revision and highest internal id
ring_epochs  append-only: the ring of each epoch, who shall serve which shard
lineage_nodes  what can be made of something, numbered from 0 without gaps
lineage_edges  append-only, numbered likewise: an edge that ends or was wrong is replaced by another row
lineage_runs  runs of jobs, whose edges they are
lineage_head  one row, which every writer of the log locks: how far it holds what the registry declares
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
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

lineage_nodes = Table(
    "lineage_nodes",
    metadata,
    Column("node_id", BigInteger, nullable=False, autoincrement=False),
    Column("kind", SmallInteger, nullable=False),
    Column("name", Text, nullable=False),
    PrimaryKeyConstraint("node_id"),
    UniqueConstraint("name"),
)

lineage_edges = Table(
    "lineage_edges",
    metadata,
    Column("edge_id", BigInteger, nullable=False, autoincrement=False),
    Column("source_id", BigInteger, nullable=False),
    Column("target_id", BigInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("origin_id", BigInteger, nullable=False),
    Column("valid_from_us", BigInteger, nullable=False),
    Column("valid_to_us", BigInteger, nullable=True),
    Column("known_us", BigInteger, nullable=False),
    Column("replaces_id", BigInteger, nullable=True),
    Column("transform", Text, nullable=False),
    PrimaryKeyConstraint("edge_id"),
    ForeignKeyConstraint(["source_id"], ["lineage_nodes.node_id"]),
    ForeignKeyConstraint(["target_id"], ["lineage_nodes.node_id"]),
    ForeignKeyConstraint(["origin_id"], ["lineage_nodes.node_id"]),
    UniqueConstraint("replaces_id"),
    Index("ix_lineage_edges_origin_id", "origin_id"),
)

lineage_runs = Table(
    "lineage_runs",
    metadata,
    Column("node_id", BigInteger, nullable=False, autoincrement=False),
    Column("job", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("start_time_us", BigInteger, nullable=False),
    Column("end_time_us", BigInteger, nullable=True),
    Column("git_sha", Text, nullable=False),
    Column("kernel_version", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    PrimaryKeyConstraint("node_id"),
    ForeignKeyConstraint(["node_id"], ["lineage_nodes.node_id"]),
)

lineage_head = Table(
    "lineage_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("declared_revision", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
