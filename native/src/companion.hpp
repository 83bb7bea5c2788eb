// One thread that stands by to walk one direction while its caller walks the other.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace birnn {

class Companion {
   public:
    Companion() : thread_([this] { stand_by(); }) {}

    ~Companion() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ends_ = true;
        }
        called_.notify_all();
        thread_.join();
    }

    // Runs both, at the same time where the companion comes to it: a thread that is woken may have to wait for a core
    // longer than a walk takes, and its caller then does not wait for it, but walks itself. So does a second caller.
    template <class First, class Second>
    void run(First first, Second second) {
        std::unique_lock<std::mutex> mine(caller_, std::try_to_lock);
        if (!mine.owns_lock()) {
            first();
            second();
            return;
        }
        job_ = [](void* context) { (*static_cast<Second*>(context))(); };
        context_ = &second;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            state_.store(State::offered, std::memory_order_release);
        }
        called_.notify_one();
        first();
        State offered = State::offered;
        if (state_.compare_exchange_strong(offered, State::idle, std::memory_order_acq_rel)) {
            second();
            return;
        }
        await();
        state_.store(State::idle, std::memory_order_relaxed);
    }

   private:
    enum class State { idle, offered, taken, done };

    // How long a caller spins until the companion is done. Both walks take about as long, and to be put to sleep and
    // woken again takes as long as a short one.
    static constexpr std::chrono::microseconds PATIENCE{100};

    void await() {
        const auto end = std::chrono::steady_clock::now() + PATIENCE;
        do {
            for (int turn = 0; turn < 64; turn++) {
                if (state_.load(std::memory_order_acquire) == State::done) return;
            }
        } while (std::chrono::steady_clock::now() < end);
        std::unique_lock<std::mutex> lock(mutex_);
        finished_.wait(lock, [this] { return state_.load(std::memory_order_acquire) == State::done; });
    }

    void stand_by() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            called_.wait(lock, [this] { return ends_ || state_.load(std::memory_order_acquire) == State::offered; });
            if (ends_) return;
            State offered = State::offered;
            if (!state_.compare_exchange_strong(offered, State::taken, std::memory_order_acq_rel)) continue;
            lock.unlock();
            job_(context_);
            lock.lock();
            state_.store(State::done, std::memory_order_release);
            finished_.notify_one();
        }
    }

    std::mutex caller_;  // held by the one whose job it is
    std::mutex mutex_;   // guards waiting
    std::condition_variable called_, finished_;
    std::atomic<State> state_{State::idle};
    void (*job_)(void*) = nullptr;
    void* context_ = nullptr;
    bool ends_ = false;
    std::thread thread_;  // last: it uses the others
};

}  // namespace birnn
