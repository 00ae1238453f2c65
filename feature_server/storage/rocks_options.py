"""RocksDB options of the shards of one store, from its budgets of memory and file descriptors."""

from dataclasses import dataclass
from typing import Final

from rocksdict import (
    BlockBasedOptions,
    Cache,
    ChecksumType,
    DBCompressionType,
    DBRecoveryMode,
    Env,
    Options,
    WriteBufferManager,
)

BLOCK_CACHE_BYTES: Final = 64 << 20  # embedded default; filters and indexes lie in it too
WRITE_BUFFER_BYTES: Final = 64 << 20  # of all shards together, charged to no one else
SHARD_BUFFER_BYTES: Final = 16 << 20  # of one memtable: larger ones cost more per row than they save
BUFFER_BLOOM_RATIO: Final = 0.1  # of a memtable, so that a new key is known as new without a search
BUFFER_COUNT_MAX: Final = 4
WAL_BYTES_MAX: Final = 128 << 20  # of one shard: bounds the replay after a crash to about a second
BLOCK_BYTES: Final = 8 << 10  # some thirty rows of 50 f32
BLOOM_BITS: Final = 10  # 1 % false positives
FORMAT_VERSION: Final = 6  # block checksums that notice a block at the wrong place
LOG_FILE_BYTES: Final = 4 << 20
LOG_FILE_COUNT: Final = 4
BACKGROUND_JOBS: Final = 2  # the thread pool is shared by all shards of the process
TABLE_FILE_BYTES: Final = 32 << 20
LEVEL_BASE_BYTES: Final = 128 << 20
L0_COMPACTION_FILES: Final = 4
L0_SLOWDOWN_FILES: Final = 20
L0_STOP_FILES: Final = 36
MANIFEST_BYTES_MAX: Final = 16 << 20
SYNC_BYTES: Final = 1 << 20  # written back in steps, so that one fsync does not wait for everything
DESCRIPTORS_RESERVED: Final = 256  # sockets, logs and Python itself
DESCRIPTORS_MIN: Final = 32
DESCRIPTORS_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class StoreBudget:
    """What all shards of a process may use together."""

    block_cache_bytes: int = BLOCK_CACHE_BYTES
    write_buffer_bytes: int = WRITE_BUFFER_BYTES
    descriptor_count: int = DESCRIPTORS_RESERVED + 8 * DESCRIPTORS_MIN
    direct_reads: bool = False


class SharedMemory:
    """Block cache and write buffers that the shards share."""

    def __init__(self, budget: StoreBudget) -> None:
        self.budget = budget
        self.cache = Cache(budget.block_cache_bytes)
        self.write_buffers = WriteBufferManager(budget.write_buffer_bytes, False)
        self.env = Env()  # of the whole process: the threads that flush and compact serve every shard
        self.env.lower_thread_pool_cpu_priority()
        self.env.lower_high_priority_thread_pool_cpu_priority()


def shard_options(memory: SharedMemory, shard_count: int) -> Options:
    """Options of one shard; bytes in, bytes out."""
    budget = memory.budget
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(_table_options(memory.cache))
    options.set_env(memory.env)
    options.set_write_buffer_manager(memory.write_buffers)
    options.set_write_buffer_size(min(SHARD_BUFFER_BYTES, budget.write_buffer_bytes))
    options.set_memtable_prefix_bloom_ratio(BUFFER_BLOOM_RATIO)
    options.set_memtable_whole_key_filtering(True)
    options.set_max_write_buffer_number(BUFFER_COUNT_MAX)
    options.set_max_total_wal_size(WAL_BYTES_MAX)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_paranoid_checks(True)
    options.set_max_open_files(descriptors_per_shard(budget.descriptor_count, shard_count))
    options.set_max_background_jobs(BACKGROUND_JOBS)
    options.set_bytes_per_sync(SYNC_BYTES)
    options.set_wal_bytes_per_sync(SYNC_BYTES)
    options.set_max_log_file_size(LOG_FILE_BYTES)
    options.set_keep_log_file_num(LOG_FILE_COUNT)
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX)
    options.set_use_direct_reads(budget.direct_reads)
    options.set_use_direct_io_for_flush_and_compaction(budget.direct_reads)
    _set_levels(options)
    return options


def descriptors_per_shard(descriptor_count: int, shard_count: int) -> int:
    """Open files that one shard may keep."""
    share = (descriptor_count - DESCRIPTORS_RESERVED) // shard_count
    return max(DESCRIPTORS_MIN, min(DESCRIPTORS_MAX, share))


def _set_levels(options: Options) -> None:
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_target_file_size_base(TABLE_FILE_BYTES)
    options.set_max_bytes_for_level_base(LEVEL_BASE_BYTES)
    options.set_level_zero_file_num_compaction_trigger(L0_COMPACTION_FILES)
    options.set_level_zero_slowdown_writes_trigger(L0_SLOWDOWN_FILES)
    options.set_level_zero_stop_writes_trigger(L0_STOP_FILES)
    # Values are mostly floats that do not compress; only the last level, where most bytes lie, pays for trying.
    options.set_compression_type(DBCompressionType.none())
    options.set_bottommost_compression_type(DBCompressionType.lz4())


def _table_options(cache: Cache) -> BlockBasedOptions:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_block_size(BLOCK_BYTES)
    table.set_bloom_filter(BLOOM_BITS, False)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_format_version(FORMAT_VERSION)
    table.set_checksum_type(ChecksumType.xxh3())
    return table
