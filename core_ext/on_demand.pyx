"""On-demand features of a plan: expressions over features, request data and one another, run when rows are read."""

from cpython.bytes cimport PyBytes_AS_STRING
from cython cimport final
from libc.stdlib cimport calloc, free

from core_ext.expressions cimport Program


FROM_FEATURE = HR_FROM_FEATURE
FROM_REQUEST = HR_FROM_REQUEST
FROM_PROGRAM = HR_FROM_PROGRAM
REQUEST_COLUMNS_MAX = HR_REQUEST_COLUMNS_MAX

cdef enum:
    TYPE_FIRST = 1
    TYPE_LAST = 9


@final
cdef class OnDemand:
    def __cinit__(self, request_fields, programs):
        self.keep = []
        self.input_types = {}
        self.set_fields(request_fields)
        self.set_programs(programs)
        self.view.block_rows = hr_on_demand_block_rows(&self.view)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(HR_ON_DEMAND_IDLE_MAX):
            hr_on_demand_reader_close(&self.view, <hr_on_demand_reader *>self.view.idle[i])
        if self.view.programs != NULL:
            for i in range(self.view.program_count + 1):  # one may be half-built
                free(self.view.programs[i].sources)
        free(self.view.programs)
        free(self.view.fields)

    cdef int set_fields(self, request_fields) except -1:
        cdef hr_request_field *field
        names = [name for name, _ in request_fields]
        if len(names) > HR_REQUEST_COLUMNS_MAX or len(set(names)) < len(names):
            raise ValueError(f"a plan has up to {HR_REQUEST_COLUMNS_MAX} request fields of various names, not {names}")
        self.view.fields = <hr_request_field *>calloc(len(names) + 1, sizeof(hr_request_field))
        if self.view.fields == NULL:
            raise MemoryError
        for name, kind in request_fields:
            if not TYPE_FIRST <= kind <= TYPE_LAST:
                raise ValueError(f"request field {name} is of type {kind}, which is none")
            field = &self.view.fields[self.view.field_count]
            data = name.encode()
            self.keep.append(data)
            field.name = <const uint8_t *>PyBytes_AS_STRING(data)
            field.name_bytes = len(data)
            field.type = kind
            self.view.field_count += 1
        return 0

    cdef int set_programs(self, programs) except -1:
        cdef Program program
        cdef hr_on_demand_program *made
        self.result_types = ()
        self.view.programs = <hr_on_demand_program *>calloc(len(programs) + 1, sizeof(hr_on_demand_program))
        if self.view.programs == NULL:
            raise MemoryError
        results = []
        for program, sources, default, fallback in programs:
            made = &self.view.programs[self.view.program_count]
            self.keep.append(program)
            made.program = &program.program
            made.fallback = fallback
            self.set_sources(made, program, sources)
            self.set_default(made, default)
            self.view.program_count += 1
            results.append(program.result_type)
            self.result_types = tuple(results)
        return 0

    cdef int set_sources(self, hr_on_demand_program *made, object program, sources) except -1:
        cdef uint32_t i = 0
        kinds = program.input_types
        if len(sources) != len(kinds):
            raise ValueError(f"a program reads {len(kinds)} columns, and {len(sources)} are given")
        for (where, place), kind in zip(sources, kinds, strict=True):
            if where == HR_FROM_FEATURE:
                known = self.input_types.setdefault(place, kind)
            elif where == HR_FROM_REQUEST and 0 <= place < self.view.field_count:
                known = self.view.fields[<uint32_t>place].type
            elif where == HR_FROM_PROGRAM and 0 <= place < self.view.program_count:
                known = self.result_types[place]
            else:
                raise ValueError(f"a program reads {place} of {where}, which is no source before it")
            if known != kind:
                raise ValueError(f"a program reads {place} of {where} as another type than its own")
        made.sources = <hr_on_demand_source *>calloc(len(kinds) + 1, sizeof(hr_on_demand_source))
        if made.sources == NULL:
            raise MemoryError
        for where, place in sources:
            made.sources[i].from_ = where
            made.sources[i].place = place
            i += 1
        return 0

    cdef int set_default(self, hr_on_demand_program *made, bytes default) except -1:
        cdef uint32_t width = hr_field_width(made.program.result_type)
        if default is None:
            return 0
        if width > 0 and len(default) != width:
            raise ValueError(f"a default of {len(default)} bytes is given for a slot of {width}")
        self.keep.append(default)
        made.default_value = <const uint8_t *>PyBytes_AS_STRING(default)
        made.default_bytes = len(default)
        made.has_default = 1
        return 0
