// SPDX-License-Identifier: Apache-2.0
// Runs the blocks of a launch. Every block owns a core; at most `threads` of them run at once; SyncAll is a barrier of
// all blocks. What is computed and what is reported do not depend on the number of threads: a finding ends its own
// block, the others run on until they end, find something themselves or wait for a block that ended.
#ifndef SMALLQ_EMU_LAUNCH_H_
#define SMALLQ_EMU_LAUNCH_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "check_bounds.h"
#include "check_cross_core.h"
#include "check_flags.h"
#include "check_operands.h"
#include "check_order.h"
#include "check_taint.h"
#include "core.h"
#include "cost_report.h"

namespace emu {

class LaunchRunner final : public LaunchContext {
public:
    LaunchRunner(const SimLaunch& launch, std::function<void()> kernel)
        : LaunchContext(launch), kernel_(std::move(kernel)) {
        const uint32_t host = std::thread::hardware_concurrency();
        freeSlots_ = launch.threads != 0 ? launch.threads : (host == 0 ? 1 : host);
        traces_.resize(launch.report != nullptr ? launch.blockDim : 0);
    }

    int Run() {
        const uint32_t workers = freeSlots_ < Launch().blockDim ? freeSlots_ : Launch().blockDim;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            try {
                for (uint32_t i = 1; i < workers; ++i) {
                    AddWorker();
                }
            } catch (const std::system_error&) {
                // the host refuses more threads: fewer of them do the same work
            }
        }
        Work();
        // Workers may add workers, but only while they live, so joining in order reaches all of them.
        for (size_t i = 0;; ++i) {
            std::thread worker;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                if (i >= workers_.size()) {
                    break;
                }
                worker = std::move(workers_[i]);
            }
            worker.join();
        }
        return Report();
    }

    void SyncAll(Core& core, Where at) override {
        const SimLaunch& launch = Launch();
        if (launch.blockDim > launch.coreNumAiv) {
            Raise(SIM_BAD_LAUNCH, "SYNC_BLOCKS", "SyncAll", core.Block(), at,
                  "%u blocks on %u vector cores: blocks that are not resident never arrive", launch.blockDim,
                  launch.coreNumAiv);
        }
        std::unique_lock<std::mutex> lock(mutex_);
        if (nextBlock_ < launch.blockDim) {
            AddWorker();  // this thread is held by its block: another one must run the blocks to come
        }
        const uint64_t phase = phase_;
        ++waiting_;
        ++freeSlots_;
        if (waiting_ == launch.blockDim) {
            waiting_ = 0;
            ++phase_;
        }
        NoteDeadlock();
        changed_.notify_all();
        changed_.wait(lock, [this, phase] { return phase_ != phase || stuck_; });
        if (phase_ == phase) {
            throw Finding{SIM_HANG,
                          core.Block(),
                          "SYNC_DEADLOCK",
                          "SyncAll",
                          "waits for ever: " + std::to_string(absent_) + " of " + std::to_string(launch.blockDim) +
                              " blocks ended without arriving",
                          BaseName(at.file) + ":" + std::to_string(at.line)};
        }
        changed_.wait(lock, [this] { return freeSlots_ > 0; });
        --freeSlots_;
    }

