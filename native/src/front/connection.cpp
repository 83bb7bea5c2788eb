// See connection.hpp.

#include "connection.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <stdexcept>

namespace birnn::front {

namespace {

enum Status { INVALID_ARGUMENT = 3, DEADLINE_EXCEEDED = 4, RESOURCE_EXHAUSTED = 8, UNIMPLEMENTED = 12, INTERNAL = 13 };

// When a call that found no room may come again.
const char* const RETRY_MILLISECONDS = "1000";

nghttp2_nv field_of(const std::string& name, const std::string& value) {
    const auto bytes = [](const std::string& text) {
        return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
    };
    return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

using Fields = std::vector<std::pair<std::string, std::string>>;

std::vector<nghttp2_nv> views(const Fields& fields) {
    std::vector<nghttp2_nv> found;
    for (const auto& [name, value] : fields) found.push_back(field_of(name, value));
    return found;
}

// What stands in `name NUL value NUL ...`, behind the status.
Fields trailers_of(const Call& call) {
    Fields fields{{"grpc-status", std::to_string(call.status)}};
    const std::string& text = call.trailers;
    for (size_t at = 0; at < text.size();) {
        const size_t middle = text.find('\0', at), end = middle == text.npos ? text.npos : text.find('\0', middle + 1);
        if (end == text.npos) break;
        fields.emplace_back(text.substr(at, middle - at), text.substr(middle + 1, end - middle - 1));
        at = end + 1;
    }
    return fields;
}

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

Peer Peer::of(int descriptor) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    char text[INET6_ADDRSTRLEN] = "";
    if (getpeername(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
        if (address.ss_family == AF_INET) {
            const auto& four = reinterpret_cast<const sockaddr_in&>(address);
            inet_ntop(AF_INET, &four.sin_addr, text, sizeof text);
            return {"ipv4:" + std::string(text) + ":" + std::to_string(ntohs(four.sin_port)), std::string("ipv4:") + text};
        }
        if (address.ss_family == AF_INET6) {
            const auto& six = reinterpret_cast<const sockaddr_in6&>(address);
            const auto* bytes = reinterpret_cast<const char*>(&six.sin6_addr);
            inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof text);
            const std::string port = std::to_string(ntohs(six.sin6_port));
            // An address of IPv4 within IPv6 is that host; of others the network of 64 bits is.
            if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) {
                const std::string host = std::string(text).substr(std::string(text).rfind(':') + 1);
                return {"ipv4:" + host + ":" + port, "ipv4:" + host};
            }
            return {"ipv6:%5B" + std::string(text) + "%5D:" + port, "ipv6:" + std::string(bytes, 8)};
        }
    }
    return {"unix:", "unix"};
}

// What nghttp2 calls. Exceptions must not pass through it; the only one there can be is that memory is short.
struct Callbacks {
    template <class Body>
    static int guarded(void* user, Body body) {
        try {
            body(*static_cast<Connection*>(user));
            return 0;
        } catch (const std::bad_alloc&) {
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
    }

    static Call* call_of(nghttp2_session* session, int32_t id) {
        return static_cast<Call*>(nghttp2_session_get_stream_user_data(session, id));
    }

    static int begin_frame(nghttp2_session*, const nghttp2_frame_hd* head, void* user) {
        return guarded(user, [&](Connection& connection) { connection.begin_frame(*head); });
    }

    static int begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user) {
        if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
        return guarded(user, [&](Connection& connection) { connection.begin_head(frame->hd.stream_id); });
    }

    static int header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user) {
        Call* call = call_of(session, frame->hd.stream_id);
        if (!call) return 0;
        return guarded(user, [&](Connection& connection) {
            connection.field(*call, reinterpret_cast<const char*>(name), name_size, reinterpret_cast<const char*>(value),
                             value_size);
        });
    }

