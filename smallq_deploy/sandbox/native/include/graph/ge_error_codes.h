// SPDX-License-Identifier: Apache-2.0
// Status type of the graph engine.
#ifndef SIM_GRAPH_GE_ERROR_CODES_H_
#define SIM_GRAPH_GE_ERROR_CODES_H_

#include <cstdint>

namespace ge {
using graphStatus = uint32_t;
const graphStatus GRAPH_SUCCESS = 0U;
const graphStatus GRAPH_FAILED = 0xFFFFFFFFU;
const graphStatus GRAPH_PARAM_INVALID = 50331649U;
}  // namespace ge

#endif  // SIM_GRAPH_GE_ERROR_CODES_H_
