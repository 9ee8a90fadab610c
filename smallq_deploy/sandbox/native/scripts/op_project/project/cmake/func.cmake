# Functions that the two source directories call.

# What /etc/os-release calls the system, for the package's name.
function(system_name OUT)
    set(_name linux)
    if(EXISTS /etc/os-release)
        file(STRINGS /etc/os-release _lines REGEX "^ID=")
        if(_lines)
            list(GET _lines 0 _name)
            string(REGEX REPLACE "^ID=|\"" "" _name "${_name}")
        endif()
    endif()
    set(${OUT} ${_name} PARENT_SCOPE)
endfunction()

# opbuild(OPS_SRC <source>... OUT_DIR <dir>): while CMake configures, the definitions become the aclnn sources, the
# prototype headers and the operator information of each chip.
function(opbuild)
    cmake_parse_arguments(ARG "" "OUT_DIR" "OPS_SRC" ${ARGN})
    set(_library ${ARG_OUT_DIR}/libascend_all_ops.so)
    execute_process(
        COMMAND ${CMAKE_CXX_COMPILER} -fPIC -shared -std=c++11 -D_GLIBCXX_USE_CXX11_ABI=0 -w ${ARG_OPS_SRC}
                -I ${ASCEND_CANN_PACKAGE_PATH}/include -I ${CMAKE_SOURCE_DIR}/op_kernel -o ${_library}
        RESULT_VARIABLE _compiled
    )
    if(NOT _compiled EQUAL 0)
        message(FATAL_ERROR "The operator definitions do not compile.")
    endif()
    execute_process(
        COMMAND ${CMAKE_COMMAND} -E env OPS_ACLNN_GEN=1 OPS_PROTO_SEPARATE=1 OPS_PROJECT_NAME=aclnn
                ${OP_BUILD_TOOL} ${_library} ${ARG_OUT_DIR}
        RESULT_VARIABLE _generated
    )
    if(NOT _generated EQUAL 0)
        message(FATAL_ERROR "op_build failed.")
    endif()
endfunction()

# add_ops_compile_options(<OpType> OPTIONS <option>...): options of the kernel compiler, ALL for every operator.
function(add_ops_compile_options OP_TYPE)
    cmake_parse_arguments(ARG "" "" "COMPUTE_UNIT;OPTIONS" ${ARGN})
    set_property(GLOBAL APPEND PROPERTY OPS_OPTIONS_${OP_TYPE} ${ARG_OPTIONS})
endfunction()

# OpType of a kernel file: vec_add_sample -> VecAddSample.
function(op_type_of NAME OUT)
    string(REPLACE "_" ";" _parts ${NAME})
    set(_type "")
    foreach(_part ${_parts})
        string(SUBSTRING ${_part} 0 1 _first)
        string(SUBSTRING ${_part} 1 -1 _rest)
        string(TOUPPER ${_first} _first)
        string(APPEND _type ${_first}${_rest})
    endforeach()
    set(${OUT} ${_type} PARENT_SCOPE)
endfunction()

# add_kernels_compile(): the kernels of every operator that has a configuration for a chip, and their index. A kernel
# that does not compile leaves a message and no object; the package is made all the same, as by CANN.
function(add_kernels_compile)
    add_custom_target(binary)
    file(GLOB _sources ${CMAKE_SOURCE_DIR}/op_kernel/*.cpp ${CMAKE_SOURCE_DIR}/op_kernel/*.h)
    file(GLOB _kernels ${CMAKE_SOURCE_DIR}/op_kernel/*.cpp)
    if(ENABLE_SOURCE_PACKAGE)
        install(FILES ${_sources} DESTINATION ${IMPL_DIR}/${vendor_name}_impl/dynamic)
    endif()
    get_property(_common GLOBAL PROPERTY OPS_OPTIONS_ALL)
    foreach(_unit ${ASCEND_COMPUTE_UNIT})
        set(_info ${ASCEND_AUTOGEN_PATH}/aic-${_unit}-ops-info.json)
        if(NOT EXISTS ${_info})
            message(STATUS "[${_unit}] no operator has a configuration for this chip")
            continue()
        endif()
        install(FILES ${_info} DESTINATION ${IMPL_DIR}/config/${_unit})
        if(NOT ENABLE_BINARY_PACKAGE)
            continue()
        endif()
        file(READ ${_info} _ops)
        add_custom_target(ascendc_bin_${_unit}_gen_ops_config
            COMMAND bash ${CMAKE_SOURCE_DIR}/cmake/util/index_kernels.sh ${ASCEND_PYTHON_EXECUTABLE} ${KERNEL_BUILD_TOOL}
                    ${_info} ${_unit} ${BINARY_DIR}/bin/${_unit} ${BINARY_DIR}/installed
            VERBATIM
        )
        foreach(_kernel ${_kernels})
            get_filename_component(_name ${_kernel} NAME_WE)
            string(FIND "${_ops}" "\"${_name}\"" _found)
            if(_found EQUAL -1)
                continue()
            endif()
            op_type_of(${_name} _type)
            get_property(_options GLOBAL PROPERTY OPS_OPTIONS_${_type})
            add_custom_target(${_type}_${_unit}
                COMMAND bash ${CMAKE_SOURCE_DIR}/cmake/util/compile_kernel.sh ${ASCEND_PYTHON_EXECUTABLE}
                        ${KERNEL_BUILD_TOOL} ${_info} ${_unit} ${_name} ${CMAKE_SOURCE_DIR}/op_kernel
                        ${TILING_DIR}/${_name} ${BINARY_DIR}/bin/${_unit} ${_common} ${_options}
                DEPENDS tiling_gen
                VERBATIM
            )
            add_dependencies(ascendc_bin_${_unit}_gen_ops_config ${_type}_${_unit})
        endforeach()
        add_dependencies(binary ascendc_bin_${_unit}_gen_ops_config)
    endforeach()
    install(DIRECTORY ${BINARY_DIR}/installed/ DESTINATION ${IMPL_DIR}/kernel OPTIONAL)
endfunction()
