// What nghttp2 calls of a connection.

#include <new>

#include "connection.hpp"

namespace birnn::front {

// What nghttp2 calls. Exceptions must not pass through it; the only one there can be is that memory is short. What else
// comes for a connection that must end is not looked at.
struct Callbacks {
    template <class Body>
    static int guarded(void* user, Body body) {
        try {
            body(*static_cast<Connection*>(user));
            return static_cast<Connection*>(user)->dead_ ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
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
            Call* call = call_of(session, frame->hd.stream_id);
            if (!call) return;
            if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) connection.end_head(*call);
            if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
                call->half_closed = true;
                connection.half_close(*call);
            }
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
            // The rest of the request is not needed.
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

nghttp2_session* Connection::session_of(Connection& connection) { return Callbacks::session(connection); }

ssize_t Connection::read_callback(nghttp2_session* session, int32_t id, uint8_t* to, size_t room, uint32_t* flags,
                                  nghttp2_data_source* source, void* user) {
    return Callbacks::reply(session, id, to, room, flags, source, user);
}

}  // namespace birnn::front
