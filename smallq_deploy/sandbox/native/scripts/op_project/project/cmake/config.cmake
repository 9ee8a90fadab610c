# Settings that CMakePresets.json left out, and where generated files go.
set(vendor_name "customize" CACHE STRING "Name of the vendor directory.")
set(ASCEND_CANN_PACKAGE_PATH "/usr/local/Ascend/latest" CACHE PATH "CANN home.")
set(ASCEND_PYTHON_EXECUTABLE "python3" CACHE STRING "Python interpreter.")
set(ASCEND_COMPUTE_UNIT "ascend910b" CACHE STRING "Chips to build for.")
option(ENABLE_SOURCE_PACKAGE "Put the kernel sources into the package." ON)
option(ENABLE_BINARY_PACKAGE "Put compiled kernels into the package." ON)
set(CMAKE_SKIP_RPATH TRUE)

if(NOT IS_DIRECTORY "${ASCEND_CANN_PACKAGE_PATH}")
    message(FATAL_ERROR "There is no CANN home at '${ASCEND_CANN_PACKAGE_PATH}'.")
endif()
set(OP_BUILD_TOOL ${ASCEND_CANN_PACKAGE_PATH}/tools/opbuild/op_build)
set(KERNEL_BUILD_TOOL ${ASCEND_CANN_PACKAGE_PATH}/tools/opbuild/kernel_build.py)

set(ASCEND_AUTOGEN_PATH ${CMAKE_BINARY_DIR}/autogen)
set(TILING_DIR ${CMAKE_BINARY_DIR}/tiling)
set(BINARY_DIR ${CMAKE_BINARY_DIR}/op_kernel/binary)
file(MAKE_DIRECTORY ${ASCEND_AUTOGEN_PATH} ${TILING_DIR} ${BINARY_DIR})

set(VENDOR_DIR packages/vendors/${vendor_name})
set(IMPL_DIR ${VENDOR_DIR}/op_impl/ai_core/tbe)

add_library(intf_pub INTERFACE)
target_include_directories(intf_pub INTERFACE ${ASCEND_CANN_PACKAGE_PATH}/include ${CMAKE_SOURCE_DIR}/op_kernel)
target_link_directories(intf_pub INTERFACE ${ASCEND_CANN_PACKAGE_PATH}/lib64)
target_compile_options(intf_pub INTERFACE -fPIC -fvisibility=hidden -std=c++11 -O2 -fstack-protector-strong)
# No path of this build in what is built.
get_filename_component(_cann_real ${ASCEND_CANN_PACKAGE_PATH} REALPATH)
target_compile_options(intf_pub INTERFACE
    -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.
    -ffile-prefix-map=${ASCEND_CANN_PACKAGE_PATH}=cann
    -ffile-prefix-map=${_cann_real}=cann
)
# The toolkit's libraries use the old string ABI.
target_compile_definitions(intf_pub INTERFACE _GLIBCXX_USE_CXX11_ABI=0)
target_link_options(intf_pub INTERFACE -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
