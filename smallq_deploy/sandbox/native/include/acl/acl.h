// SPDX-License-Identifier: Apache-2.0
// Top header of AscendCL: process set-up, error text, version queries.
#ifndef SIM_ACL_ACL_H_
#define SIM_ACL_ACL_H_

#include "acl/acl_base.h"
#include "acl/acl_rt.h"

#ifdef __cplusplus
extern "C" {
#endif

ACL_FUNC_VISIBILITY aclError aclInit(const char* configPath);
ACL_FUNC_VISIBILITY aclError aclFinalize(void);
// Returns this thread's newest error text and clears it; NULL when there is none. Valid until the next call.
ACL_FUNC_VISIBILITY const char* aclGetRecentErrMsg(void);
ACL_FUNC_VISIBILITY aclError aclsysGetCANNVersion(aclCANNPackageName name, aclCANNPackageVersion* version);
// CANN 8.5 and later; pkgName is a directory of <home>/share/info, versionStr holds at least 128 bytes.
ACL_FUNC_VISIBILITY aclError aclsysGetVersionStr(char* pkgName, char* versionStr);
ACL_FUNC_VISIBILITY aclError aclsysGetVersionNum(char* pkgName, int32_t* versionNum);

#ifdef __cplusplus
}
#endif

#endif  // SIM_ACL_ACL_H_
