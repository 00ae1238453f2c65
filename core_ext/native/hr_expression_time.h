/* Parts of local times by the proleptic Gregorian calendar, and zone tables compiled into programs. */
#ifndef HR_EXPRESSION_TIME_H
#define HR_EXPRESSION_TIME_H

#include "hr_expression.h"

#define HR_SECOND_US 1000000LL
#define HR_DAY_US (86400LL * HR_SECOND_US)

static inline int64_t hr_floor_quotient(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
static inline int64_t hr_floor_mod(int64_t a, int64_t b) { int64_t r = a % b; return r != 0 && (r < 0) != (b < 0) ? r + b : r; }

/* Local time of a UTC time; 0 where the zone table ends before it or the sum leaves i64. */
static inline int hr_local_time(const uint8_t *zone, int64_t utc, int64_t *local)
{
    uint32_t count = hr_load_u32(zone), low = 0, high = count;
    if (utc >= hr_load_i64(zone + 8)) return 0;
    while (high - low > 1) {  /* the last start that is not after utc; the first one never is */
        uint32_t middle = low + (high - low) / 2;
        if (hr_load_i64(zone + 16 + 8 * (size_t)middle) <= utc) low = middle;
        else high = middle;
    }
    return !__builtin_add_overflow(utc, hr_load_i64(zone + 16 + 8 * ((size_t)count + low)), local);
}

/* Year, month (1 to 12) and day (1 to 31) of a local time, by 400-year eras that start on 1 March. */
static inline void hr_civil(int64_t local, int64_t *year, int64_t *month, int64_t *day)
{
    int64_t days = hr_floor_quotient(local, HR_DAY_US) + 719468;
    int64_t era = hr_floor_quotient(days, 146097), of_era = days - era * 146097;
    int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * years + years / 4 - years / 100);
    int64_t march = (5 * of_year + 2) / 153;
    *day = of_year - (153 * march + 2) / 5 + 1;
    *month = march < 10 ? march + 3 : march - 9;
    *year = era * 400 + years + (*month <= 2);
}

static inline int64_t hr_time_part(uint16_t op, int64_t local)
{
    int64_t year, month, day, second = hr_floor_quotient(hr_floor_mod(local, HR_DAY_US), HR_SECOND_US);
    switch (op) {
    case HR_OP_HOUR: return second / 3600;
    case HR_OP_MINUTE: return second / 60 % 60;
    case HR_OP_SECOND: return second % 60;
    case HR_OP_DAYS: return hr_floor_quotient(local, HR_DAY_US);
    case HR_OP_DAY_OF_WEEK: return hr_floor_mod(hr_floor_quotient(local, HR_DAY_US) + 3, 7) + 1;  /* 1970-01-01: Thursday */
    default: break;
    }
    hr_civil(local, &year, &month, &day);
    return op == HR_OP_YEAR ? year : op == HR_OP_MONTH ? month : day;
}

#endif
