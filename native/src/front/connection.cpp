// See connection.hpp.

#include "connection.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace birnn::front {

Connection::Connection(Hub& hub, uint64_t number, int descriptor, Peer&& peer, Owner& owner)
    : hub_(hub), number_(number), descriptor_(descriptor), peer_(std::move(peer)), owner_(owner), session_(session_of(*this)),
      born_(now()),
      // A tenth more or less, so that those who came together do not all leave together.
      age_(hub.limits.age_seconds * (0.9 + 0.2 * static_cast<double>(number * 2654435761u % 1024) / 1024)), looked_(born_) {
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS},
                                               {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEAD}};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
    mark();
}

Connection::~Connection() {
    for (auto& [end, event] : sent_) hub_.events.splice(hub_.events.end(), event);
    for (auto& [id, call] : calls_) {
        tell_closed(*call, NGHTTP2_CANCEL);
        drop(*call);
    }
    if (parting_.empty()) hub_.ledger.give(owner_, {1, 0, 0});
    hub_.events.splice(hub_.events.end(), parting_);
    nghttp2_session_del(session_);
    ::close(descriptor_);
}

Call* Connection::find(int32_t id) {
    const auto found = calls_.find(id);
    return found == calls_.end() ? nullptr : found->second.get();
}

void Connection::mark() {
    if (!marked_) hub_.unflushed.push_back(number_);
    marked_ = true;
}

void Connection::tell(Event&& event) {
    if (parting_.empty()) {
        Event connected{number_ << 32, BIRNN_CONNECTED};
        connected.metadata = peer_.name;
        Events parting;
        parting.emplace_back(number_ << 32, BIRNN_DISCONNECTED);
        parting.back().owner = &owner_;
        parting.back().held.connections = 1;
        hub_.events.push_back(std::move(connected));
        parting_.swap(parting);
    }
    hub_.events.push_back(std::move(event));
}

// Tells news of a call, unless its end was told or ordered.
void Connection::tell(Call& call, uint32_t news, uint64_t length) {
    if (call.closing.empty() || call.ended) return;
    Event event{id_of(call), news};
    event.length = length;
    tell(std::move(event));
}

// The event of a call's end, if its beginning was told; it takes along what the call holds.
Events Connection::close(Call& call, uint64_t code) {
    Events closing;
    closing.swap(call.closing);
    for (Event& event : closing) {
        event.length = code;
        event.owner = &owner_;
        event.held = {0, call.held.calls, call.held.bytes + call.counted};
        call.held = {};
        call.counted = 0;
    }
    return closing;
}

void Connection::tell_closed(Call& call, uint64_t code) {
    Events closing = close(call, code);
    hub_.events.splice(hub_.events.end(), closing);
}

void Connection::flush() {
    marked_ = false;
    for (size_t turn = 0; !dead_;) {
        while (output_.size() < OUTPUT) {
            const uint8_t* bytes;
            const ssize_t size = nghttp2_session_mem_send(session_, &bytes);
            if (size < 0) dead_ = true;
            if (size <= 0) break;
            output_.append(reinterpret_cast<const char*>(bytes), size);
            written_ += size;
        }
        if (output_.empty() || dead_) break;
        const ssize_t size = ::send(descriptor_, output_.data(), output_.size(), MSG_NOSIGNAL);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno != EAGAIN) dead_ = true;
        if (size <= 0) break;
        output_.erase(0, size);
        flushed_ += size;
        stalled_since_ = 0;
        turn += size;
        if (!output_.empty()) break;
        if (turn > TURN) {
            mark();
            break;
        }
    }
    while (!sent_.empty() && sent_.front().first <= flushed_) {
        hub_.events.splice(hub_.events.end(), sent_.front().second);
        sent_.pop_front();
    }
    if (output_.empty()) {
        stalled_since_ = 0;
        if (output_.capacity() > KEPT) clear(output_);
    } else if (!stalled_since_) {
        stalled_since_ = now();
    }
    const bool idle = !nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_) && output_.empty();
    // Calls that were sent before their client heard of GOAWAY may still come until the second one.
    if (idle && (!noticed_ || finished_)) hang_up();
}

// Sends the end, and drops what still comes until the peer closes, too. Closing at once, with something unread, would reset
// the connection, and the peer would lose what it has not received yet.
void Connection::hang_up() {
    if (hung_up_) return;
    hung_up_ = now();
    shutdown(descriptor_, SHUT_WR);
}

void Connection::look(Time time) {
    if (dead_) return mark();
    if (hung_up_) {
        if (time - hung_up_ > HANG_UP_SECONDS) fail();
        return;
    }
    const double since = time - looked_;
    looked_ = time;
    pings_ = std::max(0.0, pings_ - since * PINGS_A_SECOND);
    resets_ = std::max(0.0, resets_ - since * RESETS_A_SECOND);
    const Limits& limits = hub_.limits;
    const bool is_silent = !greeted_ && time - born_ > limits.head_seconds;
    const bool is_old = noticed_ && time - noticed_ > limits.age_seconds;
    if (is_silent || is_old) return fail();
    bool is_late = stalled_since_ && time - stalled_since_ > limits.reply_seconds;
    std::vector<Call*> expired;
    for (auto& [id, call] : calls_) {
        if (call->head_since && time - call->head_since > limits.head_seconds) return fail();
        is_late |= call->reply_since && time - call->reply_since > limits.reply_seconds;
        if (call->deadline && time > call->deadline && !call->over && !call->ended) expired.push_back(call.get());
    }
    if (is_late) {
        if (!parting_.empty()) tell({number_ << 32, BIRNN_LATE});
        return fail();
    }
    for (Call* call : expired) refuse(*call, DEADLINE_EXCEEDED, "Deadline Exceeded");
    if (!noticed_ && time - born_ > age_) go_away();
    if (noticed_ && time - noticed_ > NOTICE_SECONDS) finish();
}

void Connection::go_away() {
    if (noticed_) return;
    noticed_ = now();
    nghttp2_submit_shutdown_notice(session_);
    mark();
}

void Connection::finish() {
    if (finished_) return;
    if (!noticed_) noticed_ = now();
    finished_ = true;
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                          nullptr, 0);
    mark();
}

}  // namespace birnn::front