private:
    void AddWorker() {
        workers_.emplace_back([this] { Work(); });
    }

    // All blocks that still live wait for blocks that have ended: nothing will ever release them.
    void NoteDeadlock() {
        if (!stuck_ && waiting_ != 0 && ended_ != 0 && ended_ + waiting_ == Launch().blockDim) {
            stuck_ = true;
            absent_ = ended_;
        }
    }

    void Work() {
        std::unique_lock<std::mutex> lock(mutex_);
        while (nextBlock_ < Launch().blockDim) {
            if (freeSlots_ == 0) {
                changed_.wait(lock);
                continue;
            }
            --freeSlots_;
            const uint32_t block = nextBlock_++;
            lock.unlock();
            std::unique_ptr<Finding> finding = RunBlock(block);
            lock.lock();
            ++freeSlots_;
            ++ended_;
            if (finding != nullptr) {
                std::vector<Finding>& list = finding->code == "SYNC_DEADLOCK" ? waits_ : findings_;
                list.push_back(std::move(*finding));
            }
            NoteDeadlock();
            changed_.notify_all();
        }
    }

    std::unique_ptr<Finding> RunBlock(uint32_t block) {
        std::unique_ptr<Finding> result;
        try {
            Core core(*this, block);
            core.Subscribe(std::make_unique<BoundsChecker>());
            core.Subscribe(std::make_unique<FlagChecker>());
            if (Launch().strict != 0) {
                core.Subscribe(std::make_unique<OperandChecker>());
                core.Subscribe(std::make_unique<AccessRecorder>(accesses_));
                core.Subscribe(std::make_unique<OrderChecker>(core));
                core.Subscribe(std::make_unique<TaintChecker>(core));
            }
            if (Launch().report != nullptr) {
                core.Subscribe(std::make_unique<cost::TraceRecorder>(traces_[block]));
            }
            currentCore = &core;
            kernel_();
            core.TellEnd();
        } catch (const Finding& finding) {
            result = std::make_unique<Finding>(finding);
        } catch (const std::exception& error) {
            result = std::make_unique<Finding>(
                Finding{SIM_FINDING, block, "KERNEL_EXCEPTION", "kernel", error.what(), "unknown line"});
        } catch (...) {
            result = std::make_unique<Finding>(Finding{SIM_FINDING, block, "KERNEL_EXCEPTION", "kernel",
                                                       "threw what is no exception", "unknown line"});
        }
        currentCore = nullptr;
        return result;
    }

    // Conflicts between blocks. What else depends on who won such a race - the values - is no finding of its own then.
    // Where a block ended by a finding of its own, that says why others wait for it; otherwise the wait is news.
    void AddConflicts() {
        std::vector<Finding> conflicts;
        accesses_.FindConflicts(&conflicts);
        if (!conflicts.empty()) {
            findings_.erase(std::remove_if(findings_.begin(), findings_.end(),
                                           [](const Finding& finding) {
                                               return finding.code == "UNWRITTEN_TO_GM" ||
                                                      finding.code == "UNWRITTEN_TO_SCALAR" ||
                                                      finding.code == "NAN_FROM_FINITE";
                                           }),
                            findings_.end());
        }
        if (findings_.empty()) {
            findings_ = std::move(waits_);
        }
        findings_.insert(findings_.end(), conflicts.begin(), conflicts.end());
    }

    // One line a finding: the lowest core that has it, and how many others have it at the same place.
    int Report() {
        AddConflicts();
        std::sort(findings_.begin(), findings_.end(),
                  [](const Finding& a, const Finding& b) { return a.block < b.block; });
        std::vector<const Finding*> firsts;
        std::map<std::string, uint32_t> cores;
        int status = SIM_OK;
        for (const Finding& finding : findings_) {
            if (cores[finding.code + finding.api + finding.position]++ == 0) {
                firsts.push_back(&finding);
            }
            // A bad launch explains everything else; a finding explains a hang it caused.
            if (status == SIM_OK || finding.status == SIM_BAD_LAUNCH ||
                (status == SIM_HANG && finding.status == SIM_FINDING)) {
                status = finding.status;
            }
        }
        std::string text;
        for (const Finding* finding : firsts) {
            const uint32_t more = cores[finding->code + finding->api + finding->position] - 1;
            text += finding->code + ": " + finding->api + " on core " + std::to_string(finding->block);
            text += more == 0 ? "" : " (and " + std::to_string(more) + " more)";
            text += ": " + finding->text + " [" + finding->position + "]\n";
        }
        WriteMessage(Launch(), text);
        if (Launch().report != nullptr) {
            WriteReport(*Launch().report, status == SIM_OK ? cost::Report(*this, traces_) : std::string());
        }
        return status;
    }

public:
    static void WriteMessage(const SimLaunch& launch, const std::string& text) {
        if (launch.message != nullptr && launch.messageCapacity != 0) {
            const size_t length = std::min<size_t>(text.size(), launch.messageCapacity - 1);
            std::memcpy(launch.message, text.data(), length);
            launch.message[length] = '\0';
        }
    }

private:
    static void WriteReport(SimReport& report, const std::string& text) {
        const bool fits = text.size() < report.capacity;
        report.length = static_cast<uint32_t>(text.size());
        if (report.text != nullptr && report.capacity != 0) {
            std::memcpy(report.text, text.c_str(), fits ? text.size() + 1 : 0);
            report.text[fits ? text.size() : 0] = '\0';
        }
    }

    std::function<void()> kernel_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::thread> workers_;
    uint32_t freeSlots_;
    uint32_t nextBlock_ = 0;
    uint32_t waiting_ = 0;
    uint32_t ended_ = 0;
    uint64_t phase_ = 0;
    bool stuck_ = false;
    uint32_t absent_ = 0;
    std::vector<Finding> findings_;  // what ended a block, or a conflict between blocks
    std::vector<Finding> waits_;     // of blocks that wait for ended ones
    AccessLog accesses_;
    std::vector<cost::Trace> traces_;  // one a block, when a report is asked for
};

}  // namespace emu

#endif  // SMALLQ_EMU_LAUNCH_H_
