/* XXH3-64 with seed 0 and CRC-32C, written from their specifications; tests compare them with other libraries. */
#ifndef HR_HASH_H
#define HR_HASH_H

#include <stddef.h>

#include "hr_layout.h"

#if defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#elif defined(__x86_64__)
#include <nmmintrin.h>
#endif

/* ---- XXH3, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md ---- */

#define HR_PRIME32_1 0x9E3779B1U
#define HR_PRIME32_2 0x85EBCA77U
#define HR_PRIME32_3 0xC2B2AE3DU
#define HR_PRIME64_1 0x9E3779B185EBCA87ULL
#define HR_PRIME64_2 0xC2B2AE3D27D4EB4FULL
#define HR_PRIME64_3 0x165667B19E3779F9ULL
#define HR_PRIME64_4 0x85EBCA77C2B2AE63ULL
#define HR_PRIME64_5 0x27D4EB2F165667C5ULL
#define HR_PRIME_MX1 0x165667919E3779F9ULL
#define HR_PRIME_MX2 0x9FB21C651E98DF25ULL

enum {
    HR_SECRET_BYTES = 192,
    HR_STRIPE_BYTES = 64,
    HR_STRIPES_PER_BLOCK = (HR_SECRET_BYTES - HR_STRIPE_BYTES) / 8,
    HR_BLOCK_BYTES = HR_STRIPE_BYTES * HR_STRIPES_PER_BLOCK
};

static const uint8_t hr_secret[HR_SECRET_BYTES] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e};

