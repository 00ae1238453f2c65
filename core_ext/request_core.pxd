# Plans as C sees them: native/hr_plan.h; one read in progress: native/hr_resolve.h.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from core_ext.computed cimport ComputedView, hr_computed
from core_ext.on_demand cimport OnDemand, hr_on_demand
from core_ext.row_codec cimport Schema, hr_column
from core_ext.row_table cimport RowTable, hr_table
from core_ext.served_ring cimport ServedRing, hr_served_draft

cdef extern from "hr_answer.h" nogil:
    ctypedef struct hr_span:
        const uint8_t *at
        const uint8_t *end

    ctypedef struct hr_join_key:
        const uint8_t *name
        uint32_t name_bytes, type

    ctypedef struct hr_lookup:
        uint32_t entity_id, key_count
        uint32_t keys[8]
        uint32_t first_group, group_count

    ctypedef struct hr_group:
        hr_computed *computed
        uint32_t lookup, view_id, schema_id, fixed_bytes, row_lines
        int64_t ttl_us, stale_us
        int fallback
        uint32_t first_output, output_count

    ctypedef struct hr_output:
        hr_column column
        uint32_t group, index
        const uint8_t *head
        const uint8_t *tail
        const uint8_t *default_value
        uint32_t head_bytes, tail_bytes, default_bytes
        int has_default
        int is_computed
        int is_framed

    ctypedef struct hr_plan:
        uint8_t handle[32]
        int64_t revision
        uint32_t join_key_count, lookup_count, group_count, output_count, input_count
        hr_join_key *join_keys
        hr_lookup *lookups
        hr_group *groups
        hr_output *outputs
        uint32_t *by_group
        hr_output *inputs
        hr_on_demand *on_demand
        int has_tiles
        uint64_t *reads

    ctypedef struct hr_plan_name:
        const hr_plan *plan

    ctypedef struct hr_plan_set:
        uint64_t mask
        int64_t revision
        hr_plan_name *names

    ctypedef struct hr_overlay_row:
        const uint8_t *key
        const uint8_t *row
        uint32_t key_bytes
        uint8_t cause, used

    ctypedef struct hr_overlay:
        uint64_t mask, count
        hr_overlay_row *rows

    ctypedef struct hr_entity_column:
        hr_span message, join_key
        uint32_t type, row_count

    ctypedef struct hr_request:
        hr_span feature_service, handle
        uint32_t feature_count, column_count, request_column_count, min_offset_count, row_count
        hr_entity_column columns[64]
        int include_event_times, include_expired, include_names, fail_when_partial
        int64_t max_staleness_us
        uint32_t bad_column, bad_row
        uint64_t bad_count

    ctypedef struct hr_miss:
        uint32_t group, row

    ctypedef struct hr_call:
        hr_request request
        const hr_plan *plan
        uint32_t row_count
        const uint8_t **prefixes
        uint32_t *prefix_bytes
        hr_miss *misses
        uint32_t miss_count
        uint64_t response_bytes
        hr_span bad_name

    void hr_plan_set_add(hr_plan_set *set, const uint8_t *name, uint32_t name_bytes, const hr_plan *plan)
    hr_overlay_row *hr_overlay_find(const hr_overlay *overlay, const uint8_t *prefix, uint32_t prefix_bytes,
                                    uint32_t view_id)
    int hr_call_open(hr_call *call, hr_table *table, const hr_plan_set *plan_set, const hr_plan *given,
                     const hr_overlay *overlay, int64_t read_us, const uint8_t *data, size_t length)
    int hr_call_find(hr_call *call)
    void hr_call_leave(hr_call *call)
    int hr_write_answer(hr_call *call, uint8_t *out)
    void hr_call_end(hr_call *call)

cdef extern from "hr_served.h" nogil:
    void hr_served_note(hr_served_draft *draft, const hr_call *call, const uint8_t *trace_id)

cdef extern from "hr_published.h" nogil:
    ctypedef struct hr_published:
        const hr_plan_set *plans

    int hr_published_begin(hr_published *published, const hr_plan_set *plans)
    void hr_publish(hr_published *published, const hr_plan_set *plans)
    void hr_published_end(hr_published *published)


cdef class Plan:
    cdef hr_plan plan
    cdef OnDemand on_demand
    cdef list keep          # owns the bytes and schemas that `plan` points into
    cdef readonly bytes handle
    cdef readonly int64_t revision
    cdef const uint8_t *kept(self, bytes data)
    cdef int set_join_keys(self, join_keys) except -1
    cdef int set_lookups(self, lookups) except -1
    cdef int set_groups(self, groups) except -1
    cdef int set_outputs(self, groups, columns) except -1
    cdef int set_inputs(self, groups, inputs) except -1
    cdef int set_result(self, hr_output *output, str name, index) except -1
    cdef int set_names(self, hr_output *output, str name) except -1
    cdef int set_output(self, hr_output *output, Schema schema, ComputedView computed, str name, uint32_t group,
                        index, default) except -1


cdef class PlanSet:
    cdef hr_plan_set names
    cdef list keep
    cdef int add(self, bytes name, Plan plan) except -1


cdef class Overlay:
    cdef hr_overlay overlay
    cdef list keep
    cdef int64_t *applied   # of the shards before the rows were fetched, where reads are logged
    cdef int put(self, bytes key, bytes row, uint8_t cause) except -1
    cdef hr_overlay_row *place(self, const uint8_t *key, size_t length)
    cdef int grow(self) except -1


cdef class RequestCore:
    cdef RowTable table
    cdef uint32_t shard_count
    cdef PlanSet published
    cdef hr_published live  # the same plans for threads without the interpreter
    cdef ServedRing ring    # None: no reads are logged
