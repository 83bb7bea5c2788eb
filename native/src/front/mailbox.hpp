// What passes between the front end's thread and the one behind it.

#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <system_error>
#include <vector>

#include "birnn_front.h"

namespace birnn::front {

struct Event {
    Event(uint64_t id, uint32_t news, int32_t method = -1, double timeout = -1)
        : id(id), news(news), method(method), timeout(timeout) {}

    uint64_t id;
    uint32_t news;
    int32_t method;
    double timeout;
    uint64_t length = 0;
    std::string message, metadata;
    bool counted = false;  // whether the message counts as unread until it was handed over
};

// An eventfd.
class Signal {
   public:
    Signal() : descriptor(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
        if (descriptor < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
    }
    ~Signal() { close(descriptor); }
    Signal(const Signal&) = delete;
    Signal& operator=(const Signal&) = delete;

    void raise() const {
        const uint64_t one = 1;
        while (write(descriptor, &one, sizeof one) < 0 && errno == EINTR) {
        }
    }

    void lower() const {
        uint64_t count;
        while (read(descriptor, &count, sizeof count) < 0 && errno == EINTR) {
        }
    }

    const int descriptor;
};

class Mailbox {
   public:
    // Of the front end's thread: events that have gathered, to the other one.
    void publish(std::vector<Event>& gathered) {
        if (gathered.empty()) return;
        bool raise;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            raise = events_.empty();
            for (Event& event : gathered) events_.push_back(std::move(event));
        }
        gathered.clear();
        if (raise) ready.raise();
    }

    // Of the front end's thread: whether it may sleep. Then it is woken by what comes.
    bool sleep() {
        asleep_ = true;
        std::lock_guard<std::mutex> lock(mutex_);
        return commands_.empty();
    }

    // Of the front end's thread: commands, and the calls whose messages were handed over.
    void collect(std::vector<std::string>& commands, std::vector<uint64_t>& handed) {
        asleep_ = false;
        std::lock_guard<std::mutex> lock(mutex_);
        commands.swap(commands_);
        handed.swap(handed_);
    }

    // Of the other thread: the next events, at most so many of so many bytes.
    void take(std::vector<Event>& events, size_t most, size_t bytes) {
        events.clear();
        std::lock_guard<std::mutex> lock(mutex_);
        for (size_t size = 0; events.size() < most && size < bytes && !events_.empty(); events_.pop_front()) {
            Event& event = events_.front();
            size += event.message.size();
            if (event.counted) handed_.push_back(event.id);
            events.push_back(std::move(event));
        }
        if (events_.empty()) ready.lower();
    }

    void send(std::string&& commands) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            commands_.push_back(std::move(commands));
        }
        if (asleep_) wake.raise();
    }

    const Signal ready, wake;

   private:
    std::mutex mutex_;
    std::deque<Event> events_;
    std::vector<std::string> commands_;
    std::vector<uint64_t> handed_;
    std::atomic<bool> asleep_{false};
};

}  // namespace birnn::front
