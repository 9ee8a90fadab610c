// SPDX-License-Identifier: Apache-2.0
// Printable names of data types and formats.
#ifndef SIM_GRAPH_UTILS_TYPE_UTILS_H_
#define SIM_GRAPH_UTILS_TYPE_UTILS_H_

#include <string>

#include "graph/types.h"

namespace ge {

namespace sim {
// Name as in the enum without its DT_ prefix, the spelling error messages use.
inline const char* DataTypeName(DataType type) {
    switch (type) {
        case DT_FLOAT:
            return "FLOAT";
        case DT_FLOAT16:
            return "FLOAT16";
        case DT_INT8:
            return "INT8";
        case DT_INT32:
            return "INT32";
        case DT_UINT8:
            return "UINT8";
        case DT_INT16:
            return "INT16";
        case DT_UINT16:
            return "UINT16";
        case DT_UINT32:
            return "UINT32";
        case DT_INT64:
            return "INT64";
        case DT_UINT64:
            return "UINT64";
        case DT_DOUBLE:
            return "DOUBLE";
        case DT_BOOL:
            return "BOOL";
        case DT_STRING:
            return "STRING";
        case DT_COMPLEX64:
            return "COMPLEX64";
        case DT_COMPLEX128:
            return "COMPLEX128";
        case DT_BF16:
            return "BF16";
        case DT_INT4:
            return "INT4";
        case DT_UINT1:
            return "UINT1";
        case DT_COMPLEX32:
            return "COMPLEX32";
        default:
            return "UNDEFINED";
    }
}

inline const char* FormatName(Format format) {
    switch (format) {
        case FORMAT_NCHW:
            return "NCHW";
        case FORMAT_NHWC:
            return "NHWC";
        case FORMAT_ND:
            return "ND";
        case FORMAT_NC1HWC0:
            return "NC1HWC0";
        case FORMAT_FRACTAL_Z:
            return "FRACTAL_Z";
        case FORMAT_FRACTAL_NZ:
            return "FRACTAL_NZ";
        case FORMAT_NCDHW:
            return "NCDHW";
        case FORMAT_NCL:
            return "NCL";
        default:
            return "RESERVED";
    }
}
}  // namespace sim

class TypeUtils {
public:
    static std::string DataTypeToSerialString(const DataType type) {
        return std::string("DT_") + sim::DataTypeName(type);
    }
    static std::string FormatToSerialString(const Format format) { return sim::FormatName(format); }
};

}  // namespace ge

#endif  // SIM_GRAPH_UTILS_TYPE_UTILS_H_
