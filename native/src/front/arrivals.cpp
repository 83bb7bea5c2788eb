// What comes over a connection: heads of calls, and messages.

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <new>

#include "connection.hpp"

namespace birnn::front {

namespace {

// Seconds of a `grpc-timeout`: at most eight digits and a unit; below 0 for what is none.
double seconds_of(const std::string& text) {
    if (text.size() < 2 || text.size() > 9 || text.find_first_not_of("0123456789") != text.size() - 1) return -1;
    const double number = std::strtod(text.substr(0, text.size() - 1).c_str(), nullptr);
    switch (text.back()) {
        case 'H': return number * 3600;
        case 'M': return number * 60;
        case 'S': return number;
        case 'm': return number / 1e3;
        case 'u': return number / 1e6;
        case 'n': return number / 1e9;
        default: return -1;
    }
}

bool is_grpc(const std::string& type) {
    const std::string prefix = "application/grpc";
    return type.compare(0, prefix.size(), prefix) == 0 &&
           (type.size() == prefix.size() || type[prefix.size()] == '+' || type[prefix.size()] == ';');
}

}  // namespace

bool Connection::reads() const {
    return !dead_ && (hung_up_ || output_.empty() || nghttp2_session_get_outbound_queue_size(session_) < FRAMES);
}

void Connection::receive(std::vector<char>& buffer) {
    const ssize_t size = recv(descriptor_, buffer.data(), buffer.size(), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0 || (!hung_up_ && nghttp2_session_mem_recv(session_, reinterpret_cast<uint8_t*>(buffer.data()), size) < 0))
        dead_ = true;
    mark();
}

void Connection::begin_frame(const nghttp2_frame_hd& head) {
    switch (head.type) {
        case NGHTTP2_HEADERS: continuations_ = 0; return;
        case NGHTTP2_CONTINUATION:
            if (++continuations_ > CONTINUATIONS) fail();
            return;
        case NGHTTP2_PING:
        case NGHTTP2_SETTINGS: pings_ += 1; break;
        case NGHTTP2_WINDOW_UPDATE: return;
        case NGHTTP2_DATA:
            if (head.length > 0 || head.flags & NGHTTP2_FLAG_END_STREAM) return;
            resets_ += 1;
            break;
        default: resets_ += 1;
    }
    if (pings_ > PINGS || resets_ > RESETS) nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
}

void Connection::begin_head(int32_t id) {
    auto& call = calls_[id] = std::make_unique<Call>(id);
    nghttp2_session_set_stream_user_data(session_, id, call.get());
    call->paid = hub_.ledger.take(owner_, &Held::bytes, CALL);
    if (!call->paid && ++hub_.unpaid > UNPAID) fail();
}

void Connection::field(Call& call, const char* name, size_t name_size, const char* value, size_t value_size) {
    call.head += name_size + value_size + 32;
    if (call.head > ENDLESS_HEAD) fail();
    if (call.head > HEAD || call.over || call.method >= 0) return;  // refused when it is complete, or has come already
    const std::string key(name, name_size);
    if (key == ":path") {
        call.path.assign(value, value_size);
    } else if (key == ":method") {
        call.is_post = std::string(value, value_size) == "POST";
    } else if (key == "content-type") {
        call.is_grpc = is_grpc(std::string(value, value_size));
    } else if (key == "grpc-timeout") {
        call.timeout = seconds_of(std::string(value, value_size));
        call.has_bad_timeout = call.timeout < 0;
    } else if (key == "grpc-encoding") {
        call.encoding.assign(value, value_size);
    } else if (key[0] != ':' && key != "te" && key != "grpc-accept-encoding") {
        call.metadata.append(key).push_back('\0');
        call.metadata.append(value, value_size).push_back('\0');
    }
}

void Connection::end_head(Call& call) {
    call.head_since = 0;
    if (call.head > HEAD) {
        return refuse(call, RESOURCE_EXHAUSTED, "the metadata of the call is larger than " + std::to_string(HEAD) + " bytes");
    }
    if (!call.is_post) return refuse_http(call, "405");
    if (!call.is_grpc) return refuse_http(call, "415");
    const auto method = hub_.methods.find(call.path);
    clear(call.path);
    if (method == hub_.methods.end()) return refuse(call, UNIMPLEMENTED, "Method not found!");
    if (call.has_bad_timeout) return refuse(call, INVALID_ARGUMENT, "grpc-timeout must be at most 8 digits and one of HMSmun");
    if (call.timeout == 0) return refuse(call, DEADLINE_EXCEEDED, "Deadline Exceeded");
    if (!hub_.ledger.take(owner_, &Held::calls, 1)) return refuse_for_now(call, &Held::calls);
    call.held.calls = 1;
    if (!call.paid || !hub_.ledger.take(owner_, &Held::bytes, call.head)) return refuse_for_now(call, &Held::bytes);
    call.held.bytes = call.head;
    call.method = method->second.number;
    call.is_stream = method->second.is_stream;
    if (call.timeout >= 0) call.deadline = now() + call.timeout;
    opened_.push_back(call.id);
}

void Connection::tell_opened() {
    for (const int32_t id : opened_) {
        Call* call = find(id);
        if (!call || !call->closing.empty() || call->over || call->has_message) continue;
        open(*call, {id_of(*call), BIRNN_OPENED, call->method, call->timeout});
        if (call->is_awaited) tell(*call, BIRNN_ANNOUNCED, call->length);  // its length came before it was told
        half_close(*call);
    }
    opened_.clear();
}

// Reports OPENED, together with other news, and makes sure that CLOSED can be reported later.
void Connection::open(Call& call, Event&& event) {
    Events closing;
    closing.emplace_back(id_of(call), BIRNN_CLOSED);
    event.metadata.swap(call.metadata);
    tell(std::move(event));
    call.closing.swap(closing);
}

bool Connection::count(Call& call, size_t size) {
    if (!hub_.ledger.take(owner_, &Held::bytes, size)) {
        refuse_for_now(call, &Held::bytes);
        return false;
    }
    call.counted += size;
    return true;
}

void Connection::uncount(Call& call, size_t size) {
    size = std::min(size, call.counted);
    call.counted -= size;
    hub_.ledger.give(owner_, {0, 0, size});
}

void Connection::data(Call& call, const char* bytes, size_t size) {
    if (call.over || call.ended || (call.has_message && !call.is_stream)) return;
    call.window -= static_cast<int64_t>(size);
    const bool is_admitted = call.is_announced && !call.is_awaited;
    const size_t expected = is_admitted ? std::min(size, call.length - call.message.size()) : 0;
    if (!count(call, size - expected)) return;
    if (!call.backlog.empty()) {
        call.backlog.append(bytes, size);
        return;
    }
    const size_t parsed = parse(call, bytes, size);
    if (call.over) return;
    if (parsed < size && (call.is_stream || !call.has_message)) call.backlog.assign(bytes + parsed, size - parsed);
    top_up(call);
}

// Takes in whole messages and parts of one; returns how many bytes, which are all unless others must be taken first.
size_t Connection::parse(Call& call, const char* bytes, size_t size) {
    size_t at = 0;
    while (!call.over && (call.is_stream ? call.ahead.size() < AHEAD : !call.has_message)) {
        if (call.prefix_size < sizeof call.prefix) {
            const size_t part = std::min(size - at, sizeof call.prefix - call.prefix_size);
            std::copy_n(bytes + at, part, call.prefix + call.prefix_size);
            at += part;
            call.prefix_size += part;
            if (call.prefix_size < sizeof call.prefix || !begin_message(call)) return at;
        }
        const size_t part = std::min(size - at, call.length - call.message.size());
        call.message.append(bytes + at, part);
        at += part;
        if (call.message.size() < call.length) return at;
        deliver(call);
    }
    return at;
}

// The prefix is there; whether the message is taken in.
bool Connection::begin_message(Call& call) {
    uint32_t length;
    std::memcpy(&length, call.prefix + 1, sizeof length);
    call.length = ntohl(length);
    call.is_packed = call.prefix[0] != 0;
    if (call.is_packed && call.encoding != "gzip") {
        const bool is_unsaid = call.encoding.empty() || call.encoding == "identity";
        is_unsaid ? refuse(call, INTERNAL, "a message says that it is compressed, and grpc-encoding does not say how")
                  : refuse(call, UNIMPLEMENTED, "this server reads messages of grpc-encoding gzip and identity");
        return false;
    }
    if (call.length > hub_.limits.message) {
        refuse(call, RESOURCE_EXHAUSTED,
               "SERVER: Received message larger than max (" + std::to_string(call.length) + " vs. " +
                   std::to_string(hub_.limits.message) + ")");
        return false;
    }
    if (call.length + sizeof call.prefix > WINDOW) {
        call.is_announced = call.is_awaited = true;
        tell(call, BIRNN_ANNOUNCED, call.length);
    }
    return true;
}

void Connection::deliver(Call& call) {
    if (!count(call, sizeof(Event))) return;
    Event event{id_of(call), BIRNN_MESSAGE, call.method, call.timeout};
    if (call.is_packed) event.news |= BIRNN_PACKED;
    const size_t counted = sizeof(Event) + (call.is_announced ? 0 : call.length + sizeof call.prefix);
    if (call.is_stream) {
        call.ahead.push_back(counted);
    } else {  // from now on it counts with the event
        event.owner = &owner_;
        event.held.bytes = std::exchange(call.counted, 0);
    }
    event.message.swap(call.message);
    call.prefix_size = 0;
    call.is_announced = false;
    call.has_message = true;
    if (!call.closing.empty()) return tell(std::move(event));
    event.news |= BIRNN_OPENED;
    open(call, std::move(event));
}

void Connection::half_close(Call& call) {
    if (!call.half_closed || call.told_half_closed || call.over || call.ended || !call.backlog.empty()) return;
    if (call.prefix_size) return refuse(call, INVALID_ARGUMENT, "the request ends within a message");
    if (call.closing.empty() || (call.has_message && !call.is_stream)) return;  // told later, or told enough
    call.told_half_closed = true;
    tell(call, BIRNN_HALF_CLOSED);
}

// Lets the peer send as much again as it could at the beginning, but for what was not taken.
void Connection::top_up(Call& call) {
    if (!call.is_stream || call.over || call.half_closed || (call.is_announced && !call.is_awaited)) return;
    const int64_t wanted = WINDOW - static_cast<int64_t>(call.counted);
    if (wanted <= call.window || (call.window > WINDOW / 4 && wanted - call.window < WINDOW / 2)) return;
    nghttp2_submit_window_update(session_, NGHTTP2_FLAG_NONE, call.id, static_cast<int32_t>(wanted - call.window));
    call.window = wanted;
    mark();
}

void Connection::admit(Call& call) {
    if (!call.is_awaited) return;
    call.is_awaited = false;
    try {
        call.message.reserve(call.length);
    } catch (const std::bad_alloc&) {
        return refuse_for_now(call, &Held::bytes);
    }
    uncount(call, call.message.size() + sizeof call.prefix);
    const auto rest = static_cast<int64_t>(call.length - call.message.size());
    if (call.window < rest) {
        nghttp2_submit_window_update(session_, NGHTTP2_FLAG_NONE, call.id, static_cast<int32_t>(rest - call.window));
        call.window = rest;
        mark();
    }
}

void Connection::took(Call& call) {
    if (call.ahead.empty()) return;
    uncount(call, call.ahead.front());
    call.ahead.erase(call.ahead.begin());
    std::string backlog;
    backlog.swap(call.backlog);
    const size_t parsed = parse(call, backlog.data(), backlog.size());
    if (call.over) return;
    call.backlog = backlog.substr(parsed);
    half_close(call);
    top_up(call);
}

}  // namespace birnn::front
