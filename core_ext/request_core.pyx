"""GetOnlineFeatures from request bytes to response bytes, without a Python object while every row is in the table."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cython cimport final
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from core_ext.computed cimport ComputedView
from core_ext.on_demand cimport OnDemand
from core_ext.row_codec cimport Schema
from core_ext.row_table cimport row_bytes
from core_ext.served_ring cimport (
    ServedRing, hr_served_choose, hr_served_draft, hr_served_finish, hr_served_marks)

from core_ext.request_messages import refusal, wanted_offsets, wanted_selection

cdef extern from "hr_layout.h" nogil:
    enum:
        HR_KEY_PARTS_MAX
        HR_ENTITY_ID_BYTES
        HR_VIEW_ID_BYTES
        HR_SLOT_COUNT
        HR_I64
        HR_STRING
        HR_BYTES
    uint32_t hr_load_u32_be(const uint8_t *at)
    void hr_store_u32_be(uint8_t *at, uint32_t value)

cdef extern from "hr_hash.h" nogil:
    uint64_t hr_xxh3_64(const uint8_t *data, size_t length)

cdef extern from "hr_answer.h" nogil:
    enum:
        HR_ROW_COUNT_MAX
        HR_COLUMN_COUNT_MAX
        HR_ENTITY_COLUMNS_MAX
        HR_HANDLE_BYTES
        HR_FETCH_LINES_MAX
        HR_OK
        HR_MISS
        HR_UNRESOLVED
        HR_E_NO_MEMORY
        HR_ON_DEMAND_GROUP
        HR_READ_COUNTERS
        HR_READ_COUNTER_WORDS
    int HR_HAS_TILES()

cdef extern from "hr_served.h" nogil:
    enum:
        HR_SERVED_TRACE_BYTES

ROW_COUNT_MAX = HR_ROW_COUNT_MAX
COLUMN_COUNT_MAX = HR_COLUMN_COUNT_MAX
ON_DEMAND = -1

cdef enum:
    # Values of a read from which the GIL is given up: about 100 us of work. Below, giving it up beside one busy
    # Python thread costs milliseconds (DESIGN section 7).
    GIL_VALUES_MIN = 40000
    GIL_PROGRAMS_MIN = 4000  # the same of on-demand programs, times rows
    CACHE_LINE_BYTES = 64


class Refused(Exception):
    """The request is wrong, or a stored row is: reason, field path, sentence and the values it quotes."""

    def __init__(self, reason, field, message, metadata):
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.message = message
        self.metadata = metadata


cdef bytes varint(uint64_t value):
    cdef bytearray out = bytearray()
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


cdef bytes encoded_name(str name):
    data = name.encode()
    return b"\x0a" + varint(len(data)) + data if data else b""


cdef bytes encoded_type(const hr_column *column):
    body = b"\x08" + varint(column.scalar)
    if column.shape:
        body += b"\x10" + varint(column.shape)
    if column.list_size:
        body += b"\x18" + varint(column.list_size)
    return b"\x32" + varint(len(body)) + body


cdef int check_index(object what, int64_t index, int64_t count) except -1:
    if index < 0 or index >= count:
        raise ValueError(f"{what} {index} is out of range: there are {count}")
    return 0


cdef void *zeroed(size_t count, size_t width) except NULL:
    # One element too many, so that an empty array is no special case.
    cdef void *memory = calloc(count + 1, width)
    if memory == NULL:
        raise MemoryError()
    return memory


@final
cdef class Plan:
    def __cinit__(
        self, bytes handle not None, int64_t revision, join_keys, lookups, groups, columns, inputs=(),
        OnDemand on_demand=None, bint tiles=True,
    ):
        if len(handle) != HR_HANDLE_BYTES:
            raise ValueError(f"a handle has {HR_HANDLE_BYTES} bytes, not {len(handle)}")
        if not 1 <= len(columns) <= HR_COLUMN_COUNT_MAX:
            raise ValueError(f"a plan has 1 to {HR_COLUMN_COUNT_MAX} columns, not {len(columns)}")
        self.handle = handle
        self.revision = revision
        self.keep = []
        memcpy(self.plan.handle, PyBytes_AS_STRING(handle), HR_HANDLE_BYTES)
        self.plan.revision = revision
        self.plan.reads = <uint64_t *>zeroed(HR_READ_COUNTERS * HR_READ_COUNTER_WORDS, sizeof(uint64_t))
        self.plan.has_tiles = tiles and HR_HAS_TILES() != 0
        self.set_join_keys(join_keys)
        self.set_lookups(lookups)
        self.set_groups(groups)
        self.on_demand = on_demand
        self.plan.on_demand = &on_demand.view if on_demand is not None else NULL
        self.set_outputs(groups, columns)
        self.set_inputs(groups, inputs)

    def __dealloc__(self):
        free(self.plan.join_keys)
        free(self.plan.lookups)
        free(self.plan.groups)
        free(self.plan.outputs)
        free(self.plan.by_group)
        free(self.plan.inputs)
        free(self.plan.reads)

    @property
    def row_count(self):
        cdef uint64_t total = 0
        cdef int i
        for i in range(HR_READ_COUNTERS):
            total += self.plan.reads[i * HR_READ_COUNTER_WORDS]
        return total

    @property
    def has_tiles(self):
        return self.plan.has_tiles != 0

    cdef const uint8_t *kept(self, bytes data):
        self.keep.append(data)
        return <const uint8_t *>PyBytes_AS_STRING(data)

    cdef int set_join_keys(self, join_keys) except -1:
        names = [name for name, _ in join_keys]
        if len(names) > HR_ENTITY_COLUMNS_MAX or len(set(names)) < len(names):
            raise ValueError(f"a plan has at most {HR_ENTITY_COLUMNS_MAX} join keys of different names, not {names}")
        self.plan.join_keys = <hr_join_key *>zeroed(len(join_keys), sizeof(hr_join_key))
        for name, kind in join_keys:
            if kind not in (HR_I64, HR_STRING, HR_BYTES):
                raise ValueError(f"join key {name} is of type {kind}: a key is I64, STRING or BYTES")
            data = name.encode()
            at = self.plan.join_key_count
            self.plan.join_keys[at].name = self.kept(data)
            self.plan.join_keys[at].name_bytes = len(data)
            self.plan.join_keys[at].type = kind
            self.plan.join_key_count += 1
        return 0

    cdef int set_lookups(self, lookups) except -1:
        cdef hr_lookup *lookup
        self.plan.lookups = <hr_lookup *>zeroed(len(lookups), sizeof(hr_lookup))
        for entity_id, keys in lookups:
            if not 1 <= len(keys) <= HR_KEY_PARTS_MAX:
                raise ValueError(f"an entity has 1 to {HR_KEY_PARTS_MAX} keys, not {len(keys)}")
            lookup = &self.plan.lookups[self.plan.lookup_count]
            lookup.entity_id = entity_id
            for key in keys:
                check_index("join key", key, self.plan.join_key_count)
                lookup.keys[lookup.key_count] = key
                lookup.key_count += 1
            self.plan.lookup_count += 1
        return 0

    cdef int set_groups(self, groups) except -1:
        cdef hr_group *group
        cdef Schema schema
        cdef ComputedView computed
        cdef uint32_t previous = 0
        self.plan.groups = <hr_group *>zeroed(len(groups), sizeof(hr_group))
        for number, view_id, schema, ttl_us, stale_us, fallback, computed in groups:
            check_index("lookup", number, self.plan.lookup_count)
            if schema is None:
                raise TypeError("a group needs the schema of its rows")
            if number < previous:
                raise ValueError("groups must come in the order of their lookups")
            previous = number
            group = &self.plan.groups[self.plan.group_count]
            group.lookup = number
            group.view_id = view_id
            group.schema_id = schema.schema_id
            group.fixed_bytes = schema.fixed_bytes
            if computed is not None:
                if computed.answered is not schema:
                    raise ValueError("a computed view answers with its own schema")
                group.computed = &computed.view
                group.fixed_bytes = computed.stored.fixed_bytes
                self.keep.append(computed)
            group.row_lines = min(group.fixed_bytes // CACHE_LINE_BYTES + 1, <uint32_t>HR_FETCH_LINES_MAX)
            group.ttl_us = ttl_us
            group.stale_us = stale_us
            group.fallback = fallback
            if self.plan.lookups[number].group_count == 0:
                self.plan.lookups[number].first_group = self.plan.group_count
            self.plan.lookups[number].group_count += 1
            self.plan.group_count += 1
            self.keep.append(schema)
        return 0

    cdef int set_outputs(self, groups, columns) except -1:
        cdef hr_group *group
        cdef uint32_t at = 0
        self.plan.outputs = <hr_output *>zeroed(len(columns), sizeof(hr_output))
        self.plan.by_group = <uint32_t *>zeroed(len(columns), sizeof(uint32_t))
        for name, number, index, default in columns:
            if number == ON_DEMAND:
                self.set_result(&self.plan.outputs[self.plan.output_count], name, index)
                self.plan.output_count += 1
                continue
            check_index("group", number, self.plan.group_count)
            schema, computed = groups[number][2], groups[number][6]
            self.set_output(
                &self.plan.outputs[self.plan.output_count], schema, computed, name, number, index, default)
            self.plan.groups[number].output_count += 1
            self.plan.output_count += 1
        for number in range(self.plan.group_count):
            group = &self.plan.groups[number]
            group.first_output = at
            for index in range(self.plan.output_count):
                if self.plan.outputs[index].group == number:
                    self.plan.by_group[at] = index
                    at += 1
        return 0

    cdef int set_output(
        self, hr_output *output, Schema schema, ComputedView computed, str name, uint32_t group, index, default
    ) except -1:
        check_index("column", index, schema.column_count)
        output.is_computed = computed is not None and computed.is_computed(index)
        output.column = schema.columns[index]
        output.is_framed = not output.column.is_variable
        output.group = group
        output.index = index
        self.set_names(output, name)
        if default is None:
            return 0
        if not output.column.is_variable and len(default) != output.column.slot_bytes:
            raise ValueError(f"default of {name} has {len(default)} bytes, its slot {output.column.slot_bytes}")
        output.default_value, output.default_bytes = self.kept(default), len(default)
        output.has_default = 1
        return 0

    cdef int set_result(self, hr_output *output, str name, index) except -1:
        cdef Schema schema
        check_index("program", index, len(self.on_demand.result_types) if self.on_demand is not None else 0)
        schema = Schema(0, [(self.on_demand.result_types[index], 0, 0)])
        output.column = schema.columns[0]
        output.group = HR_ON_DEMAND_GROUP
        output.index = index
        return self.set_names(output, name)

    cdef int set_names(self, hr_output *output, str name) except -1:
        head, tail = encoded_name(name), encoded_type(&output.column)
        output.head, output.head_bytes = self.kept(head), len(head)
        output.tail, output.tail_bytes = self.kept(tail), len(tail)
        return 0

    cdef int set_inputs(self, groups, inputs) except -1:
        cdef hr_output *made
        wanted = self.on_demand.input_types if self.on_demand is not None else {}
        for place in wanted:
            check_index("input", place, len(inputs))
        self.plan.inputs = <hr_output *>zeroed(len(inputs), sizeof(hr_output))
        for place, (number, index, default) in enumerate(inputs):
            check_index("group", number, self.plan.group_count)
            made = &self.plan.inputs[self.plan.input_count]
            self.set_output(made, groups[number][2], groups[number][6], "", number, index, default)
            if made.column.shape != 0 or made.column.scalar != wanted.get(place, made.column.scalar):
                raise ValueError(f"input {place} is of another type than the programs that read it")
            self.plan.input_count += 1
        return 0


@final
cdef class PlanSet:
    def __cinit__(self, plans, services, int64_t revision):
        cdef uint64_t room = 4
        cdef Plan plan
        while room < 2 * (len(plans) + len(services)) + 2:
            room *= 2
        self.keep = []
        self.names.mask = room - 1
        self.names.revision = revision
        self.names.names = <hr_plan_name *>zeroed(room, sizeof(hr_plan_name))
        for plan in plans:
            self.add(plan.handle, plan)
        for name, plan in services.items():
            self.add(name.encode(), plan)

    def __dealloc__(self):
        free(self.names.names)

    cdef int add(self, bytes name, Plan plan) except -1:
        self.keep.append((name, plan))
        hr_plan_set_add(&self.names, <const uint8_t *>PyBytes_AS_STRING(name), <uint32_t>len(name), &plan.plan)
        return 0


@final
cdef class Overlay:
    def __cinit__(self):
        self.keep = []
        self.overlay.mask = 63
        self.overlay.rows = <hr_overlay_row *>zeroed(64, sizeof(hr_overlay_row))

    def __dealloc__(self):
        free(self.overlay.rows)
        free(self.applied)

    def add(self, storage_keys, rows):
        if len(storage_keys) != len(rows):
            raise ValueError(f"{len(storage_keys)} keys and {len(rows)} rows: give one row per key")
        for key, row in zip(storage_keys, rows, strict=True):
            self.put(key, row, 0)

    def add_unavailable(self, storage_keys, uint8_t cause):
        if cause == 0:
            raise ValueError("an unavailable row needs a cause")
        for key in storage_keys:
            self.put(key, None, cause)

    cdef int put(self, bytes key, bytes row, uint8_t cause) except -1:
        cdef hr_overlay_row *place
        if len(key) <= HR_ENTITY_ID_BYTES + HR_VIEW_ID_BYTES:
            raise ValueError(f"a storage key of {len(key)} bytes is none")
        if row is not None:
            row_bytes(row)
        if 2 * (self.overlay.count + 1) > self.overlay.mask:
            self.grow()
        place = self.place(<const uint8_t *>PyBytes_AS_STRING(key), len(key))
        self.keep.append((key, row))
        self.overlay.count += not place.used
        place.key = <const uint8_t *>PyBytes_AS_STRING(key)
        place.key_bytes = <uint32_t>len(key)
        place.row = <const uint8_t *>PyBytes_AS_STRING(row) if row is not None else NULL
        place.cause = cause
        place.used = 1
        return 0

    cdef hr_overlay_row *place(self, const uint8_t *key, size_t length):
        cdef uint32_t prefix_bytes = <uint32_t>(length - HR_VIEW_ID_BYTES)
        return hr_overlay_find(&self.overlay, key, prefix_bytes, hr_load_u32_be(key + prefix_bytes))

    cdef int grow(self) except -1:
        cdef hr_overlay_row *old = self.overlay.rows
        cdef uint64_t count = self.overlay.mask + 1, i
        self.overlay.rows = <hr_overlay_row *>calloc(2 * count, sizeof(hr_overlay_row))
        if self.overlay.rows == NULL:
            self.overlay.rows = old
            raise MemoryError()
        self.overlay.mask = 2 * count - 1
        for i in range(count):
            if old[i].used:
                self.place(old[i].key, old[i].key_bytes)[0] = old[i]
        free(old)
        return 0


class Misses:
    """Rows to fetch before the request can be served."""

    __slots__ = ("partial", "shards", "storage_keys", "wants_offsets")

    def __init__(self, storage_keys, shards, wants_offsets, partial):
        self.storage_keys = storage_keys
        self.shards = shards
        self.wants_offsets = wants_offsets
        self.partial = partial


class Unresolved:
    """A selection that is not among the published plans."""

    __slots__ = ("feature_service", "features", "handle")

    def __init__(self, feature_service, handle, features):
        self.feature_service = feature_service
        self.handle = handle
        self.features = features


cdef object missed(hr_call *call, bytes request, uint32_t shard_count):
    # Each key once: a batch may name an entity many times.
    cdef dict seen = {}
    cdef uint32_t i, place, length
    cdef hr_group *group
    cdef uint8_t view[4]
    cdef uint64_t slot
    cdef const uint8_t *prefix
    for i in range(call.miss_count):
        group = &call.plan.groups[call.misses[i].group]
        place = group.lookup * call.row_count + call.misses[i].row
        prefix, length = call.prefixes[place], call.prefix_bytes[place]
        hr_store_u32_be(view, group.view_id)
        key = PyBytes_FromStringAndSize(<const char *>prefix, length) + PyBytes_FromStringAndSize(<char *>view, 4)
        if key not in seen:
            slot = hr_xxh3_64(prefix + HR_ENTITY_ID_BYTES, length - HR_ENTITY_ID_BYTES) % HR_SLOT_COUNT
            seen[key] = slot * shard_count // HR_SLOT_COUNT
    offsets = wanted_offsets(request) if call.request.min_offset_count else []
    return Misses(list(seen), list(seen.values()), offsets, not call.request.fail_when_partial)


cdef object span_bytes(hr_span span):
    return PyBytes_FromStringAndSize(<const char *>span.at, span.end - span.at) if span.at != NULL else b""


cdef object refused(int status, hr_call *call):
    cdef hr_request *request = &call.request
    column, kind = b"", 0
    if request.bad_column < request.column_count:
        column = span_bytes(request.columns[request.bad_column].join_key)
        kind = request.columns[request.bad_column].type
    return Refused(*refusal(
        status, column.decode(errors="replace"), span_bytes(call.bad_name).decode(errors="replace"),
        column=request.bad_column, kind=kind, row=request.bad_row, count=request.bad_count, rows=request.row_count))


cdef inline bint computes_long(const hr_call *call) noexcept nogil:
    if call.plan.on_demand == NULL:
        return False
    return <uint64_t>call.request.row_count * call.plan.on_demand.program_count >= GIL_PROGRAMS_MIN


cdef int answer_apart(hr_call *call, hr_served_draft *draft, const uint8_t *trace, uint8_t **out) noexcept nogil:
    # A whole answer without the interpreter, which nobody may wait for inside the table: it is outside afterwards.
    cdef int status = hr_call_find(call)
    if status != HR_OK:
        return status
    hr_served_note(draft, call, trace)
    out[0] = <uint8_t *>malloc(call.response_bytes)
    if out[0] == NULL:
        hr_call_leave(call)
        return HR_E_NO_MEMORY
    return hr_write_answer(call, out[0])


@final
cdef class RequestCore:
    def __cinit__(self, RowTable table not None, uint32_t shard_count):
        if shard_count == 0 or shard_count > HR_SLOT_COUNT or shard_count & (shard_count - 1):
            raise ValueError(f"the shard count is a power of two up to {HR_SLOT_COUNT}, not {shard_count}")
        self.table = table
        self.shard_count = shard_count
        self.published = PlanSet([], {}, 0)
        if hr_published_begin(&self.live, &self.published.names) != 0:
            raise MemoryError()

    def __dealloc__(self):
        hr_published_end(&self.live)

    def publish(self, plans, services, int64_t revision):
        cdef PlanSet fresh = PlanSet(plans, services, revision)
        with nogil:
            hr_publish(&self.live, &fresh.names)
        self.published = fresh

    def log_reads(self, ServedRing ring not None):
        if self.ring is not None:
            raise ValueError("reads are logged already")
        if ring.served.shard_count != self.shard_count:
            raise ValueError(f"the log is of {ring.served.shard_count} shards, and there are {self.shard_count}")
        self.ring = ring

    def mark(self, Overlay overlay not None):
        if self.ring is None or overlay.applied != NULL:
            return
        overlay.applied = <int64_t *>zeroed(2 * self.shard_count, sizeof(int64_t))
        hr_served_marks(&self.ring.served, overlay.applied)

    def serve(self, bytes request not None, int64_t read_time_us, Plan plan=None, Overlay overlay=None,
              bytes trace_id=None):
        cdef hr_call call
        cdef hr_served_draft draft
        cdef const int64_t *applied = overlay.applied if overlay is not None else NULL
        cdef const uint8_t *trace = NULL
        cdef PlanSet published = self.published  # this read keeps its plans whatever is published meanwhile
        cdef const hr_plan *given = &plan.plan if plan is not None else NULL
        cdef const hr_overlay *beside = &overlay.overlay if overlay is not None else NULL
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(request)
        cdef size_t length = PyBytes_GET_SIZE(request)
        cdef int status
        cdef uint8_t *out
        cdef uint8_t *apart = NULL
        memset(&call, 0, sizeof(call))
        memset(&draft, 0, sizeof(draft))
        if trace_id is not None and len(trace_id) == HR_SERVED_TRACE_BYTES:
            trace = <const uint8_t *>PyBytes_AS_STRING(trace_id)
        if self.ring is not None:
            hr_served_choose(&self.ring.served, &draft, applied, data, length, read_time_us)
        try:
            status = hr_call_open(
                &call, self.table.table, &published.names, given, beside, read_time_us, data, length)
            if status == HR_OK and computes_long(&call):
                with nogil:
                    status = answer_apart(&call, &draft, trace, &apart)
                if status == HR_OK:
                    hr_served_finish(&draft, apart)
                    return PyBytes_FromStringAndSize(<const char *>apart, call.response_bytes)
            elif status == HR_OK:
                status = hr_call_find(&call)
                if status == HR_OK:
                    hr_served_note(&draft, &call, trace)
                    response = PyBytes_FromStringAndSize(NULL, call.response_bytes)
                    out = <uint8_t *>PyBytes_AS_STRING(response)
                    if <uint64_t>call.row_count * call.plan.output_count < GIL_VALUES_MIN:
                        status = hr_write_answer(&call, out)
                    else:
                        with nogil:
                            status = hr_write_answer(&call, out)
                    if status == HR_OK:
                        hr_served_finish(&draft, out)
                        return response
            if status == HR_MISS:
                return missed(&call, request, self.shard_count)
            if status == HR_UNRESOLVED:
                return Unresolved(*wanted_selection(request))
            raise refused(status, &call)
        finally:
            free(apart)
            hr_served_finish(&draft, NULL)
            hr_call_end(&call)
