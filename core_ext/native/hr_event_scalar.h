/* Numbers, times and base64 of JSON events, by exact rules: docs/decisions/0037-streams.md. */
#ifndef HR_EVENT_SCALAR_H
#define HR_EVENT_SCALAR_H

#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "hr_json.h"

enum {
    HR_NUMBER_BYTES_MAX = 1100,   /* no double needs more than 767 digits to be told from its neighbours */
    HR_EXACT_POWER_MAX = 22,      /* 10^22 is the largest power of ten that a double holds exactly */
    HR_EXACT_DIGITS_MAX = 19      /* of a whole number in 64 bits */
};

static const int64_t HR_DAY_US = 86400000000LL;

/* A whole number of 64 bits; `is_plain` was checked by the caller. */
static inline int hr_event_whole(const hr_json_span *span, int64_t *value)
{
    const uint8_t *at = span->at, *end = at + span->length;
    int is_negative = *at == '-';
    uint64_t sum = 0, limit = (uint64_t)INT64_MAX + (uint64_t)is_negative;
    for (at += is_negative; at < end; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (sum > (limit - digit) / 10) return HR_EVENT_OUT_OF_RANGE;
        sum = sum * 10 + digit;
    }
    *value = is_negative ? (int64_t)(0 - sum) : (int64_t)sum;
    return HR_EVENT_OK;
}

/* Digits of a number as a whole one, and the power of ten behind it; 0 where they are too many to be exact. */
static inline int hr_event_decimal(const hr_json_span *span, uint64_t *digits, int64_t *power)
{
    const uint8_t *at = span->at + (*span->at == '-'), *end = span->at + span->length;
    int count = 0, behind = 0, is_negative;
    int64_t exponent = 0;
    *digits = 0;
    *power = 0;
    for (; at < end && (*at | 0x20) != 'e'; at++) {
        if (*at == '.') {
            behind = 1;
            continue;
        }
        if (count > 0 || *at != '0') count++;
        if (count > HR_EXACT_DIGITS_MAX) return 0;
        *digits = *digits * 10 + (uint64_t)(*at - '0');
        *power -= behind;
    }
    if (at == end) return 1;
    at++;
    is_negative = *at == '-';
    for (at += *at == '-' || *at == '+'; at < end; at++) {
        if (exponent > 100000) return 0;
        exponent = exponent * 10 + (*at - '0');
    }
    *power += is_negative ? -exponent : exponent;
    return 1;
}

