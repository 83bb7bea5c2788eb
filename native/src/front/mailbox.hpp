// What passes between the front end's thread and the one behind it.

#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "birnn_front.h"
#include "ledger.hpp"

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
    // What counts for a peer until the event was taken. So what waits to be taken is bounded as all else is.
    Owner* owner = nullptr;
    Held held;
};

// A list, because no memory is needed to pass its parts on.
using Events = std::list<Event>;

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
    using Given = std::vector<std::pair<Owner*, Held>>;

    // Of the front end's thread: events that have gathered, and how much was refused, to the other one.
    void publish(Events& gathered, Held& refused) {
        if (gathered.empty() && !any(refused)) return;
        bool raise;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            raise = events_.empty() && !any(refused_);
            events_.splice(events_.end(), gathered);
            for (const Kind kind : KINDS) refused_.*kind += refused.*kind;
        }
        refused = {};
        if (raise) ready.raise();
    }

    // Of the front end's thread: whether it may sleep. Then it is woken by what comes.
    bool sleep() {
        asleep_ = true;
        std::lock_guard<std::mutex> lock(mutex_);
        return commands_.empty();
    }

    // Of the front end's thread: commands, and what no longer counts, as its events were taken.
    void collect(std::vector<std::string>& commands, Given& given) {
        asleep_ = false;
        std::lock_guard<std::mutex> lock(mutex_);
        commands.swap(commands_);
        given.swap(given_);
    }

    // Of the other thread: the next events, at most so many of so many bytes.
    void take(Events& events, size_t most, size_t bytes) {
        std::lock_guard<std::mutex> lock(mutex_);
        given_.reserve(given_.size() + most);  // or an event could be taken, and count for ever
        for (size_t number = 0; number < KINDS.size() && events.size() < most; number++) {
            if (!(refused_.*KINDS[number])) continue;
            events.emplace_back(0, BIRNN_REFUSED, static_cast<int32_t>(number));
            events.back().length = std::exchange(refused_.*KINDS[number], 0);
        }
        for (size_t size = 0; events.size() < most && size < bytes && !events_.empty();) {
            Event& event = events_.front();
            size += event.message.size();
            if (event.owner) given_.emplace_back(event.owner, event.held);
            events.splice(events.end(), events_, events_.begin());
        }
        if (events_.empty() && !any(refused_)) ready.lower();
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
    Events events_;
    Held refused_;
    std::vector<std::string> commands_;
    Given given_;
    std::atomic<bool> asleep_{false};
};

}  // namespace birnn::front
