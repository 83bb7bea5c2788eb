// The service behind the front end, as Python would answer.
#pragma once

#include <poll.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "../src/front/front.hpp"
#include "chance.hpp"

namespace birnn_check {

using birnn::front::Front;

class Service {
   public:
    Service(Front& front, uint64_t seed) : front_(front), random_(seed), thread_([this] { run(); }) {}
    void hurry() { hurries_ = true; }
    void join() { thread_.join(); }

   private:
    struct Call {
        std::vector<std::unique_ptr<std::string>> held;
        uint64_t under_way = 0;
        int messages = 0;
        bool is_announced = false, has_all = false, ended = false;
    };

    void run() {
        birnn_front_event events[64];
        // It ends once all connections that it was told of have gone, and so their calls.
        while (!hurries_ || !peers_.empty() || !calls_.empty()) {
            pollfd wait{front_.descriptor(), POLLIN, 0};
            poll(&wait, 1, 2);
            if (!hurries_ && one_in(random_, 4)) continue;
            const auto most = static_cast<size_t>(between(random_, 1, 64));
            const size_t count = front_.take(events, most, false);
            if (one_in(random_, 10)) check(front_.take(events, most, true) == count, "events did not stay");
            for (size_t at = 0; at < count; at++) hear(events[at]);
            for (auto& [id, call] : calls_) {
                if (hurries_ || one_in(random_, 3)) act(id, call);
            }
            if (one_in(random_, 8)) order(static_cast<uint64_t>(between(random_, 1, 1 << 20)) << 32 | 1, BIRNN_REPLY, {}, "late");
            if (!orders_.empty()) front_.send(std::move(orders_));
            orders_.clear();
        }
    }

    void hear(const birnn_front_event& event) {
        const uint64_t peer = event.id >> 32;
        const char* bytes = front_.bytes().data();
        const bool is_large = event.message_size > BIRNN_FRONT_INLINE;
        const char* message = is_large ? reinterpret_cast<const char*>(event.message) : bytes + event.message;
        unsigned sum = 0;  // every byte is read, so that AddressSanitizer sees them
        for (size_t at = 0; at < event.message_size; at++) sum += static_cast<uint8_t>(message[at]);
        for (size_t at = 0; at < event.metadata_size; at++) sum += static_cast<uint8_t>(bytes[event.metadata + at]);
        seen_ = sum;
        if (event.news & BIRNN_CONNECTED) return check(peers_.insert(peer).second, "a connection is told twice");
        if (event.news & BIRNN_REFUSED) return check(event.length > 0 && event.method <= BIRNN_UNREAD, "nothing was refused");
        check(peers_.count(peer), "a connection is not told");
        if (event.news & BIRNN_LATE) return;
        if (event.news & BIRNN_DISCONNECTED) {
            peers_.erase(peer);
            const auto next = calls_.lower_bound(peer << 32);
            return check(next == calls_.end() || next->first >> 32 != peer, "a connection is over and its call is not");
        }
        if (event.news & BIRNN_OPENED) check(calls_.try_emplace(event.id).second, "a call is opened twice");
        const auto found = calls_.find(event.id);
        check(found != calls_.end(), "news " + std::to_string(event.news) + " of a call that is not open");
        Call& call = found->second;
        if (event.news & BIRNN_MESSAGE) call.messages++;
        if (event.news & BIRNN_ANNOUNCED) call.is_announced = true;
        if (event.news & BIRNN_HALF_CLOSED) call.has_all = true;
        if (event.news & BIRNN_TAKEN) {
            check(event.length <= call.under_way, "more was taken than was sent");
            call.under_way -= event.length;
        }
        if (event.news & BIRNN_CLOSED) calls_.erase(found);
    }

    void act(uint64_t id, Call& call) {
        if (call.ended) return;
        if (call.is_announced) {
            call.is_announced = false;
            if (!one_in(random_, 5)) return order(id, BIRNN_ADMIT);
            call.ended = true;
            return order(id, BIRNN_END, {}, "", 8);
        }
        const int64_t way = between(random_, 0, 9);
        if (call.messages && way < 3) {  // a stream; for others it is nothing
            call.messages--;
            return order(id, BIRNN_TOOK);
        }
        if (way < 5) {
            if (call.under_way) return;  // waits for its peer, as the service does
            const std::string& message = reply(call);
            call.under_way += message.size();
            return order(id, BIRNN_SEND, message);
        }
        if (call.under_way || (way > 5 && !call.messages && !call.has_all)) return;
        call.ended = true;
        if (way == 5) return order(id, BIRNN_END, {}, std::string("grpc-message\0no\0", 16), 13);
        order(id, BIRNN_REPLY, reply(call));
    }

    const std::string& reply(Call& call) {
        const int64_t size = one_in(random_, 10) ? between(random_, 0, 300000) : between(random_, 1, 100);
        call.held.push_back(std::make_unique<std::string>(static_cast<size_t>(size), 'r'));
        return *call.held.back();
    }

    void order(uint64_t id, int32_t order, const std::string& message = {}, const std::string& trailers = {},
               int32_t status = 0) {
        const bool is_large = message.size() > BIRNN_FRONT_INLINE;
        const birnn_front_command command{id,
                                          order,
                                          status,
                                          is_large ? reinterpret_cast<uint64_t>(message.data()) : 0,
                                          static_cast<uint32_t>(message.size()),
                                          static_cast<uint32_t>(trailers.size())};
        orders_.append(reinterpret_cast<const char*>(&command), sizeof command);
        if (!is_large) orders_ += message;
        orders_ += trailers;
    }

    Front& front_;
    Random random_;
    std::map<uint64_t, Call> calls_;
    std::set<uint64_t> peers_;
    std::string orders_;
    volatile unsigned seen_ = 0;
    std::atomic<bool> hurries_{false};
    std::thread thread_;
};

}  // namespace birnn_check
