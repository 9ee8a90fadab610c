// SPDX-License-Identifier: Apache-2.0
// Error reporting macros of the build project's utilities.
#ifndef SIM_ERROR_OPS_ERROR_H_
#define SIM_ERROR_OPS_ERROR_H_

#include "log/ops_log.h"

#define OPS_REPORT_VECTOR_INNER_ERR(OPS_DESC, ...) OPS_LOG_E(OPS_DESC, __VA_ARGS__)
#define OPS_REPORT_CUBE_INNER_ERR(OPS_DESC, ...) OPS_LOG_E(OPS_DESC, __VA_ARGS__)
#define OPS_ERR_IF(COND, LOG_FUNC, EXPR) OPS_CHECK(COND, LOG_FUNC, EXPR)

#endif  // SIM_ERROR_OPS_ERROR_H_