static inline uint64_t hr_rotl64(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

static inline uint64_t hr_mul_fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hr_xxh64_avalanche(uint64_t hash)
{
    hash = (hash ^ hash >> 33) * HR_PRIME64_2;
    hash = (hash ^ hash >> 29) * HR_PRIME64_3;
    return hash ^ hash >> 32;
}

static inline uint64_t hr_xxh3_avalanche(uint64_t hash)
{
    hash = (hash ^ hash >> 37) * HR_PRIME_MX1;
    return hash ^ hash >> 32;
}

static inline uint64_t hr_xxh3_mix(const uint8_t *data, const uint8_t *secret)
{
    return hr_mul_fold(hr_load_u64(data) ^ hr_load_u64(secret), hr_load_u64(data + 8) ^ hr_load_u64(secret + 8));
}

/* The hash of 9 to 16 bytes, given the first eight and the last eight of them. */
static inline uint64_t hr_xxh3_9_to_16(uint64_t first, uint64_t last, size_t length)
{
    uint64_t low = first ^ hr_load_u64(hr_secret + 24) ^ hr_load_u64(hr_secret + 32);
    uint64_t high = last ^ hr_load_u64(hr_secret + 40) ^ hr_load_u64(hr_secret + 48);
    return hr_xxh3_avalanche(length + __builtin_bswap64(low) + high + hr_mul_fold(low, high));
}

/* Of 4 to 8 bytes, given as their first and last four. */
static inline uint64_t hr_xxh3_4_to_8(uint32_t first, uint32_t last, size_t length)
{
    uint64_t low = (uint64_t)first << 32 | last;
    low ^= hr_load_u64(hr_secret + 8) ^ hr_load_u64(hr_secret + 16);
    low ^= hr_rotl64(low, 49) ^ hr_rotl64(low, 24);
    low *= HR_PRIME_MX2;
    low = (low ^ ((low >> 35) + length)) * HR_PRIME_MX2;
    return low ^ low >> 28;
}

static inline uint64_t hr_xxh3_to_16(const uint8_t *data, size_t length)
{
    uint64_t low;
    if (length > 8) return hr_xxh3_9_to_16(hr_load_u64(data), hr_load_u64(data + length - 8), length);
    if (length >= 4) return hr_xxh3_4_to_8(hr_load_u32(data), hr_load_u32(data + length - 4), length);
    if (length == 0) return hr_xxh64_avalanche(hr_load_u64(hr_secret + 56) ^ hr_load_u64(hr_secret + 64));
    low = (uint64_t)data[0] << 16 | (uint64_t)data[length >> 1] << 24 | (uint64_t)length << 8 | data[length - 1];
    return hr_xxh64_avalanche(low ^ (hr_load_u32(hr_secret) ^ hr_load_u32(hr_secret + 4)));
}

static inline uint64_t hr_xxh3_to_128(const uint8_t *data, size_t length)
{
    uint64_t hash = length * HR_PRIME64_1;
    size_t depth;
    for (depth = (length - 1) / 32 + 1; depth-- > 0;) {
        hash += hr_xxh3_mix(data + 16 * depth, hr_secret + 32 * depth);
        hash += hr_xxh3_mix(data + length - 16 * (depth + 1), hr_secret + 32 * depth + 16);
    }
    return hr_xxh3_avalanche(hash);
}

static inline uint64_t hr_xxh3_to_240(const uint8_t *data, size_t length)
{
    uint64_t hash = length * HR_PRIME64_1;
    size_t i, count = length / 16;
    for (i = 0; i < 8; i++) hash += hr_xxh3_mix(data + 16 * i, hr_secret + 16 * i);
    hash = hr_xxh3_avalanche(hash);
    for (i = 8; i < count; i++) hash += hr_xxh3_mix(data + 16 * i, hr_secret + 16 * (i - 8) + 3);
    hash += hr_xxh3_mix(data + length - 16, hr_secret + 119);
    return hr_xxh3_avalanche(hash);
}

static inline void hr_xxh3_stripe(uint64_t *lanes, const uint8_t *data, const uint8_t *secret)
{
    int i;
    for (i = 0; i < 8; i++) {
        uint64_t value = hr_load_u64(data + 8 * i), key = value ^ hr_load_u64(secret + 8 * i);
        lanes[i ^ 1] += value;
        lanes[i] += (key & 0xFFFFFFFFU) * (key >> 32);
    }
}

static inline uint64_t hr_xxh3_long(const uint8_t *data, size_t length)
{
    uint64_t lanes[8] = {HR_PRIME32_3, HR_PRIME64_1, HR_PRIME64_2, HR_PRIME64_3,
                         HR_PRIME64_4, HR_PRIME32_2, HR_PRIME64_5, HR_PRIME32_1};
    const uint8_t *at = data, *last_secret = hr_secret + HR_SECRET_BYTES - HR_STRIPE_BYTES;
    size_t i, block, block_count = (length - 1) / HR_BLOCK_BYTES, stripe_count;
    uint64_t hash;
    for (block = 0; block < block_count; block++, at += HR_BLOCK_BYTES) {
        for (i = 0; i < HR_STRIPES_PER_BLOCK; i++) hr_xxh3_stripe(lanes, at + HR_STRIPE_BYTES * i, hr_secret + 8 * i);
        for (i = 0; i < 8; i++)
            lanes[i] = (lanes[i] ^ lanes[i] >> 47 ^ hr_load_u64(last_secret + 8 * i)) * HR_PRIME32_1;
    }
    stripe_count = (length - 1 - HR_BLOCK_BYTES * block_count) / HR_STRIPE_BYTES;
    for (i = 0; i < stripe_count; i++) hr_xxh3_stripe(lanes, at + HR_STRIPE_BYTES * i, hr_secret + 8 * i);
    hr_xxh3_stripe(lanes, data + length - HR_STRIPE_BYTES, last_secret - 7);
    hash = length * HR_PRIME64_1;
    for (i = 0; i < 4; i++)
        hash += hr_mul_fold(lanes[2 * i] ^ hr_load_u64(hr_secret + 11 + 16 * i),
                            lanes[2 * i + 1] ^ hr_load_u64(hr_secret + 19 + 16 * i));
    return hr_xxh3_avalanche(hash);
}

/* Hash of `length` bytes; `data` may be NULL when there are none. */
static inline uint64_t hr_xxh3_64(const uint8_t *data, size_t length)
{
    if (length <= 16) return hr_xxh3_to_16(data, length);
    if (length <= 128) return hr_xxh3_to_128(data, length);
    if (length <= 240) return hr_xxh3_to_240(data, length);
    return hr_xxh3_long(data, length);
}

/* ---- CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) ---- */

/* A CRC is linear: entry i of a table is the XOR of the entries of i's bits, so eight constants make a table. */
#define HR_CRC32C_AT(i, a, b, c, d, e, f, g, h)                                                              \
    (((i)&1 ? a : 0) ^ ((i)&2 ? b : 0) ^ ((i)&4 ? c : 0) ^ ((i)&8 ? d : 0) ^ ((i)&16 ? e : 0) ^ ((i)&32 ? f : 0) ^ \
     ((i)&64 ? g : 0) ^ ((i)&128 ? h : 0))
#define HR_CRC32C_4(i, ...) \
    HR_CRC32C_AT(i, __VA_ARGS__), HR_CRC32C_AT(i + 1, __VA_ARGS__), HR_CRC32C_AT(i + 2, __VA_ARGS__), \
    HR_CRC32C_AT(i + 3, __VA_ARGS__)
#define HR_CRC32C_16(i, ...) \
    HR_CRC32C_4(i, __VA_ARGS__), HR_CRC32C_4(i + 4, __VA_ARGS__), HR_CRC32C_4(i + 8, __VA_ARGS__), \
    HR_CRC32C_4(i + 12, __VA_ARGS__)
#define HR_CRC32C_64(i, ...) \
    HR_CRC32C_16(i, __VA_ARGS__), HR_CRC32C_16(i + 16, __VA_ARGS__), HR_CRC32C_16(i + 32, __VA_ARGS__), \
    HR_CRC32C_16(i + 48, __VA_ARGS__)
#define HR_CRC32C_TABLE(...) \
    {HR_CRC32C_64(0, __VA_ARGS__), HR_CRC32C_64(64, __VA_ARGS__), HR_CRC32C_64(128, __VA_ARGS__), \
     HR_CRC32C_64(192, __VA_ARGS__)}

/* Table k carries a byte over k more zero bytes, so that eight bytes are taken at a time. */
static const uint32_t hr_crc32c_tables[8][256] = {
    HR_CRC32C_TABLE(0xF26B8303, 0xE13B70F7, 0xC79A971F, 0x8AD958CF, 0x105EC76F, 0x20BD8EDE, 0x417B1DBC, 0x82F63B78),
    HR_CRC32C_TABLE(0x13A29877, 0x274530EE, 0x4E8A61DC, 0x9D14C3B8, 0x3FC5F181, 0x7F8BE302, 0xFF17C604, 0xFBC3FAF9),
    HR_CRC32C_TABLE(0xA541927E, 0x4F6F520D, 0x9EDEA41A, 0x38513EC5, 0x70A27D8A, 0xE144FB14, 0xC76580D9, 0x8B277743),
    HR_CRC32C_TABLE(0xDD45AAB8, 0xBF672381, 0x7B2231F3, 0xF64463E6, 0xE964B13D, 0xD725148B, 0xABA65FE7, 0x52A0C93F),
    HR_CRC32C_TABLE(0x38116FAC, 0x7022DF58, 0xE045BEB0, 0xC5670B91, 0x8F2261D3, 0x1BA8B557, 0x37516AAE, 0x6EA2D55C),
    HR_CRC32C_TABLE(0xEF306B19, 0xDB8CA0C3, 0xB2F53777, 0x6006181F, 0xC00C303E, 0x85F4168D, 0x0E045BEB, 0x1C08B7D6),
    HR_CRC32C_TABLE(0x68032CC8, 0xD0065990, 0xA5E0C5D1, 0x4E2DFD53, 0x9C5BFAA6, 0x3D5B83BD, 0x7AB7077A, 0xF56E0EF4),
    HR_CRC32C_TABLE(0x493C7D27, 0x9278FA4E, 0x211D826D, 0x423B04DA, 0x847609B4, 0x0D006599, 0x1A00CB32, 0x34019664)
};

static inline uint32_t hr_crc32c_portable(uint32_t value, const uint8_t *data, size_t length)
{
    uint64_t word;
    uint32_t crc = ~value;
    for (; length >= 8; data += 8, length -= 8) {
        word = hr_load_u64(data) ^ crc;
        crc = hr_crc32c_tables[7][word & 0xFF] ^ hr_crc32c_tables[6][word >> 8 & 0xFF] ^
              hr_crc32c_tables[5][word >> 16 & 0xFF] ^ hr_crc32c_tables[4][word >> 24 & 0xFF] ^
              hr_crc32c_tables[3][word >> 32 & 0xFF] ^ hr_crc32c_tables[2][word >> 40 & 0xFF] ^
              hr_crc32c_tables[1][word >> 48 & 0xFF] ^ hr_crc32c_tables[0][word >> 56];
    }
    for (; length > 0; data++, length--) crc = crc >> 8 ^ hr_crc32c_tables[0][(crc ^ *data) & 0xFF];
    return ~crc;
}

#if defined(__ARM_FEATURE_CRC32)
static inline uint32_t hr_crc32c(uint32_t value, const uint8_t *data, size_t length)
{
    uint32_t crc = ~value;
    for (; length >= 8; data += 8, length -= 8) crc = __crc32cd(crc, hr_load_u64(data));
    for (; length > 0; data++, length--) crc = __crc32cb(crc, *data);
    return ~crc;
}
#elif defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t hr_crc32c_sse42(uint32_t value, const uint8_t *data, size_t length)
{
    uint64_t crc = (uint32_t)~value;
    for (; length >= 8; data += 8, length -= 8) crc = _mm_crc32_u64(crc, hr_load_u64(data));
    for (; length > 0; data++, length--) crc = _mm_crc32_u8((uint32_t)crc, *data);
    return ~(uint32_t)crc;
}

/* Checksum of `length` bytes, continuing from `value` (0 at the start). */
static inline uint32_t hr_crc32c(uint32_t value, const uint8_t *data, size_t length)
{
    if (__builtin_cpu_supports("sse4.2")) return hr_crc32c_sse42(value, data, length);
    return hr_crc32c_portable(value, data, length);
}
#else
static inline uint32_t hr_crc32c(uint32_t value, const uint8_t *data, size_t length)
{
    return hr_crc32c_portable(value, data, length);
}
#endif

#endif
