# The package: the vendor tree, version.info, the toolkit's installer, packed by the toolkit's makeself.cmake.
set(_arch ${CMAKE_SYSTEM_PROCESSOR})

if(ENABLE_OPS_HOST)
    install(TARGETS opapi LIBRARY DESTINATION ${VENDOR_DIR}/op_api/lib)
    install(TARGETS opsproto LIBRARY DESTINATION ${VENDOR_DIR}/op_proto/lib/linux/${_arch})
    install(TARGETS optiling LIBRARY DESTINATION ${IMPL_DIR}/op_tiling/lib/linux/${_arch})
    execute_process(COMMAND ${CMAKE_COMMAND} -E create_symlink
        lib/linux/${_arch}/libcust_opmaster_rt2.0.so ${CMAKE_BINARY_DIR}/liboptiling.so)
    install(FILES ${CMAKE_BINARY_DIR}/liboptiling.so DESTINATION ${IMPL_DIR}/op_tiling)
    install(FILES ${ACLNN_HEADERS} DESTINATION ${VENDOR_DIR}/op_api/include)
    install(FILES ${PROTO_HEADERS} DESTINATION ${VENDOR_DIR}/op_proto/inc)
endif()

foreach(_unit ${ASCEND_COMPUTE_UNIT})
    install(FILES ${AUTOGEN_DIR}/aic-${_unit}-ops-info.json DESTINATION ${IMPL_DIR}/config/${_unit} OPTIONAL)
endforeach()

# Kernel sources and the python entry, for compilers that work while a network runs.
foreach(_directory ${OP_DIR_LIST})
    get_filename_component(OP_NAME ${_directory} NAME)
    op_type_of(${OP_NAME} OP_TYPE)
    configure_file(${CMAKE_SOURCE_DIR}/cmake/scripts/dynamic_entry.py.in ${CMAKE_BINARY_DIR}/dynamic/${OP_NAME}.py @ONLY)
    install(FILES ${CMAKE_BINARY_DIR}/dynamic/${OP_NAME}.py DESTINATION ${IMPL_DIR}/${VENDOR_NAME}_impl/dynamic)
    file(GLOB _sources ${_directory}/op_kernel/*.cpp ${_directory}/op_kernel/*.h)
    install(FILES ${_sources} DESTINATION ${IMPL_DIR}/${VENDOR_NAME}_impl/ascendc/${OP_NAME})
    install(DIRECTORY ${_directory}/op_kernel DESTINATION ${IMPL_DIR}/${VENDOR_NAME}_impl/ascendc/${OP_NAME} OPTIONAL)
endforeach()

if(ENABLE_OPS_KERNEL)
    install(DIRECTORY ${INDEX_DIR}/ DESTINATION ${IMPL_DIR}/kernel OPTIONAL)
endif()

# The toolkit's installer with this vendor's name in it.
set(_scripts ${CMAKE_BINARY_DIR}/scripts)
file(COPY ${ASCEND_PROJECT_DIR}/scripts/ DESTINATION ${_scripts})
file(GLOB _installers ${_scripts}/*.sh)
foreach(_installer ${_installers})
    file(READ ${_installer} _text)
    string(REPLACE "vendor_name=customize" "vendor_name=${VENDOR_NAME}" _text "${_text}")
    file(WRITE ${_installer} "${_text}")
endforeach()
install(DIRECTORY ${_scripts}/ DESTINATION . FILE_PERMISSIONS OWNER_READ OWNER_EXECUTE GROUP_READ)

execute_process(
    COMMAND bash ${ASCEND_CMAKE_DIR}/util/gen_version_info.sh ${ASCEND_CANN_PACKAGE_PATH} ${CMAKE_BINARY_DIR}
    RESULT_VARIABLE _written
)
if(NOT _written EQUAL 0)
    message(FATAL_ERROR "Writing version.info failed (${_written}).")
endif()
install(FILES ${CMAKE_BINARY_DIR}/version.info DESTINATION ${VENDOR_DIR})

set(CPACK_PACKAGE_NAME ${CMAKE_PROJECT_NAME})
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR})
set(CPACK_PACKAGE_FILE_NAME CANN-custom_ops-${CANN_VERSION}-linux.${_arch}.run)
set(CPACK_GENERATOR External)
set(CPACK_EXTERNAL_ENABLE_STAGING TRUE)
set(CPACK_EXTERNAL_PACKAGE_SCRIPT ${ASCEND_CMAKE_DIR}/makeself.cmake)
include(CPack)
