# Kernels: for each compute unit and operator, a flat folder with the op_kernel files is compiled by the toolkit's kernel
# builder. A kernel that does not compile leaves a message and no object; the package is made all the same, as by CANN.
set(INDEX_DIR ${KERNEL_DIR}/installed)

# Flat folder of an operator's kernel files: its own and those of the operators it depends on (<op>_depends).
function(flatten_kernel_sources NAME DIRECTORY OUT_DIR OUT_FILES)
    set(_flat ${KERNEL_DIR}/src/${NAME})
    file(GLOB _sources ${DIRECTORY}/op_kernel/*.cpp ${DIRECTORY}/op_kernel/*.h)
    foreach(_depend ${${NAME}_depends})
        if(NOT "${CMAKE_SOURCE_DIR}/src/${_depend}" STREQUAL "${DIRECTORY}")
            file(GLOB _more ${CMAKE_SOURCE_DIR}/src/${_depend}/op_kernel/*.cpp ${CMAKE_SOURCE_DIR}/src/${_depend}/op_kernel/*.h)
            list(APPEND _sources ${_more})
        endif()
    endforeach()
    file(MAKE_DIRECTORY ${_flat})
    set(_copied)
    foreach(_source ${_sources})
        get_filename_component(_file ${_source} NAME)
        configure_file(${_source} ${_flat}/${_file} COPYONLY)
        list(APPEND _copied ${_flat}/${_file})
    endforeach()
    set(${OUT_DIR} ${_flat} PARENT_SCOPE)
    set(${OUT_FILES} ${_copied} PARENT_SCOPE)
endfunction()

add_custom_target(ops_kernel)
if(ENABLE_OPS_KERNEL)
    add_custom_target(ops_kernel_all ALL DEPENDS ops_kernel)
endif()

foreach(_directory ${OP_DIR_LIST})
    get_filename_component(_name ${_directory} NAME)
    flatten_kernel_sources(${_name} ${_directory} _flat _files)
    op_type_of(${_name} _type)
    get_property(_options GLOBAL PROPERTY OPS_OPTIONS_${_type})
    foreach(_unit ${ASCEND_COMPUTE_UNIT})
        get_property(_unit_options GLOBAL PROPERTY OPS_OPTIONS_${_type}_${_unit})
        separate_arguments(_user_options UNIX_COMMAND "${OPS_COMPILE_OPTIONS}")
        add_custom_command(
            OUTPUT ${KERNEL_DIR}/done/${_unit}-${_name}
            COMMAND bash ${CMAKE_SOURCE_DIR}/cmake/scripts/compile_kernel.sh ${HI_PYTHON} ${KERNEL_BUILD_TOOL}
                    ${AUTOGEN_DIR}/aic-${_unit}-ops-info.json ${_unit} ${_name} ${_flat} ${TILING_DIR}/${_name}
                    ${KERNEL_DIR}/bin/${_unit} ${_options} ${_unit_options} ${_user_options}
            COMMAND ${CMAKE_COMMAND} -E make_directory ${KERNEL_DIR}/done
            COMMAND ${CMAKE_COMMAND} -E touch ${KERNEL_DIR}/done/${_unit}-${_name}
            DEPENDS ${_files} opbuild_gen tiling_gen
            COMMENT "[${_unit}] kernels of ${_name}"
            VERBATIM
        )
        add_custom_target(${_name}_${_unit} DEPENDS ${KERNEL_DIR}/done/${_unit}-${_name})
        list(APPEND _kernels_${_unit} ${_name}_${_unit})
    endforeach()
endforeach()

foreach(_unit ${ASCEND_COMPUTE_UNIT})
    if(NOT _kernels_${_unit})
        continue()
    endif()
    add_custom_target(ops_config_${_unit}
        COMMAND bash ${CMAKE_SOURCE_DIR}/cmake/scripts/index_kernels.sh ${HI_PYTHON} ${KERNEL_BUILD_TOOL}
                ${AUTOGEN_DIR}/aic-${_unit}-ops-info.json ${_unit} ${KERNEL_DIR}/bin/${_unit} ${INDEX_DIR}
        COMMENT "[${_unit}] kernel index"
        VERBATIM
    )
    add_dependencies(ops_config_${_unit} ${_kernels_${_unit}})
    add_dependencies(ops_kernel ops_config_${_unit})
endforeach()
