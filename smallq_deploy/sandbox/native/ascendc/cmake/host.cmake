# The host targets. Operators add their sources with target_sources(); an empty source keeps a target without operators alive.
set(EMPTY_SOURCE ${CMAKE_BINARY_DIR}/empty.cpp)
file(WRITE ${EMPTY_SOURCE} "")

add_library(intf_pub INTERFACE)
target_include_directories(intf_pub INTERFACE
    ${ASCEND_CANN_PACKAGE_PATH}/include
    ${ASCEND_CANN_PACKAGE_PATH}/include/external
    ${CMAKE_SOURCE_DIR}/src/utils/inc
)
target_link_directories(intf_pub INTERFACE ${ASCEND_CANN_PACKAGE_PATH}/lib64)
target_compile_options(intf_pub INTERFACE -fPIC -O2 -fstack-protector-strong)
# No path of this build in what is built: debug information and __FILE__ name the files relative to project and toolkit.
get_filename_component(_cann_real ${ASCEND_CANN_PACKAGE_PATH} REALPATH)
target_compile_options(intf_pub INTERFACE
    -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.
    -ffile-prefix-map=${CMAKE_BINARY_DIR}=build
    -ffile-prefix-map=${ASCEND_CANN_PACKAGE_PATH}=cann
    -ffile-prefix-map=${_cann_real}=cann
)
# The toolkit's libraries use the old string ABI.
target_compile_definitions(intf_pub INTERFACE _GLIBCXX_USE_CXX11_ABI=0)
target_link_options(intf_pub INTERFACE -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)

# Operator definitions; only op_build loads these. Inner and Exc hold definitions without a public aclnn function.
foreach(_target op_host_aclnn op_host_aclnnInner op_host_aclnnExc)
    add_library(${_target} SHARED EXCLUDE_FROM_ALL ${EMPTY_SOURCE})
    target_compile_options(${_target} PRIVATE -std=gnu++17)
    target_link_libraries(${_target} PRIVATE intf_pub)
endforeach()

# Shape and type inference.
add_library(opsproto SHARED ${EMPTY_SOURCE})
target_compile_options(opsproto PRIVATE -std=c++11 -fvisibility=hidden)
target_link_libraries(opsproto PRIVATE intf_pub)
set_target_properties(opsproto PROPERTIES OUTPUT_NAME cust_opsproto_rt2.0)

# Tiling.
add_library(optiling SHARED ${EMPTY_SOURCE})
target_compile_options(optiling PRIVATE -std=c++11 -fvisibility=hidden)
target_link_libraries(optiling PRIVATE intf_pub)
set_target_properties(optiling PROPERTIES OUTPUT_NAME cust_opmaster_rt2.0)

# The aclnn functions; their sources are generated (generated.cmake).
add_library(opapi SHARED ${EMPTY_SOURCE})
target_compile_options(opapi PRIVATE -std=gnu++17)
target_include_directories(opapi PRIVATE ${ASCEND_CANN_PACKAGE_PATH}/include/aclnn)
target_link_libraries(opapi PRIVATE intf_pub nnopbase)
set_target_properties(opapi PROPERTIES OUTPUT_NAME cust_opapi)
