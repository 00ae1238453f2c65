# The table's data: see native/hr_table.h for the layout of entries and for why readers need no lock.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "hr_table.h" nogil:
    enum:
        HR_SEGMENTS
        HR_TABLE_OK
        HR_UNKNOWN
        HR_NEWER
        HR_NOT_NEWER

    ctypedef struct pthread_mutex_t:
        pass

    ctypedef struct hr_entry:
        uint64_t hash

    ctypedef struct hr_segment:
        pthread_mutex_t lock
        uint64_t entity_count, row_count, eviction_count, dropped_fill_count
        size_t used_bytes

    ctypedef struct hr_table:
        hr_segment segments[64]
        uint64_t ticket

    ctypedef struct hr_row_put:
        uint32_t view_id, row_bytes
        const uint8_t *row

    hr_table *hr_table_new(size_t capacity_bytes)
    void hr_table_free(hr_table *table)
    void hr_table_clear(hr_table *table)
    uint64_t hr_table_ticket(hr_table *table)
    uint64_t hr_table_hash(const uint8_t *prefix, size_t prefix_bytes)
    int hr_read_begin(hr_table *table)
    void hr_read_end(hr_table *table, int reader)
    hr_entry *hr_table_find(hr_table *table, uint64_t hash, const uint8_t *prefix, size_t prefix_bytes)
    int hr_entry_row(const hr_entry *entry, uint32_t view_id, const uint8_t **row)
    int hr_table_fill(hr_table *table, const uint8_t *prefix, uint32_t prefix_bytes, const hr_row_put *puts,
                      uint32_t put_count, uint64_t ticket)
    void hr_table_apply(hr_table *table, const uint8_t *prefix, uint32_t prefix_bytes, const hr_row_put *puts,
                        uint32_t put_count)
    int hr_table_compare(hr_table *table, const uint8_t *prefix, uint32_t prefix_bytes, uint32_t view_id,
                         const uint8_t *row)
    size_t hr_table_bytes(hr_table *table)
    void hr_segment_lock(hr_segment *segment)
    void hr_segment_unlock(hr_segment *segment)


cdef class RowTable:
    cdef hr_table *table
    cdef readonly size_t capacity_bytes
    cdef tuple peek(self, bytes storage_key)


cdef const uint8_t *row_bytes(bytes row) except NULL
