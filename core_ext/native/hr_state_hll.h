/* HyperLogLog registers with an estimator that needs +, -, *, / and sqrt alone. */
#ifndef HR_STATE_HLL_H
#define HR_STATE_HLL_H

#include "hr_state_value.h"

enum { HR_REGISTERS = 2048, HR_SPARSE_MAX = 512 };

typedef struct {
    uint8_t *values;  /* HR_REGISTERS */
    uint32_t used;    /* that are not 0 */
} hr_registers;

#endif
