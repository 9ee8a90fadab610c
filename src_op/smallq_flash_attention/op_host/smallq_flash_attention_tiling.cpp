// SPDX-License-Identifier: Apache-2.0
// Checks the shapes, plans the tiles, fills the tiling struct. Every refusal says what was wrong and launches nothing.
#include "smallq_flash_attention_tiling.h"

#include <graph/utils/type_utils.h>
#include "smallq_flash_attention_planner.h"

namespace optiling {
namespace {
using SmallqFlashAttention::RoundUp;

constexpr size_t kInputs = 3;
constexpr const char* kInputNames[kInputs] = {"q", "k", "v"};
constexpr size_t kRank = 3;
constexpr size_t kHeadDim = 2;             // index of the head size in a shape
constexpr int64_t kMaxDim = 2147483647;    // dims travel as 32-bit fields
constexpr int64_t kMaxRowBytes = 2097151;  // longest burst of DataCopyPad
constexpr int64_t kHalfBytes = 2;
constexpr uint64_t kMinUb = 32 * 1024;
constexpr uint64_t kKeyNormal = 1;
constexpr uint32_t kPathNormal = 1;

struct Sizes {
    int64_t numHeads;
    int64_t qLen;
    int64_t kvLen;
    int64_t hdK;
    int64_t hdV;
};

struct Platform {
    uint32_t cores;
    uint64_t ubBytes;
    uint64_t l2Bytes;
    uint64_t systemWorkspace;
};

bool CheckType(gert::TilingContext* context, const char* name, ge::DataType type) {
    if (type == ge::DT_FLOAT16) {
        return true;
    }
    OPS_LOG_E(context->GetNodeName(), "%s dtype must be float16, got %s", name,
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
    if (k.GetDim(0) != q.GetDim(0) || v.GetDim(0) != q.GetDim(0)) {
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
    for (size_t i = 0; i < kInputs; ++i) {
        if (!CheckType(context, kInputNames[i], context->GetInputDesc(i)->GetDataType())) {
            return false;
        }
    }
    if (!CheckType(context, "out", context->GetOutputDesc(0)->GetDataType())) {
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
    sizes->numHeads = q.GetDim(0);
    sizes->qLen = q.GetDim(1);
    sizes->kvLen = k.GetDim(1);
    sizes->hdK = q.GetDim(kHeadDim);
    sizes->hdV = v.GetDim(kHeadDim);
    if (sizes->hdK > SmallqFlashAttention::kMaxHdK || sizes->hdV > SmallqFlashAttention::kMaxHdV) {
        OPS_LOG_E(context->GetNodeName(), "head dim of q and k must be <= %u and head dim of v <= %u, got %ld and %ld",
                  SmallqFlashAttention::kMaxHdK, SmallqFlashAttention::kMaxHdV, sizes->hdK, sizes->hdV);
        return false;
    }
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

void FillShape(const Sizes& sizes, const SmallqFlashAttention::TilePlan& plan, SmallqFlashAttentionTilingData* data) {
    data->set_numHeads(static_cast<uint32_t>(sizes.numHeads));
    data->set_qLen(static_cast<uint32_t>(sizes.qLen));
    data->set_kvLen(static_cast<uint32_t>(sizes.kvLen));
    data->set_hdK(static_cast<uint32_t>(sizes.hdK));
    data->set_hdV(static_cast<uint32_t>(sizes.hdV));
    data->set_hdKPad(plan.hdKPad);
    data->set_hdVPad(plan.hdVPad);
    data->set_kPitch(plan.kPitch);
    data->set_qTile(plan.qTile);
    data->set_blockK(plan.blockK);
    data->set_stepBlocks(plan.stepBlocks);
    data->set_partRows(plan.partRows);
    data->set_castRows(plan.castRows);
    data->set_qGroup(plan.qGroup);
    data->set_numSplit(1);
    data->set_splitLen(RoundUp(static_cast<uint32_t>(sizes.kvLen), SmallqFlashAttention::kSplitAlign));
    data->set_chunkD(0);
    data->set_path(kPathNormal);
    data->set_scale(SmallqFlashAttention::AttentionScale(static_cast<uint32_t>(sizes.hdK)));
    data->set_wsPartOffset(0);
    data->set_wsStatOffset(0);
    data->set_wsRunOffset(0);
}

// Bytes of K and V together; saturates, only ever compared with the size of L2.
double KeyValueBytes(const Sizes& sizes) {
    return static_cast<double>(sizes.numHeads) * static_cast<double>(sizes.kvLen) *
           static_cast<double>(sizes.hdK + sizes.hdV) * static_cast<double>(kHalfBytes);
}

ge::graphStatus TilingOfSmallqFlashAttention(gert::TilingContext* context) {
    Sizes sizes;
    Platform platform;
    if (!ReadSizes(context, &sizes) || !ReadPlatform(context, &platform)) {
        return ge::GRAPH_FAILED;
    }
    const uint64_t ubLimit =
        platform.ubBytes < SmallqFlashAttention::kUbCeiling ? platform.ubBytes : SmallqFlashAttention::kUbCeiling;
    SmallqFlashAttention::TilePlan plan;
    if (!SmallqFlashAttention::MakePlan(static_cast<uint32_t>(sizes.hdK), static_cast<uint32_t>(sizes.hdV),
                                        static_cast<uint32_t>(sizes.qLen), static_cast<uint32_t>(sizes.kvLen), ubLimit,
                                        &plan)) {
        OPS_LOG_E(context->GetNodeName(), "head dims %ld and %ld do not fit %lu bytes of unified buffer", sizes.hdK,
                  sizes.hdV, ubLimit);
        return ge::GRAPH_FAILED;
    }
    const uint32_t numQTile = SmallqFlashAttention::CeilDiv(static_cast<uint32_t>(sizes.qLen), plan.qTile);
    SmallqFlashAttention::WorkSplit work;
    if (!SmallqFlashAttention::SplitWork(static_cast<uint64_t>(sizes.numHeads) * numQTile, platform.cores, &work)) {
        OPS_LOG_E(context->GetNodeName(), "too many heads and q rows: %ld and %ld", sizes.numHeads, sizes.qLen);
        return ge::GRAPH_FAILED;
    }

    SmallqFlashAttentionTilingData data;
    FillShape(sizes, plan, &data);
    data.set_numQTile(numQTile);
    data.set_usedCores(work.usedCores);
    data.set_itemsPerCore(work.itemsPerCore);
    data.set_itemsTail(work.itemsTail);
    const bool streams = platform.l2Bytes > 0 && KeyValueBytes(sizes) > static_cast<double>(platform.l2Bytes);
    data.set_l2Hint(numQTile == 1 && streams ? 1 : 0);

    context->SetTilingKey(kKeyNormal);
    context->SetBlockDim(work.usedCores);
    size_t* workspace = context->GetWorkspaceSizes(1);
    if (workspace == nullptr || context->GetRawTilingData() == nullptr) {
        OPS_LOG_E(context->GetNodeName(), "no room for workspace size or tiling data");
        return ge::GRAPH_FAILED;
    }
    workspace[0] = platform.systemWorkspace;
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