    static int frame(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
        return guarded(user, [&](Connection& connection) {
            if (frame->hd.type == NGHTTP2_SETTINGS) connection.greeted_ = true;
            if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return;
            if (frame->hd.type == NGHTTP2_HEADERS) connection.head_since_ = 0;
            Call* call = call_of(session, frame->hd.stream_id);
            if (!call) return;
            if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) connection.end_head(*call);
            if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) connection.half_close(*call);
        });
    }

    static int data(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* bytes, size_t size, void* user) {
        // What may be kept is bounded by the windows of streams. That of a connection only bounds what is under way.
        nghttp2_session_consume_connection(session, size);
        Call* call = call_of(session, id);
        if (!call) return 0;
        return guarded(user, [&](Connection& connection) { connection.data(*call, reinterpret_cast<const char*>(bytes), size); });
    }

    static int sent(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
        if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
        static_cast<Connection*>(user)->pings_ = 0;
        const int32_t id = frame->hd.stream_id;
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
            if (Call* call = call_of(session, id)) call->complete = true;
            // Nobody waits for the rest of the request.
            if (nghttp2_session_get_stream_remote_close(session, id) == 0) {
                nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
            }
        }
        return 0;
    }

    static int stream_closed(nghttp2_session*, int32_t id, uint32_t code, void* user) {
        return guarded(user, [&](Connection& connection) { connection.closed(id, code); });
    }

    static ssize_t reply(nghttp2_session*, int32_t, uint8_t* to, size_t room, uint32_t* flags, nghttp2_data_source* source,
                         void* user) {
        ssize_t size = 0;
        const int failed = guarded(user, [&](Connection& connection) {
            size = connection.read_reply(*static_cast<Call*>(source->ptr), to, room, flags);
        });
        return failed ? failed : size;
    }

    static nghttp2_session* session(Connection& connection) {
        nghttp2_session_callbacks* callbacks = nullptr;
        nghttp2_option* option = nullptr;
        nghttp2_session* session = nullptr;
        if (nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0) {
            nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, begin_frame);
            nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, begin_headers);
            nghttp2_session_callbacks_set_on_header_callback(callbacks, header);
            nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, frame);
            nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, data);
            nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, sent);
            nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, stream_closed);
            nghttp2_option_set_no_auto_window_update(option, 1);
            nghttp2_option_set_no_closed_streams(option, 1);
            nghttp2_session_server_new2(&session, callbacks, &connection, option);
        }
        nghttp2_option_del(option);
        nghttp2_session_callbacks_del(callbacks);
        if (!session) throw std::bad_alloc();
        return session;
    }
};

Connection::Connection(Hub& hub, uint64_t number, int descriptor, Peer&& peer, std::shared_ptr<Held> held)
    : hub_(hub), number_(number), descriptor_(descriptor), peer_(std::move(peer)), held_(std::move(held)),
      session_(Callbacks::session(*this)), born_(now()),
      // A tenth more or less, so that those who came together do not all leave together.
      age_(hub.limits.age_seconds * (0.9 + 0.2 * static_cast<double>(number * 2654435761u % 1024) / 1024)), looked_(born_) {
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS},
                                               {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEAD}};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
    mark();
}

Connection::~Connection() {
    for (Event& event : sent_) hub_.events.push_back(std::move(event));
    for (auto& [id, call] : calls_) {
        tell_closed(*call, NGHTTP2_CANCEL);
        uncount(*call, call->counted);
        if (call->admitted) hub_.ledger.give(*held_, &Held::calls, 1);
        if (call->admitted) hub_.ledger.give(*held_, &Held::bytes, call->head);
    }
    if (told_) hub_.events.push_back({number_ << 32, BIRNN_DISCONNECTED});
    nghttp2_session_del(session_);
    close(descriptor_);
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
    if (!told_) {
        told_ = true;
        Event connected{number_ << 32, BIRNN_CONNECTED};
        connected.metadata = peer_.name;
        hub_.events.push_back(std::move(connected));
    }
    hub_.events.push_back(std::move(event));
}

void Connection::tell_closed(Call& call, uint64_t code) {
    if (!call.told) return;
    call.told = false;
    Event event{id_of(call), BIRNN_CLOSED};
    event.length = code;
    tell(std::move(event));
}

// ---- What comes.

bool Connection::reads() const {
    return !dead_ && (output_.empty() || nghttp2_session_get_outbound_queue_size(session_) < FRAMES);
}

