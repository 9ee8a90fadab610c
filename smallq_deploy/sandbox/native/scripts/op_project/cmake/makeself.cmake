# CPack hook: turn the staged package tree into a .run (simulated toolkit).
set(_makeself_dir ${CMAKE_CURRENT_LIST_DIR}/util/makeself)
set(_format --gzip --complevel 4 --nomd5 --sha256 @TAR_FORMAT@)
set(_inputs --header ${_makeself_dir}/makeself-header.sh --help-header ./help.info)
execute_process(
    COMMAND bash ${_makeself_dir}/makeself.sh ${_inputs} ${_format} . ${CPACK_PACKAGE_FILE_NAME} version:1.0 ./install.sh
    WORKING_DIRECTORY ${CPACK_TEMPORARY_DIRECTORY}
    RESULT_VARIABLE _packed
)
if(NOT _packed EQUAL 0)
    message(FATAL_ERROR "Packing ${CPACK_PACKAGE_FILE_NAME} failed (${_packed}).")
endif()
# The package goes to the build directory and to the install prefix (the project's output directory).
file(COPY ${CPACK_TEMPORARY_DIRECTORY}/${CPACK_PACKAGE_FILE_NAME} DESTINATION ${CPACK_PACKAGE_DIRECTORY})
if(NOT "${CPACK_PACKAGE_DIRECTORY}" STREQUAL "${CPACK_INSTALL_PREFIX}")
    file(COPY ${CPACK_TEMPORARY_DIRECTORY}/${CPACK_PACKAGE_FILE_NAME} DESTINATION ${CPACK_INSTALL_PREFIX})
endif()
