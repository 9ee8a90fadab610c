# op_build: the definitions become the aclnn API, the prototype headers and the operator information; the tiling library
# becomes the tiling structure that the kernels include.

# op_build's file names follow from the name of the source file: <operator>_def.cpp.
function(operators_of TARGET OUT)
    get_target_property(_sources ${TARGET} SOURCES)
    set(_names)
    foreach(_source ${_sources})
        if(_source STREQUAL EMPTY_SOURCE)
            continue()
        endif()
        get_filename_component(_name ${_source} NAME_WE)
        string(REGEX REPLACE "_def$" "" _name ${_name})
        list(APPEND _names ${_name})
    endforeach()
    set(${OUT} ${_names} PARENT_SCOPE)
endfunction()

foreach(_target op_host_aclnnInner op_host_aclnnExc)
    operators_of(${_target} _names)
    if(_names)
        message(FATAL_ERROR "The simulated toolkit builds operators of op_host_aclnn only, not of ${_target}: ${_names}")
    endif()
endforeach()

operators_of(op_host_aclnn _names)
set(_aclnn_sources)
set(ACLNN_HEADERS)
set(PROTO_HEADERS)
foreach(_name ${_names})
    list(APPEND _aclnn_sources ${AUTOGEN_DIR}/aclnn_${_name}.cpp)
    list(APPEND ACLNN_HEADERS ${AUTOGEN_DIR}/aclnn_${_name}.h)
    list(APPEND PROTO_HEADERS ${AUTOGEN_DIR}/${_name}_proto.h)
endforeach()

if(_names)
    add_custom_command(
        OUTPUT ${_aclnn_sources} ${ACLNN_HEADERS} ${PROTO_HEADERS}
        COMMAND ${CMAKE_COMMAND} -E env OPS_ACLNN_GEN=1 OPS_PROTO_SEPARATE=1 OPS_PROJECT_NAME=aclnn
                ${OP_BUILD_TOOL} $<TARGET_FILE:op_host_aclnn> ${AUTOGEN_DIR}
        DEPENDS op_host_aclnn
        COMMENT "op_build: aclnn API, prototypes, operator information"
        VERBATIM
    )
endif()
add_custom_target(opbuild_gen DEPENDS ${_aclnn_sources} ${ACLNN_HEADERS} ${PROTO_HEADERS})
target_sources(opapi PRIVATE ${_aclnn_sources})
target_include_directories(opapi PRIVATE ${AUTOGEN_DIR})
add_dependencies(opapi opbuild_gen)
# The name that operators know from the public project.
add_custom_target(opbuild_gen_default DEPENDS opbuild_gen)

add_custom_command(
    OUTPUT ${TILING_DIR}/done
    COMMAND ${OP_BUILD_TOOL} --tiling-header $<TARGET_FILE:optiling> ${TILING_DIR}
    COMMAND ${CMAKE_COMMAND} -E touch ${TILING_DIR}/done
    DEPENDS optiling
    COMMENT "op_build: tiling structures"
    VERBATIM
)
add_custom_target(tiling_gen DEPENDS ${TILING_DIR}/done)

# What "build everything" means for the package.
add_custom_target(prepare_build ALL DEPENDS opbuild_gen tiling_gen)
