// SPDX-License-Identifier: Apache-2.0
// Optional explicit set-up of the aclnn layer.
#ifndef SIM_ACLNN_ACLNN_BASE_H_
#define SIM_ACLNN_ACLNN_BASE_H_

#include "aclnn/acl_meta.h"

#ifdef __cplusplus
extern "C" {
#endif

ACL_FUNC_VISIBILITY aclnnStatus aclnnInit(const char* configPath);
ACL_FUNC_VISIBILITY aclnnStatus aclnnFinalize();

#ifdef __cplusplus
}
#endif

#endif  // SIM_ACLNN_ACLNN_BASE_H_
