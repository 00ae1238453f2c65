/* Values at given instants, straight from the events. */
#ifndef HR_WINDOW_HISTORY_H
#define HR_WINDOW_HISTORY_H

#include "hr_window_fold.h"
#include "hr_window_merge.h"
#include "hr_window_update.h"

#endif
