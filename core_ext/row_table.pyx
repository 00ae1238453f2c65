"""Bounded table of entity rows: entity prefix to the rows of its views, readable without the GIL."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cython cimport final

cdef extern from "hr_layout.h" nogil:
    enum:
        HR_ENTITY_ID_BYTES
        HR_VIEW_ID_BYTES
        HR_ROW_BYTES_MIN
        HR_ROW_LENGTH
    uint32_t hr_load_u32(const uint8_t *at)
    uint32_t hr_load_u32_be(const uint8_t *at)

from libc.string cimport memcmp

UNKNOWN = HR_UNKNOWN
NEWER = HR_NEWER
NOT_NEWER = HR_NOT_NEWER

cdef enum:
    # Views of one entity entered by one call: more are entered by the next one.
    RUN_MAX = 64
    # A table smaller than this could not hold its own index.
    CAPACITY_BYTES_MIN = 1 << 18


cdef inline const uint8_t *key_bytes(bytes key, uint32_t *prefix_bytes) except NULL:
    # Prefix and view id of a storage key; the prefix is what the table finds by.
    if key is None:
        raise TypeError("a storage key is missing")
    cdef Py_ssize_t size = PyBytes_GET_SIZE(key)
    if size < HR_ENTITY_ID_BYTES + HR_VIEW_ID_BYTES + 1 or size > 0xFFFF:
        raise ValueError(f"a storage key of {size} bytes is none")
    prefix_bytes[0] = <uint32_t>(size - HR_VIEW_ID_BYTES)
    return <const uint8_t *>PyBytes_AS_STRING(key)


cdef const uint8_t *row_bytes(bytes row) except NULL:
    if row is None:
        raise TypeError("a row is missing")
    cdef Py_ssize_t size = PyBytes_GET_SIZE(row)
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(row)
    if size < HR_ROW_BYTES_MIN or hr_load_u32(at + HR_ROW_LENGTH) != size:
        raise ValueError(f"{size} bytes are no row: check it with row_codec.check_row first")
    return at


cdef uint32_t take_run(list keys, list rows, Py_ssize_t first, hr_row_put *puts) except 0:
    # Gathers neighbours of one entity, so that its entry is built once. Returns how many.
    cdef uint32_t prefix_bytes, other_bytes, count = 0
    cdef const uint8_t *prefix = key_bytes(keys[first], &prefix_bytes)
    cdef const uint8_t *other
    cdef Py_ssize_t at
    for at in range(first, min(first + RUN_MAX, len(keys))):
        other = key_bytes(keys[at], &other_bytes)
        if other_bytes != prefix_bytes or memcmp(other, prefix, prefix_bytes) != 0:
            break
        puts[count].view_id = hr_load_u32_be(other + other_bytes)
        puts[count].row = NULL
        puts[count].row_bytes = 0
        if rows[at] is not None:
            puts[count].row = row_bytes(rows[at])
            puts[count].row_bytes = <uint32_t>PyBytes_GET_SIZE(rows[at])
        count += 1
    return count


cdef tuple as_lists(storage_keys, rows):
    keys = storage_keys if type(storage_keys) is list else list(storage_keys)
    values = rows if type(rows) is list else list(rows)
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} keys and {len(values)} rows: give one row per key")
    return keys, values


@final
cdef class RowTable:
    def __cinit__(self, capacity_bytes):
        if capacity_bytes < CAPACITY_BYTES_MIN:
            raise ValueError(f"a row table needs at least {CAPACITY_BYTES_MIN} bytes, not {capacity_bytes}")
        self.capacity_bytes = capacity_bytes
        self.table = hr_table_new(capacity_bytes)
        if self.table == NULL:
            raise MemoryError(f"no memory for a row table of {capacity_bytes} bytes")

    def __dealloc__(self):
        hr_table_free(self.table)

    def ticket(self):
        return hr_table_ticket(self.table)

    def fill(self, storage_keys, rows, uint64_t ticket):
        cdef list keys, values
        cdef hr_row_put puts[RUN_MAX]
        cdef uint32_t prefix_bytes, count
        cdef const uint8_t *prefix
        cdef Py_ssize_t at = 0
        cdef int entered
        cdef Py_ssize_t total = 0
        keys, values = as_lists(storage_keys, rows)
        while at < len(keys):
            count = take_run(keys, values, at, puts)
            prefix = key_bytes(keys[at], &prefix_bytes)
            entered = hr_table_fill(self.table, prefix, prefix_bytes, puts, count, ticket)
            if entered > 0:
                total += count
            at += count
        return total

    def apply(self, storage_keys, rows):
        cdef list keys, values
        cdef hr_row_put puts[RUN_MAX]
        cdef uint32_t prefix_bytes, count
        cdef const uint8_t *prefix
        cdef Py_ssize_t at = 0
        keys, values = as_lists(storage_keys, rows)
        while at < len(keys):
            count = take_run(keys, values, at, puts)
            prefix = key_bytes(keys[at], &prefix_bytes)
            hr_table_apply(self.table, prefix, prefix_bytes, puts, count)
            at += count

    def compare(self, storage_keys, rows):
        cdef list keys, values
        cdef uint32_t prefix_bytes
        cdef const uint8_t *prefix
        cdef Py_ssize_t at
        keys, values = as_lists(storage_keys, rows)
        answers = PyBytes_FromStringAndSize(NULL, len(keys))
        cdef char *out = PyBytes_AS_STRING(answers)
        for at in range(len(keys)):
            prefix = key_bytes(keys[at], &prefix_bytes)
            out[at] = <char>hr_table_compare(
                self.table, prefix, prefix_bytes, hr_load_u32_be(prefix + prefix_bytes), row_bytes(values[at]))
        return answers

    def get(self, bytes storage_key not None):
        known, row = self.peek(storage_key)
        if not known:
            raise KeyError(storage_key)
        return row

    def lookup(self, storage_keys):
        cdef list found = []
        for key in storage_keys:
            known, row = self.peek(key)
            found.append(row if known else UNKNOWN)
        return found

    cdef tuple peek(self, bytes storage_key):
        cdef uint32_t prefix_bytes
        cdef const uint8_t *prefix = key_bytes(storage_key, &prefix_bytes)
        cdef const uint8_t *row = NULL
        cdef bint known = False
        cdef int reader = hr_read_begin(self.table)
        cdef const hr_entry *entry = hr_table_find(
            self.table, hr_table_hash(prefix, prefix_bytes), prefix, prefix_bytes)
        try:
            if entry != NULL:
                known = hr_entry_row(entry, hr_load_u32_be(prefix + prefix_bytes), &row)
            if row == NULL:
                return known, None
            return known, PyBytes_FromStringAndSize(<const char *>row, hr_load_u32(row + HR_ROW_LENGTH))
        finally:
            hr_read_end(self.table, reader)

    def clear(self):
        hr_table_clear(self.table)

    def stats(self):
        cdef int i
        totals = {"entity_count": 0, "row_count": 0, "eviction_count": 0, "dropped_fill_count": 0}
        for i in range(HR_SEGMENTS):
            hr_segment_lock(&self.table.segments[i])
            totals["entity_count"] += self.table.segments[i].entity_count
            totals["row_count"] += self.table.segments[i].row_count
            totals["eviction_count"] += self.table.segments[i].eviction_count
            totals["dropped_fill_count"] += self.table.segments[i].dropped_fill_count
            hr_segment_unlock(&self.table.segments[i])
        totals["used_bytes"] = hr_table_bytes(self.table)
        return totals
