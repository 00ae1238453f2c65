"""Plans of windows as C reads them, every number checked."""

import cython
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

AGGREGATES_OF_LISTS = frozenset((12, 13))  # top_k and last_n


@cython.final
cdef class NativePlan:
    def __cinit__(self, plan not None):
        self.plan.check = plan.check
        self.plan.state_count = len(plan.states)
        self.plan.ladder_count = len(plan.ladders)
        self.plan.span_count = len(plan.spans)
        self.plan.feature_count = len(plan.features)
        self.plan.states = <hr_window_state *>calloc(len(plan.states) + 1, sizeof(hr_window_state))
        self.plan.ladders = <hr_window_ladder *>calloc(len(plan.ladders) + 1, sizeof(hr_window_ladder))
        self.plan.spans = <hr_window_span *>calloc(len(plan.spans) + 1, sizeof(hr_window_span))
        self.plan.features = <hr_window_feature *>calloc(len(plan.features) + 1, sizeof(hr_window_feature))
        self.plan.uses = <uint32_t *>calloc(len(plan.features) + 1, sizeof(uint32_t))
        if (
            self.plan.states == NULL or self.plan.ladders == NULL or self.plan.spans == NULL
            or self.plan.features == NULL or self.plan.uses == NULL
        ):
            raise MemoryError
        fill_states(&self.plan, plan)
        fill_ladders(&self.plan, plan)
        fill_features(&self.plan, plan)

    def __dealloc__(self):
        free(self.plan.states)
        free(self.plan.ladders)
        free(self.plan.spans)
        free(self.plan.features)
        free(self.plan.uses)


cdef int fill_states(hr_window_plan *native, plan) except -1:
    cdef Py_ssize_t i
    input_count = len(plan.input_scalars)
    for i, state in enumerate(plan.states):
        native.states[i].spec.kind = state.kind
        native.states[i].spec.scalar = state.scalar
        native.states[i].spec.scalar2 = state.scalar2
        native.states[i].spec.parameter = state.parameter
        native.states[i].column = state.column
        native.states[i].column2 = state.column2
        for column, scalar in ((state.column, state.scalar), (state.column2, state.scalar2)):
            if is_edge(state):
                continue
            fits = plan.input_scalars[column] == scalar if 0 <= column < input_count else column == -1 and scalar == 0
            if not fits:
                raise ValueError(f"state {i} reads input {column} of type {scalar}, which the plan lacks")
        if hr_state_spec_check(&native.states[i].spec) != HR_STATE_OK:
            raise ValueError(f"state {i} is none that can be kept: {state}")
    return 0


cdef bint is_edge(state):
    """Whether the state is the time of the first or last event of a tile."""
    return state.kind in (HR_KIND_MIN, HR_KIND_MAX) and tuple(state)[1:] == (
        HR_TIMESTAMP_US, 0, 0, HR_COLUMN_EVENT_TIME, -1)


cdef bint fits_session(span, ladder, states):
    """Whether no pause lies inside a finest tile, and the ladder keeps the first and last event of each."""
    last = states[ladder.first_state:ladder.first_state + ladder.state_count][-2:]
    return ladder.sizes_us[0] <= span.gap_us <= span.window_us and span.level == 0 and [
        state.kind for state in last if is_edge(state)] == [HR_KIND_MIN, HR_KIND_MAX]


cdef int fill_ladders(hr_window_plan *native, plan) except -1:
    cdef Py_ssize_t i, j
    states = 0
    for i, ladder in enumerate(plan.ladders):
        sizes = ladder.sizes_us
        rises = all(0 < fine < coarse and coarse % fine == 0 for fine, coarse in zip(sizes, sizes[1:], strict=False))
        if not rises or not 1 <= len(sizes) <= HR_WINDOW_LEVELS_MAX or not 0 < max(sizes) <= 1 << 56:
            raise ValueError(f"ladder {i} has sizes that do not divide one another, or too many: {sizes}")
        if ladder.first_state != states or len(ladder.keeps_us) != len(sizes) or not all(
            0 < keep <= 1 << 56 for keep in ladder.keeps_us
        ):
            raise ValueError(f"ladder {i} has states or times that do not fit it")
        states += ladder.state_count
        native.ladders[i].level_count = len(sizes)
        native.ladders[i].first_state = ladder.first_state
        native.ladders[i].state_count = ladder.state_count
        native.ladders[i].first_section = native.section_count
        native.ladders[i].entry_bytes = HR_TILE_ENDS + 4 * ladder.state_count
        for j in range(len(sizes)):
            native.ladders[i].sizes[j] = sizes[j]
            native.ladders[i].keeps[j] = ladder.keeps_us[j]
        native.section_count += <uint32_t>len(sizes)
    if states != len(plan.states):
        raise ValueError(f"the ladders hold {states} states, and the plan has {len(plan.states)}")
    return 0


cdef int fill_features(hr_window_plan *native, plan) except -1:
    cdef Py_ssize_t i, u = 0
    cdef hr_window_feature *feature
    for i, planned in enumerate(plan.features):
        feature = &native.features[i]
        feature.aggregate = planned.aggregate
        feature.parameter = planned.parameter
        feature.state = planned.state
        feature.span = planned.span
        if not 0 <= planned.state < len(plan.states) or not 0 <= planned.span < len(plan.spans):
            raise ValueError(f"feature {i} has a state or span that the plan lacks")
        if is_edge(plan.states[planned.state]):
            raise ValueError(f"feature {i} has the state of event times, which answers none")
        if not hr_state_answers(&native.states[planned.state].spec, planned.aggregate, planned.parameter):
            raise ValueError(f"feature {i}: aggregate {planned.aggregate} has no answer in its state or takes no "
                             f"parameter {planned.parameter}")
        feature.scalar = hr_state_result_scalar(planned.aggregate, native.states[planned.state].spec.scalar)
        feature.is_list = planned.aggregate in AGGREGATES_OF_LISTS
    order = sorted(range(len(plan.features)), key=lambda at: (plan.features[at].span, plan.features[at].state))
    for i, span in enumerate(plan.spans):
        ladder = plan.ladders[span.ladder]
        if not 0 <= span.level < len(ladder.sizes_us) or not 0 < span.hop_us <= span.window_us <= 1 << 56:
            raise ValueError(f"span {i} does not fit its ladder")
        if span.hop_us % ladder.sizes_us[span.level] != 0:
            raise ValueError(f"span {i} has a hop that no tile of its level ends at")
        if span.gap_us != 0 and not fits_session(span, ladder, plan.states):
            raise ValueError(f"span {i} is a session that its ladder does not keep")
        native.spans[i].gap_us = span.gap_us
        native.spans[i].ladder = span.ladder
        native.spans[i].level = span.level
        native.spans[i].window_us = span.window_us
        native.spans[i].hop_us = span.hop_us
        native.spans[i].first_use = <uint32_t>u
        while u < len(order) and plan.features[order[u]].span == i:
            state = plan.features[order[u]].state
            if not 0 <= state - ladder.first_state < ladder.state_count:
                raise ValueError(f"feature {order[u]} has its state in another ladder than its span")
            native.uses[u] = order[u]
            u += 1
        native.spans[i].use_count = <uint32_t>u - native.spans[i].first_use
    return 0
