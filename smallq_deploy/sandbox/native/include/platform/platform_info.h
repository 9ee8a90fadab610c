// SPDX-License-Identifier: Apache-2.0
// Kept for sources that include this name; everything is in platform_infos_def.h.
#ifndef SIM_PLATFORM_PLATFORM_INFO_H_
#define SIM_PLATFORM_PLATFORM_INFO_H_

#include "platform/platform_infos_def.h"

#endif  // SIM_PLATFORM_PLATFORM_INFO_H_