void Connection::receive(std::vector<char>& buffer) {
    const ssize_t size = recv(descriptor_, buffer.data(), buffer.size(), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0 || nghttp2_session_mem_recv(session_, reinterpret_cast<uint8_t*>(buffer.data()), size) < 0) dead_ = true;
    mark();
}

void Connection::begin_frame(const nghttp2_frame_hd& head) {
    switch (head.type) {
        case NGHTTP2_HEADERS:
            head_since_ = now();
            continuations_ = 0;
            return;
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
    auto call = std::make_unique<Call>(id);
    nghttp2_session_set_stream_user_data(session_, id, call.get());
    calls_[id] = std::move(call);
}

void Connection::field(Call& call, const char* name, size_t name_size, const char* value, size_t value_size) {
    call.head += name_size + value_size + 32;
    if (call.head > ENDLESS_HEAD) fail();
    if (call.head > HEAD || call.over || call.admitted) return;  // refused when it is complete, or has come already
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
    if (call.head > HEAD) {
        return refuse(call, RESOURCE_EXHAUSTED, "the metadata of the call is larger than " + std::to_string(HEAD) + " bytes");
    }
    if (!call.is_post) return refuse_http(call, "405");
    if (!call.is_grpc) return refuse_http(call, "415");
    const auto method = hub_.methods.find(call.path);
    call.path = std::string();
    if (method == hub_.methods.end()) return refuse(call, UNIMPLEMENTED, "Method not found!");
    if (call.has_bad_timeout) return refuse(call, INVALID_ARGUMENT, "grpc-timeout must be at most 8 digits and one of HMSmun");
    if (!hub_.ledger.take(*held_, &Held::calls, 1)) {
        return refuse(call, RESOURCE_EXHAUSTED, "too many calls wait to be admitted (--max-calls); retry later", true);
    }
    call.admitted = true;
    if (!hub_.ledger.take(*held_, &Held::bytes, call.head)) {
        call.head = 0;
        return refuse(call, RESOURCE_EXHAUSTED, "too much waits to be admitted (--memory-mib); retry later", true);
    }
    call.method = method->second.number;
    call.is_stream = method->second.is_stream;
    if (call.timeout >= 0) call.deadline = now() + call.timeout;
    opened_.push_back(call.id);
}

void Connection::tell_opened() {
    for (const int32_t id : opened_) {
        Call* call = find(id);
        if (!call || call->told || call->over || call->has_message) continue;
        call->told = true;
        Event event{id_of(*call), BIRNN_OPENED, call->method, call->timeout};
        event.metadata.swap(call->metadata);
        tell(std::move(event));
        if (call->is_awaited) {  // its length came before it was told
            Event announced{id_of(*call), BIRNN_ANNOUNCED};
            announced.length = call->length;
            tell(std::move(announced));
        }
        half_close(*call);
    }
    opened_.clear();
}

bool Connection::count(Call& call, size_t size) {
    if (!hub_.ledger.take(*held_, &Held::bytes, size)) {
        refuse(call, RESOURCE_EXHAUSTED, "too much waits to be admitted (--memory-mib); retry later", true);
        return false;
    }
    call.counted += size;
    return true;
}

void Connection::uncount(Call& call, size_t size) {
    size = std::min(size, call.counted);
    call.counted -= size;
    hub_.ledger.give(*held_, &Held::bytes, size);
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
        if (call.told) {
            Event event{id_of(call), BIRNN_ANNOUNCED};
            event.length = call.length;
            tell(std::move(event));
        }
    }
    return true;
}

void Connection::deliver(Call& call) {
    Event event{id_of(call), BIRNN_MESSAGE, call.method, call.timeout};
    if (!call.told) {
        event.news |= BIRNN_OPENED;
        event.metadata.swap(call.metadata);
        call.told = true;
    }
    if (call.is_packed) event.news |= BIRNN_PACKED;
    const size_t counted = call.is_announced ? 0 : call.length + sizeof call.prefix;
    event.counted = !call.is_stream;
    event.message = std::move(call.message);
    call.message = std::string();
    call.prefix_size = 0;
    call.is_announced = false;
    call.has_message = true;
    if (call.is_stream) call.ahead.push_back(counted);
    tell(std::move(event));
}

