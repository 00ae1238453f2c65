/* Whether bytes are UTF-8 (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF). */
#ifndef HR_UTF8_H
#define HR_UTF8_H

#include <stddef.h>

#include "hr_layout.h"

/* The text after its ASCII start. */
static inline int hr_is_utf8_mixed(const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        uint8_t lead = *at++, low = 0x80, high = 0xBF;
        int more;
        if (lead < 0x80) continue;
        if (lead < 0xC2 || lead > 0xF4) return 0;
        more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        if (end - at < more) return 0;
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
        for (; more-- > 0; low = 0x80, high = 0xBF, at++)
            if (*at < low || *at > high) return 0;
    }
    return 1;
}

/* `at` may be NULL when there are no bytes. */
static inline int hr_is_utf8(const uint8_t *at, size_t length)
{
    for (; length >= 8 && (hr_load_u64(at) & 0x8080808080808080ULL) == 0; at += 8) length -= 8;
    return length == 0 || hr_is_utf8_mixed(at, at + length);
}

#endif