/* The nearest double, ties to even. One operation on two exact doubles is rounded once; strtod of glibc is exact. */
static inline int hr_event_double(const hr_json_span *span, locale_t plain, double *value)
{
    static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    char text[HR_NUMBER_BYTES_MAX + 1];
    uint64_t digits;
    int64_t power;
    if (span->length > HR_NUMBER_BYTES_MAX) return HR_EVENT_OUT_OF_RANGE;
    if (hr_event_decimal(span, &digits, &power) && digits <= (1ULL << 53) && power >= -HR_EXACT_POWER_MAX &&
        power <= HR_EXACT_POWER_MAX) {
        *value = power < 0 ? (double)digits / powers[-power] : (double)digits * powers[power];
        if (*span->at == '-') *value = -*value;
        return HR_EVENT_OK;
    }
    memcpy(text, span->at, (size_t)span->length);
    text[span->length] = 0;
    *value = strtod_l(text, NULL, plain);
    return isinf(*value) ? HR_EVENT_OUT_OF_RANGE : HR_EVENT_OK;
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar (Hinnant, days_from_civil), for years 1 to 9999. */
static inline int64_t hr_event_days(int64_t year, int64_t month, int64_t day)
{
    int64_t era, of_era, of_year;
    year -= month <= 2;
    era = year / 400;
    of_era = year - era * 400;
    of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* `count` digits at `at`, -1 where one is none; the caller has checked that they lie inside. */
static inline int64_t hr_event_field(const uint8_t *at, int count)
{
    int64_t value = 0;
    for (; count > 0; count--, at++) {
        if (*at < '0' || *at > '9') return -1;
        value = value * 10 + (*at - '0');
    }
    return value;
}

static inline int hr_event_date(const uint8_t *at, int64_t length, int64_t *days)
{
    static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int64_t year, month, day;
    int is_leap;
    if (length != 10 || at[4] != '-' || at[7] != '-') return HR_EVENT_BAD_TIME;
    year = hr_event_field(at, 4);
    month = hr_event_field(at + 5, 2);
    day = hr_event_field(at + 8, 2);
    if (year < 1 || month < 1 || month > 12 || day < 1) return HR_EVENT_BAD_TIME;
    is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > lengths[month - 1] + (month == 2 && is_leap)) return HR_EVENT_BAD_TIME;
    *days = hr_event_days(year, month, day);
    return HR_EVENT_OK;
}

/* Digits behind the point as microseconds; what is finer must be zero. */
static inline int hr_event_fraction(const uint8_t **at, const uint8_t *end, int64_t *us)
{
    int count = 0;
    *us = 0;
    if (*at == end || **at != '.') return HR_EVENT_OK;
    for ((*at)++; *at < end && **at >= '0' && **at <= '9'; (*at)++, count++) {
        if (count < 6) *us = *us * 10 + (**at - '0');
        else if (**at != '0') return HR_EVENT_BAD_TIME;
    }
    if (count == 0 || count > 9) return HR_EVENT_BAD_TIME;
    for (; count < 6; count++) *us *= 10;
    return HR_EVENT_OK;
}

/* RFC 3339 with a zone: 2026-01-31T23:59:59.999999Z or +01:00. */
static inline int hr_event_time(const uint8_t *at, int64_t length, int64_t *us)
{
    const uint8_t *end = at + length;
    int64_t days, hour, minute, second, part, zone_hour, zone_minute;
    int sign;
    if (length < 19 || hr_event_date(at, 10, &days) != HR_EVENT_OK) return HR_EVENT_BAD_TIME;
    if ((at[10] != 'T' && at[10] != 't' && at[10] != ' ') || at[13] != ':' || at[16] != ':') return HR_EVENT_BAD_TIME;
    hour = hr_event_field(at + 11, 2);
    minute = hr_event_field(at + 14, 2);
    second = hr_event_field(at + 17, 2);
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return HR_EVENT_BAD_TIME;
    at += 19;
    if (hr_event_fraction(&at, end, &part) != HR_EVENT_OK) return HR_EVENT_BAD_TIME;
    *us = days * HR_DAY_US + ((hour * 60 + minute) * 60 + second) * 1000000 + part;
    if (at == end) return HR_EVENT_NAIVE_TIME;
    if (end - at == 1 && (*at == 'Z' || *at == 'z')) return HR_EVENT_OK;
    if (end - at != 6 || (*at != '+' && *at != '-') || at[3] != ':') return HR_EVENT_BAD_TIME;
    sign = *at == '-' ? 1 : -1;
    zone_hour = hr_event_field(at + 1, 2);
    zone_minute = hr_event_field(at + 4, 2);
    if (zone_hour < 0 || zone_hour > 23 || zone_minute < 0 || zone_minute > 59) return HR_EVENT_BAD_TIME;
    *us += sign * (zone_hour * 60 + zone_minute) * 60000000;
    return HR_EVENT_OK;
}

static inline int hr_event_base64_digit(uint8_t byte)
{
    if (byte >= 'A' && byte <= 'Z') return byte - 'A';
    if (byte >= 'a' && byte <= 'z') return byte - 'a' + 26;
    if (byte >= '0' && byte <= '9') return byte - '0' + 52;
    return byte == '+' ? 62 : byte == '/' ? 63 : -1;
}

/* Base64 (RFC 4648, with padding) decoded in place; the length, or -1. */
static inline int64_t hr_event_base64(uint8_t *bytes, int64_t length)
{
    int64_t i, padding = 0;
    uint8_t *to = bytes;
    if (length % 4 != 0) return -1;
    if (length > 0 && bytes[length - 1] == '=') padding = 1 + (bytes[length - 2] == '=');
    for (i = 0; i < length; i += 4) {
        uint32_t group = 0;
        int k, kept = i + 4 == length ? 4 - (int)padding : 4;
        for (k = 0; k < 4; k++) {
            int digit = k < kept ? hr_event_base64_digit(bytes[i + k]) : 0;
            if (digit < 0) return -1;
            group = group << 6 | (uint32_t)digit;
        }
        for (k = 0; k < kept - 1; k++) *to++ = (uint8_t)(group >> (16 - 8 * k));
    }
    return to - bytes;
}

#endif
