// One thread that stands by to walk one direction while its caller walks the other.
#pragma once

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
        changed_.notify_all();
        thread_.join();
    }

    // Runs both at the same time; where the companion is busy with another caller, one after the other.
    template <class First, class Second>
    void run(First first, Second second) {
        std::unique_lock<std::mutex> mine(caller_, std::try_to_lock);
        if (!mine.owns_lock()) {
            first();
            second();
            return;
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = [](void* context) { (*static_cast<Second*>(context))(); };
            context_ = &second;
        }
        changed_.notify_all();
        first();
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return job_ == nullptr; });
    }

   private:
    void stand_by() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] { return job_ != nullptr || ends_; });
            if (ends_) return;
            lock.unlock();
            job_(context_);
            lock.lock();
            job_ = nullptr;
            changed_.notify_all();
        }
    }

    std::mutex caller_;  // held by the one whose job it is
    std::mutex mutex_;   // guards what follows
    std::condition_variable changed_;
    void (*job_)(void*) = nullptr;
    void* context_ = nullptr;
    bool ends_ = false;
    std::thread thread_;  // last: it uses the others
};

}  // namespace birnn
