/* A lock for what many threads read and few write: a reader takes a part of its own, so that readers share no memory that
 * they write; a writer takes every part. Not recursive. */
#ifndef HR_LOCK_H
#define HR_LOCK_H

#include <pthread.h>
#include <stdint.h>

enum { HR_LOCK_PARTS = 16, HR_LOCK_PART_BYTES = 128 };  /* two cache lines, as they are fetched in pairs */

typedef union {
    pthread_rwlock_t lock;
    uint8_t room[HR_LOCK_PART_BYTES];
} hr_lock_part;

typedef struct {
    hr_lock_part parts[HR_LOCK_PARTS];
} hr_lock;

/* Writers go first: readers that follow one another without a gap would keep a new value out for ever. */
static inline int hr_lock_init(hr_lock *lock)
{
    pthread_rwlockattr_t kind;
    int status = 0;
    pthread_rwlockattr_init(&kind);
#ifdef __GLIBC__
    pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    for (int i = 0; i < HR_LOCK_PARTS; i++) status |= pthread_rwlock_init(&lock->parts[i].lock, &kind);
    pthread_rwlockattr_destroy(&kind);
    return status;
}

static inline void hr_lock_destroy(hr_lock *lock)
{
    for (int i = 0; i < HR_LOCK_PARTS; i++) pthread_rwlock_destroy(&lock->parts[i].lock);
}

/* The calling thread's part, the same as long as it lives. */
static inline pthread_rwlock_t *hr_lock_own_part(hr_lock *lock)
{
    static uint32_t thread_count;     /* atomic */
    static __thread uint32_t number;  /* from 1 on */
    if (number == 0) number = 1 + __atomic_fetch_add(&thread_count, 1, __ATOMIC_RELAXED) % HR_LOCK_PARTS;
    return &lock->parts[number - 1].lock;
}

static inline void hr_lock_shared(hr_lock *lock) { pthread_rwlock_rdlock(hr_lock_own_part(lock)); }

static inline void hr_unlock_shared(hr_lock *lock) { pthread_rwlock_unlock(hr_lock_own_part(lock)); }

static inline void hr_lock_alone(hr_lock *lock)
{
    for (int i = 0; i < HR_LOCK_PARTS; i++) pthread_rwlock_wrlock(&lock->parts[i].lock);
}

static inline void hr_unlock_alone(hr_lock *lock)
{
    for (int i = HR_LOCK_PARTS - 1; i >= 0; i--) pthread_rwlock_unlock(&lock->parts[i].lock);
}

#endif