void Connection::half_close(Call& call) {
    if (nghttp2_session_get_stream_remote_close(session_, call.id) == 1) call.half_closed = true;
    if (!call.half_closed || call.told_half_closed || call.over || !call.backlog.empty()) return;
    if (call.prefix_size) return refuse(call, INVALID_ARGUMENT, "the request ends within a message");
    if (!call.told || (call.has_message && !call.is_stream)) return;  // told later, or told enough
    call.told_half_closed = true;
    tell({id_of(call), BIRNN_HALF_CLOSED});
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
    call.message.reserve(call.length);
    uncount(call, call.message.size() + sizeof call.prefix);
    const auto rest = static_cast<int64_t>(call.length - call.message.size());
    if (call.window < rest) {
        nghttp2_submit_window_update(session_, NGHTTP2_FLAG_NONE, call.id, static_cast<int32_t>(rest - call.window));
        call.window = rest;
        mark();
    }
}

// The message of a call of one was handed over.
void Connection::handed(Call& call) {
    if (!call.is_stream) uncount(call, call.counted);
}

void Connection::took(Call& call) {
    if (call.ahead.empty()) return;
    uncount(call, call.ahead.front());
    call.ahead.erase(call.ahead.begin());
    const std::string backlog = std::move(call.backlog);
    call.backlog = std::string();
    const size_t parsed = parse(call, backlog.data(), backlog.size());
    if (call.over) return;
    call.backlog = backlog.substr(parsed);
    half_close(call);
    top_up(call);
}

// ---- What goes.

void Connection::command(Call& call, const birnn_front_command& command, const char* bytes) {
    if (call.over || call.ended) return;
    const char* elsewhere = reinterpret_cast<const char*>(command.message);
    const size_t inline_size = elsewhere ? 0 : command.size;
    std::string trailers(bytes + inline_size, command.trailers);
    switch (command.order) {
        case BIRNN_SEND: send(call, std::string(bytes, inline_size), elsewhere, command.size); break;
        case BIRNN_REPLY:
            send(call, std::string(bytes, inline_size), elsewhere, command.size);
            end(call, command.status, std::move(trailers));
            break;
        case BIRNN_END: end(call, command.status, std::move(trailers)); break;
        case BIRNN_ADMIT: admit(call); break;
        case BIRNN_TOOK: took(call); break;
        default: break;
    }
}

void Connection::respond(Call& call, const char* http_status, nghttp2_data_provider* provider) {
    Fields fields{{":status", http_status}, {"content-type", "application/grpc"}, {"grpc-accept-encoding", "identity,gzip"}};
    if (!provider) {
        for (auto& field : trailers_of(call)) fields.push_back(std::move(field));
    }
    call.begun = true;
    const auto all = views(fields);
    if (nghttp2_submit_response(session_, call.id, all.data(), all.size(), provider)) fail();
    mark();
}

void Connection::send(Call& call, std::string&& own, const char* elsewhere, size_t size) {
    call.pieces.emplace_back(std::move(own), elsewhere, size);
    if (!call.reply_since) call.reply_since = now();
    if (call.begun) {
        nghttp2_session_resume_data(session_, call.id);
        return mark();
    }
    nghttp2_data_provider provider{};
    provider.source.ptr = &call;
    provider.read_callback = Callbacks::reply;
    respond(call, "200", &provider);
}

void Connection::end(Call& call, int32_t status, std::string&& trailers) {
    call.ended = true;
    call.status = status;
    call.trailers = std::move(trailers);
    if (!call.reply_since) call.reply_since = now();
    if (!call.begun) return respond(call, "200", nullptr);
    nghttp2_session_resume_data(session_, call.id);
    mark();
}

