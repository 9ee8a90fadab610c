// SPDX-License-Identifier: Apache-2.0
// Umbrella header of host tiling helpers; only the platform part exists in the simulated toolkit.
#ifndef SIM_TILING_TILING_API_H_
#define SIM_TILING_TILING_API_H_

#include "tiling/platform/platform_ascendc.h"

#endif  // SIM_TILING_TILING_API_H_
