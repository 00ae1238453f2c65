/* Bodies of the functions that hr_state.h declares. */
#ifndef HR_STATE_RUN_H
#define HR_STATE_RUN_H

#endif
