// What goes over a connection: replies, and refusals.

#include "connection.hpp"

namespace birnn::front {

namespace {

nghttp2_nv field_of(const std::string& name, const std::string& value) {
    const auto bytes = [](const std::string& text) { return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())); };
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

}  // namespace

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
    provider.read_callback = read_callback;
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
    if (taken) tell(call, BIRNN_TAKEN, taken);
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

void Connection::refuse(Call& call, int32_t status, const std::string& message) {
    refuse_with(call, status, "grpc-message" + std::string(1, '\0') + message + '\0');
}

// Refuses a call for want of room: of calls, or of bytes.
void Connection::refuse_for_now(Call& call, Kind kind) {
    hub_.refused.*kind += 1;
    refuse_with(call, RESOURCE_EXHAUSTED, std::string(kind == &Held::calls ? hub_.no_call : hub_.no_memory));
}

void Connection::refuse_with(Call& call, int32_t status, std::string&& trailers) {
    tell_closed(call, NGHTTP2_CANCEL);
    call.over = true;
    call.pieces.clear();
    for (std::string* text : {&call.message, &call.backlog, &call.path, &call.encoding, &call.metadata}) clear(*text);
    release(call);
    end(call, status, std::move(trailers));
}

void Connection::refuse_http(Call& call, const char* http_status) {
    call.over = call.ended = call.begun = true;
    for (std::string* text : {&call.path, &call.encoding, &call.metadata}) clear(*text);
    const Fields fields{{":status", http_status}};
    const auto all = views(fields);
    nghttp2_submit_response(session_, call.id, all.data(), all.size(), nullptr);
    mark();
}

void Connection::closed(int32_t id, uint32_t code) {
    Call* call = find(id);
    if (!call) return;
    const bool is_sent = call->complete && code == NGHTTP2_NO_ERROR;
    if (is_sent && !call->closing.empty()) {
        sent_.emplace_back(written_, Events());
        sent_.back().second = close(*call, NGHTTP2_NO_ERROR);
    }
    tell_closed(*call, code ? code : uint32_t{NGHTTP2_CANCEL});
    drop(*call);
    calls_.erase(id);
    mark();
}

// Releases what a call holds, if its end need not be reported.
void Connection::release(Call& call) {
    hub_.ledger.give(owner_, {0, call.held.calls, call.held.bytes + call.counted});
    call.held = {};
    call.counted = 0;
}

// Gives back the rest, once nothing is left of it.
void Connection::drop(Call& call) {
    release(call);
    call.paid ? hub_.ledger.give(owner_, {0, 0, CALL}) : void(hub_.unpaid--);
}

}  // namespace birnn::front
