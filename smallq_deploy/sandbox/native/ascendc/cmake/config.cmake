# Where things are, and which versions meet.
find_package(Python3 COMPONENTS Interpreter)
if(NOT Python3_FOUND)
    message(FATAL_ERROR "python3 is needed and was not found.")
endif()
set(HI_PYTHON ${Python3_EXECUTABLE} CACHE STRING "Python interpreter.")

# build.sh has already chosen between -p, ASCEND_HOME_PATH, ASCEND_OPP_PATH and the usual places.
set(CUSTOM_ASCEND_CANN_PACKAGE_PATH $ENV{ASCEND_HOME_PATH} CACHE PATH "CANN home.")
set(ASCEND_CANN_PACKAGE_PATH ${CUSTOM_ASCEND_CANN_PACKAGE_PATH})
message(STATUS "CANN: ${ASCEND_CANN_PACKAGE_PATH}")
if(NOT IS_DIRECTORY "${ASCEND_CANN_PACKAGE_PATH}")
    message(FATAL_ERROR "There is no CANN home at '${ASCEND_CANN_PACKAGE_PATH}'.")
endif()

# The packing scripts and the installer come from the toolkit the package is built with.
set(ASCEND_PROJECT_DIR ${ASCEND_CANN_PACKAGE_PATH}/tools/op_project_templates/ascendc/customize)
set(ASCEND_CMAKE_DIR ${ASCEND_PROJECT_DIR}/cmake CACHE STRING "The toolkit's packing scripts.")
set(OP_BUILD_TOOL ${ASCEND_CANN_PACKAGE_PATH}/tools/opbuild/op_build CACHE STRING "The op_build program.")
set(KERNEL_BUILD_TOOL ${ASCEND_CANN_PACKAGE_PATH}/tools/opbuild/kernel_build.py)

set(AUTOGEN_DIR ${CMAKE_BINARY_DIR}/autogen)
set(TILING_DIR ${CMAKE_BINARY_DIR}/tiling)
set(KERNEL_DIR ${CMAKE_BINARY_DIR}/kernel)
file(MAKE_DIRECTORY ${AUTOGEN_DIR} ${TILING_DIR} ${KERNEL_DIR})

set(VENDOR_DIR packages/vendors/${VENDOR_NAME})
set(IMPL_DIR ${VENDOR_DIR}/op_impl/ai_core/tbe)
# Names that operators know from the public project.
set(ASCEND_AUTOGEN_DIR ${AUTOGEN_DIR})
set(ACLNN_INC_INSTALL_DIR ${VENDOR_DIR}/op_api/include)

list(TRANSFORM ASCEND_COMPUTE_UNIT TOLOWER)
message(STATUS "units: ${ASCEND_COMPUTE_UNIT}")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Debug CACHE STRING "Build type." FORCE)
endif()
set(CMAKE_SKIP_RPATH TRUE)
if(CMAKE_INSTALL_PREFIX_INITIALIZED_TO_DEFAULT)
    set(CMAKE_INSTALL_PREFIX ${CMAKE_SOURCE_DIR}/output CACHE STRING "Where the package goes." FORCE)
endif()

# The version of a version.info file without its last part, or an empty text.
function(read_version FILE OUT)
    set(_version "")
    if(EXISTS ${FILE})
        file(STRINGS ${FILE} _lines REGEX "^Version=")
        if(_lines)
            list(GET _lines 0 _version)
            string(REGEX REPLACE "^Version=" "" _version "${_version}")
            string(REGEX REPLACE "\\.[^.]*$" "" _version "${_version}")
        endif()
    endif()
    set(${OUT} "${_version}" PARENT_SCOPE)
endfunction()

# The version in the package's name: the toolkit component's when it fits this project, "none" when it does not or has
# none (always so from CANN 8.5 on), nothing when the check is off.
option(CHECK_COMPATIBLE "Compare this project's version with the toolkit's." ON)
set(CANN_VERSION "")
if(CHECK_COMPATIBLE)
    read_version(${ASCEND_CANN_PACKAGE_PATH}/toolkit/version.info _toolkit_version)
    read_version(${CMAKE_SOURCE_DIR}/version.info _project_version)
    if(_toolkit_version STREQUAL "")
        message(WARNING "No version in ${ASCEND_CANN_PACKAGE_PATH}/toolkit/version.info.")
        set(CANN_VERSION none)
    elseif(NOT _toolkit_version STREQUAL _project_version)
        message(WARNING "This project is for version ${_project_version}, the toolkit has ${_toolkit_version}.")
        set(CANN_VERSION none)
    else()
        string(TOLOWER ${_toolkit_version} CANN_VERSION)
    endif()
endif()
