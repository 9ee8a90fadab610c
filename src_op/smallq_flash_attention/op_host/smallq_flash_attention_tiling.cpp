// SPDX-License-Identifier: Apache-2.0
// Checks the shapes, plans the tiles, fills the tiling struct. Every refusal says what was wrong and launches nothing.
#include "smallq_flash_attention_tiling.h"

#include <graph/utils/type_utils.h>
#include "smallq_flash_attention_launch.h"

namespace optiling {
namespace {
constexpr size_t kInputs = 3;
constexpr const char* kInputNames[kInputs] = {"q", "k", "v"};
constexpr size_t kRank = 3;
constexpr size_t kHeadDim = 2;             // index of the head size in a shape
constexpr int64_t kMaxDim = 2147483647;    // dims travel as 32-bit fields
constexpr int64_t kMaxRowBytes = 2097151;  // longest burst of DataCopyPad
constexpr int64_t kHalfBytes = 2;
constexpr uint64_t kMinUb = 32 * 1024;
constexpr uint32_t kAllBlocksAtOnce = 1;  // schedule mode: SyncAll waits for every block
constexpr size_t kLengths = 3;            // input actual_kv_lengths
constexpr size_t kScaleValue = 0;         // attributes
constexpr size_t kCausal = 1;

// What a call asks for.
struct Sizes {
    int64_t kvHeads;
    int64_t group;  // q heads of one K/V head
    int64_t qLen;
    int64_t kvLen;
    int64_t hdK;
    int64_t hdV;
    int64_t headsPerLength;  // 0: no actual lengths
    float scale;
    bool causal;
    bool wide;  // bfloat16
};

struct Platform {
    uint32_t cores;
    uint64_t ubBytes;
    uint64_t l2Bytes;
    uint64_t systemWorkspace;
};

// Every tensor has the type of q.
bool CheckType(gert::TilingContext* context, const char* name, ge::DataType type, ge::DataType wanted) {
    if (type == wanted && (type == ge::DT_FLOAT16 || type == ge::DT_BF16)) {
        return true;
    }
    OPS_LOG_E(context->GetNodeName(), "%s dtype must be float16 or bfloat16 and that of q, got %s", name,
              ge::TypeUtils::DataTypeToSerialString(type).c_str());
    return false;
}

bool CheckRank(gert::TilingContext* context, const char* name, const gert::Shape& shape) {
    if (shape.GetDimNum() == kRank) {
        return true;
    }
    OPS_LOG_E(context->GetNodeName(), "%s must be 3-D [numHeads, len, headDim], got %zu-D", name, shape.GetDimNum());
    return false;
}

bool CheckDims(gert::TilingContext* context, const char* name, const gert::Shape& shape) {
    for (size_t i = 0; i < kRank; ++i) {
        const int64_t dim = shape.GetDim(i);
        if (dim < 1) {
            OPS_LOG_E(context->GetNodeName(), "%s dim %zu must be >= 1, got %ld", name, i, dim);
            return false;
        }
        if (dim > kMaxDim || (i == kHeadDim && dim * kHalfBytes > kMaxRowBytes)) {
            OPS_LOG_E(context->GetNodeName(), "%s dim %zu too large: %ld", name, i, dim);
            return false;
        }
    }
    return true;
}

bool CheckAgreement(gert::TilingContext* context, const gert::Shape& q, const gert::Shape& k, const gert::Shape& v,
                    const gert::Shape& out) {
    if (k.GetDim(0) != v.GetDim(0) || q.GetDim(0) % k.GetDim(0) != 0) {
        OPS_LOG_E(context->GetNodeName(), "numHeads mismatch: q %ld, k %ld, v %ld", q.GetDim(0), k.GetDim(0),
                  v.GetDim(0));
        return false;
    }
    if (k.GetDim(1) != v.GetDim(1)) {
        OPS_LOG_E(context->GetNodeName(), "kvLen mismatch: k %ld, v %ld", k.GetDim(1), v.GetDim(1));
        return false;
    }
    if (k.GetDim(kHeadDim) != q.GetDim(kHeadDim)) {
        OPS_LOG_E(context->GetNodeName(), "head dim mismatch: q %ld, k %ld", q.GetDim(kHeadDim), k.GetDim(kHeadDim));
        return false;
    }
    if (out.GetDim(0) != q.GetDim(0) || out.GetDim(1) != q.GetDim(1) || out.GetDim(kHeadDim) != v.GetDim(kHeadDim)) {
        OPS_LOG_E(context->GetNodeName(), "out shape must be [%ld,%ld,%ld], got [%ld,%ld,%ld]", q.GetDim(0),
                  q.GetDim(1), v.GetDim(kHeadDim), out.GetDim(0), out.GetDim(1), out.GetDim(kHeadDim));
        return false;
    }
    return true;
}

// Reads and checks all shapes and types; the order is the order of the messages in README.md.
bool ReadSizes(gert::TilingContext* context, Sizes* sizes) {
    for (size_t i = 0; i < kInputs; ++i) {
        if (context->GetInputShape(i) == nullptr || context->GetInputDesc(i) == nullptr) {
            OPS_LOG_E(context->GetNodeName(), "input %s shape or desc is null", kInputNames[i]);
            return false;
        }
    }
    if (context->GetOutputShape(0) == nullptr || context->GetOutputDesc(0) == nullptr) {
        OPS_LOG_E(context->GetNodeName(), "output out shape or desc is null");
        return false;
    }
    const ge::DataType type = context->GetInputDesc(0)->GetDataType();
    for (size_t i = 0; i < kInputs; ++i) {
        if (!CheckType(context, kInputNames[i], context->GetInputDesc(i)->GetDataType(), type)) {
            return false;
        }
    }
    if (!CheckType(context, "out", context->GetOutputDesc(0)->GetDataType(), type)) {
        return false;
    }
    const gert::Shape& q = context->GetInputShape(0)->GetStorageShape();
    const gert::Shape& k = context->GetInputShape(1)->GetStorageShape();
    const gert::Shape& v = context->GetInputShape(2)->GetStorageShape();
    const gert::Shape& out = context->GetOutputShape(0)->GetStorageShape();
    if (!CheckRank(context, "q", q) || !CheckRank(context, "k", k) || !CheckRank(context, "v", v) ||
        !CheckRank(context, "out", out)) {
        return false;
    }
    if (!CheckDims(context, "q", q) || !CheckDims(context, "k", k) || !CheckDims(context, "v", v)) {
        return false;
    }
    if (!CheckAgreement(context, q, k, v, out)) {
        return false;
    }
    sizes->wide = type == ge::DT_BF16;
    sizes->kvHeads = k.GetDim(0);
    sizes->group = q.GetDim(0) / k.GetDim(0);
    sizes->qLen = q.GetDim(1);
    sizes->kvLen = k.GetDim(1);
    sizes->hdK = q.GetDim(kHeadDim);
    sizes->hdV = v.GetDim(kHeadDim);
    if (sizes->group > kMaxDim / sizes->qLen) {
        OPS_LOG_E(context->GetNodeName(), "too many q rows of one K/V head: %ld heads of %ld", sizes->group,
                  sizes->qLen);
        return false;
    }
    return true;
}

// The attributes; an interface without them leaves their defaults.
bool ReadAttributes(gert::TilingContext* context, Sizes* sizes) {
    const gert::RuntimeAttrs* attrs = context->GetAttrs();
    const float* scale = attrs == nullptr ? nullptr : attrs->GetAttrPointer<float>(kScaleValue);
    const bool* causal = attrs == nullptr ? nullptr : attrs->GetAttrPointer<bool>(kCausal);
    sizes->scale = scale == nullptr ? 0.0f : *scale;
    sizes->causal = causal != nullptr && *causal;
    if (!(sizes->scale - sizes->scale <= 0.0f)) {
        OPS_LOG_E(context->GetNodeName(), "scale_value must be finite, got %f", static_cast<double>(sizes->scale));
        return false;
    }
    if (fabsf(sizes->scale) <= 0.0f) {
        sizes->scale = SmallqFlashAttention::AttentionScale(static_cast<uint32_t>(sizes->hdK));
    }
    if (sizes->causal && sizes->kvLen < sizes->qLen) {
        OPS_LOG_E(context->GetNodeName(), "causal needs kvLen >= qLen, got kvLen %ld, qLen %ld", sizes->kvLen,
                  sizes->qLen);
        return false;
    }
    return true;
}

// The optional lengths: one for all heads of k, or one for each run of as many heads.
bool ReadLengths(gert::TilingContext* context, Sizes* sizes) {
    sizes->headsPerLength = 0;
    const gert::StorageShape* given = context->GetOptionalInputShape(kLengths);
    if (given == nullptr) {
        return true;
    }
    const gert::CompileTimeTensorDesc* desc = context->GetOptionalInputDesc(kLengths);
    if (desc == nullptr || desc->GetDataType() != ge::DT_INT64) {
        OPS_LOG_E(context->GetNodeName(), "actual_kv_lengths dtype must be int64");
        return false;
    }
    const gert::Shape& shape = given->GetStorageShape();
    if (shape.GetDimNum() != 1) {
        OPS_LOG_E(context->GetNodeName(), "actual_kv_lengths must be 1-D, got %zu-D", shape.GetDimNum());
        return false;
    }
    const int64_t count = shape.GetDim(0);
    if (count < 1 || sizes->kvHeads % count != 0) {
        OPS_LOG_E(context->GetNodeName(),
                  "actual_kv_lengths must have a number of elements that divides %ld heads, "
                  "got %ld",
                  sizes->kvHeads, count);
        return false;
    }
    sizes->headsPerLength = sizes->kvHeads / count;
    return true;
}

bool ReadPlatform(gert::TilingContext* context, Platform* platform) {
    auto info = context->GetPlatformInfo();
    if (info == nullptr) {
        OPS_LOG_E(context->GetNodeName(), "platform info is null");
        return false;
    }
    platform_ascendc::PlatformAscendC ascendc(info);
    platform->cores = ascendc.GetCoreNumAiv();
    platform->ubBytes = 0;
    ascendc.GetCoreMemSize(platform_ascendc::CoreMemType::UB, platform->ubBytes);
    platform->l2Bytes = 0;
    ascendc.GetCoreMemSize(platform_ascendc::CoreMemType::L2, platform->l2Bytes);
    platform->systemWorkspace = ascendc.GetLibApiWorkSpaceSize();
    if (platform->cores == 0 || platform->ubBytes < kMinUb) {
        OPS_LOG_E(context->GetNodeName(), "unusable platform: %u vector cores, %lu bytes of unified buffer",
                  platform->cores, platform->ubBytes);
        return false;
    }
    return true;
}

void Fill(const Sizes& sizes, const SmallqFlashAttention::LaunchPlan& launch, SmallqFlashAttentionTilingData* data) {
    data->set_numHeads(static_cast<uint32_t>(sizes.kvHeads));
    data->set_qLen(static_cast<uint32_t>(sizes.qLen * sizes.group));
    data->set_kvLen(static_cast<uint32_t>(sizes.kvLen));
    data->set_hdK(static_cast<uint32_t>(sizes.hdK));
    data->set_hdV(static_cast<uint32_t>(sizes.hdV));
    data->set_hdKPad(launch.tiles.hdKPad);
    data->set_hdVPad(launch.tiles.hdVPad);
    data->set_kPitch(launch.tiles.kPitch);
    data->set_qTile(launch.tiles.qTile);
    data->set_numQTile(launch.numQTile);
    data->set_blockK(launch.tiles.blockK);
    data->set_stepBlocks(launch.tiles.stepBlocks);
    data->set_partRows(launch.tiles.partRows);
    data->set_castRows(launch.tiles.castRows);
    data->set_qGroup(launch.tiles.qGroup);
    data->set_numSplit(launch.split.numSplit);
    data->set_splitLen(launch.split.splitLen);
    data->set_usedCores(launch.usedCores);
    data->set_itemsPerCore(launch.itemsPerCore);
    data->set_itemsTail(launch.itemsTail);
    data->set_queryLen(static_cast<uint32_t>(sizes.qLen));
    data->set_causal(sizes.causal ? 1 : 0);
    data->set_headsPerLength(static_cast<uint32_t>(sizes.headsPerLength));
    data->set_wide(sizes.wide ? 1 : 0);
    data->set_scale(sizes.scale);
    data->set_wsPartOffset(launch.partOffset);
    data->set_wsStatOffset(launch.statOffset);
    data->set_wsRunOffset(launch.runOffset);
}

// Bytes of K and V together; saturates, only ever compared with the size of L2.
double KeyValueBytes(const Sizes& sizes) {
    return static_cast<double>(sizes.kvHeads) * static_cast<double>(sizes.kvLen) *
           static_cast<double>(sizes.hdK + sizes.hdV) * static_cast<double>(kHalfBytes);
}

ge::graphStatus TilingOfSmallqFlashAttention(gert::TilingContext* context) {
    Sizes sizes = {};
    Platform platform;
    if (!ReadSizes(context, &sizes) || !ReadAttributes(context, &sizes) || !ReadLengths(context, &sizes) ||
        !ReadPlatform(context, &platform)) {
        return ge::GRAPH_FAILED;
    }
    const uint64_t ubLimit =
        platform.ubBytes < SmallqFlashAttention::kUbCeiling ? platform.ubBytes : SmallqFlashAttention::kUbCeiling;
    SmallqFlashAttention::TileProblem problem;
    problem.hdK = static_cast<uint32_t>(sizes.hdK);
    problem.hdV = static_cast<uint32_t>(sizes.hdV);
    problem.qLen = static_cast<uint32_t>(sizes.qLen * sizes.group);
    problem.kvLen = static_cast<uint32_t>(sizes.kvLen);
    problem.wide = sizes.wide ? 1 : 0;
    SmallqFlashAttention::LaunchPlan launch;
    if (!SmallqFlashAttention::PlanLaunch(problem, static_cast<uint32_t>(sizes.kvHeads), platform.cores, ubLimit,
                                          &launch)) {
        OPS_LOG_E(context->GetNodeName(), "too many heads and q rows: %ld and %ld", sizes.kvHeads,
                  sizes.qLen * sizes.group);
        return ge::GRAPH_FAILED;
    }

    SmallqFlashAttentionTilingData data;
    Fill(sizes, launch, &data);
    const bool streams = platform.l2Bytes > 0 && KeyValueBytes(sizes) > static_cast<double>(platform.l2Bytes);
    data.set_l2Hint(launch.numQTile == 1 && streams ? 1 : 0);

    context->SetTilingKey(launch.tilingKey);
    context->SetBlockDim(launch.usedCores);
    if (launch.split.numSplit > 1) {
        context->SetScheduleMode(kAllBlocksAtOnce);
    }
    size_t* workspace = context->GetWorkspaceSizes(1);
    if (workspace == nullptr || context->GetRawTilingData() == nullptr) {
        OPS_LOG_E(context->GetNodeName(), "no room for workspace size or tiling data");
        return ge::GRAPH_FAILED;
    }
    workspace[0] = platform.systemWorkspace + launch.workspaceBytes;
    data.SaveToBuffer(context->GetRawTilingData()->GetData(), context->GetRawTilingData()->GetCapacity());
    context->GetRawTilingData()->SetDataSize(data.GetDataSize());
    return ge::GRAPH_SUCCESS;
}

ge::graphStatus ParseOfSmallqFlashAttention(gert::TilingParseContext* context) {
    (void)context;
    return ge::GRAPH_SUCCESS;
}
}  // namespace

IMPL_OP_OPTILING(SmallqFlashAttention)
    .Tiling(TilingOfSmallqFlashAttention)
    .TilingParse<SmallqFlashAttentionCompileInfo>(ParseOfSmallqFlashAttention);
}  // namespace optiling