ssize_t Connection::read_reply(Call& call, uint8_t* to, size_t room, uint32_t* flags) {
    size_t size = 0, taken = 0;
    while (size < room && !call.pieces.empty()) {
        size += call.pieces.front().write(to + size, room - size);
        if (!call.pieces.front().is_sent()) continue;
        taken += call.pieces.front().size();
        call.pieces.erase(call.pieces.begin());
    }
    if (taken) call.reply_since = call.pieces.empty() && !call.ended ? 0 : now();
    if (taken && call.told && call.is_stream) {
        Event event{id_of(call), BIRNN_TAKEN};
        event.length = taken;
        tell(std::move(event));
    }
    if (call.pieces.empty() && call.ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        const Fields fields = trailers_of(call);
        const auto all = views(fields);
        if (nghttp2_submit_trailer(session_, call.id, all.data(), all.size())) return NGHTTP2_ERR_CALLBACK_FAILURE;
    } else if (size == 0) {
        return NGHTTP2_ERR_DEFERRED;
    }
    return static_cast<ssize_t>(size);
}

void Connection::refuse(Call& call, int32_t status, const std::string& message, bool retry) {
    tell_closed(call, NGHTTP2_CANCEL);
    call.over = true;
    call.pieces.clear();
    call.message = call.backlog = std::string();
    uncount(call, call.counted);
    const auto add = [&call](const std::string& text) { call.trailers.append(text).push_back('\0'); };
    call.trailers.clear();
    add("grpc-message"), add(message);
    if (retry) add("grpc-retry-pushback-ms"), add(RETRY_MILLISECONDS);
    end(call, status, std::string(call.trailers));
}

void Connection::refuse_http(Call& call, const char* http_status) {
    call.over = call.ended = call.begun = true;
    const Fields fields{{":status", http_status}};
    const auto all = views(fields);
    nghttp2_submit_response(session_, call.id, all.data(), all.size(), nullptr);
    mark();
}

void Connection::closed(int32_t id, uint32_t code) {
    Call* call = find(id);
    if (!call) return;
    const bool is_sent = call->complete && code == NGHTTP2_NO_ERROR;
    if (is_sent && call->told) {
        call->told = false;
        sent_.push_back({id_of(*call), BIRNN_CLOSED});
    }
    tell_closed(*call, code ? code : uint32_t{NGHTTP2_CANCEL});
    uncount(*call, call->counted);
    if (call->admitted) {
        hub_.ledger.give(*held_, &Held::calls, 1);
        hub_.ledger.give(*held_, &Held::bytes, call->head);
    }
    calls_.erase(id);
    mark();
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
        }
        if (output_.empty() || dead_) break;
        const ssize_t size = ::send(descriptor_, output_.data(), output_.size(), MSG_NOSIGNAL);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno != EAGAIN) dead_ = true;
        if (size <= 0) break;
        output_.erase(0, size);
        stalled_since_ = 0;
        turn += size;
        if (!output_.empty()) break;
        if (turn > TURN) {
            mark();
            break;
        }
    }
    if (output_.empty()) {
        for (Event& event : sent_) tell(std::move(event));
        sent_.clear();
    } else if (!stalled_since_) {
        stalled_since_ = now();
    }
    const bool idle = !nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_) && output_.empty();
    // Calls that were sent before their client heard of GOAWAY may still come until the second one.
    if (idle && (!noticed_ || finished_)) dead_ = true;
}

// ---- What takes too long.

void Connection::look(Time time) {
    const double since = time - looked_;
    looked_ = time;
    pings_ = std::max(0.0, pings_ - since * PINGS_A_SECOND);
    resets_ = std::max(0.0, resets_ - since * RESETS_A_SECOND);
    const Limits& limits = hub_.limits;
    const bool is_silent = !greeted_ && time - born_ > limits.head_seconds;
    const bool is_slow = head_since_ && time - head_since_ > limits.head_seconds;
    const bool is_old = noticed_ && time - noticed_ > limits.age_seconds;
    if (is_silent || is_slow || is_old) return fail();
    bool is_late = stalled_since_ && time - stalled_since_ > limits.reply_seconds;
    std::vector<Call*> expired;
    for (auto& [id, call] : calls_) {
        is_late |= call->reply_since && time - call->reply_since > limits.reply_seconds;
        if (call->deadline && time > call->deadline && !call->over && !call->ended) expired.push_back(call.get());
    }
    if (is_late) {
        if (told_) tell({number_ << 32, BIRNN_LATE});
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
