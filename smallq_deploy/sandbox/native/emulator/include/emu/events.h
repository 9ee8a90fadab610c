// SPDX-License-Identifier: Apache-2.0
// What an instruction tells its observers before it runs. The arithmetic knows no checker: it describes itself in one
// of these events and every checker subscribed to the core (and, later, the pipe-order checker and the cost model)
// reads it.
#ifndef SMALLQ_EMU_EVENTS_H_
#define SMALLQ_EMU_EVENTS_H_

#include <cstdint>

#include "finding.h"
#include "platform.h"

namespace emu {

class Core;

enum class Number : uint8_t { kOther, kHalf, kBfloat, kFloat };

// One UB operand of a vector instruction. All lengths and strides in bytes, all positions relative to the start of UB.
struct UbOperand {
    const char* name;
    uint32_t address;
    uint32_t end;    // first byte after the tensor
    uint32_t lanes;  // elements a repeat touches when no mask applies
    uint32_t elementSize;
    uint32_t blockStride;
    uint32_t repeatStride;
    bool masked;         // the lane mask selects its elements
    uint32_t alignment;  // bytes its address must be a multiple of
};

enum class Shape : uint8_t {
    kElementwise,  // result lane i from source lanes i
    kFill,         // no source
    kBlockReduce,  // result element b from the lanes of block b
    kWholeReduce,  // every result element from all lanes of the repeat
    kBroadcast,    // result block b from source element b
};

// A vector instruction. operands[0] is the destination.
struct VectorEvent {
    const char* api;
    Shape shape;
    bool accumulates;  // the destination is read, too
    uint32_t lanes;    // lanes of a repeat: 64 or 128
    uint32_t repeats;
    uint64_t mask[2];  // active lanes of every repeat but the last
    uint64_t tail[2];  // active lanes of the last repeat
    uint32_t operandCount;
    UbOperand operands[3];
    Where at;
};

// A copy between GM and UB: rows of rowBytes; in UB a row may carry padding before and after.
struct CopyEvent {
    const char* api;
    bool toGm;
    Number number;
    uint32_t elementSize;
    uint64_t gm;
    uint64_t gmStep;  // start of one row to the start of the next
    uint64_t gmBase;  // the GlobalTensor's buffer; gmSize 0: no size was given
    uint64_t gmSize;
    uint32_t ub;
    uint32_t ubStep;
    uint32_t ubEnd;
    AscendC::TPosition position;
    uint32_t rows;
    uint32_t rowBytes;
    uint32_t leftBytes;    // padding elements before a row, in UB
    uint32_t rightBytes;   // and after it
    uint32_t fillerBytes;  // bytes after that up to the next 32-byte block, which the hardware leaves undefined
    bool padWritten;       // false: the padding holds undefined bytes, too
    uint32_t granule;      // bytes GM is written in: 1 byte exact, 32 whole lines
    Where at;
};

// GetValue / SetValue.
struct ScalarEvent {
    const char* api;
    bool inGm;
    bool write;
    uint64_t address;  // GM address, or position in UB
    uint64_t base;     // GM: the tensor's buffer; UB: position of the tensor
    uint64_t limit;    // GM: its size in bytes, 0 unknown; UB: first byte after the tensor
    uint32_t size;
    Where at;
};

enum class SyncKind : uint8_t { kSet, kWait, kPipeBarrier, kSyncAll };

struct SyncEvent {
    const char* api;
    SyncKind kind;
    AscendC::HardEvent event;  // kSet, kWait
    int32_t id;                // kSet, kWait
    pipe_t pipe;               // kPipeBarrier
    Where at;
};

// UB bytes [begin, end) now belong to a new owner: their old contents mean nothing.
struct BufferEvent {
    const char* api;
    uint32_t begin;
    uint32_t end;
    Where at;
};

class Checker {
public:
    virtual ~Checker() = default;
    virtual void OnVector(const Core&, const VectorEvent&) {}
    virtual void OnCopy(const Core&, const CopyEvent&) {}
    virtual void OnScalar(const Core&, const ScalarEvent&) {}
    virtual void OnSync(const Core&, const SyncEvent&) {}
    virtual void OnBuffer(const Core&, const BufferEvent&) {}
    virtual void OnKernelEnd(const Core&) {}
};

}  // namespace emu

#endif  // SMALLQ_EMU_EVENTS_H_
