// What bounds a front end.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace birnn::front {

// What a client may send on a stream before anything was admitted: HTTP/2's own initial window, as a client may use that
// before it has read a server's settings.
constexpr int32_t WINDOW = 65535;
// What is under way on a connection at most; what was admitted is bounded by the memory budget behind the front end.
constexpr int32_t CONNECTION_WINDOW = 4 << 20;
constexpr uint32_t STREAMS = 1024;
// What a call takes beside its head and messages, until nothing is left of it: its own state and nghttp2's, a refusal, and
// events. Where there is no room for that, a call is refused; if it could not be sent so many refusals yet, its connection ends.
constexpr size_t CALL = 2 << 10;
constexpr size_t UNPAID = 4096;
// Most bytes of a head, as HPACK counts them, like grpcio's. A connection that sends `ENDLESS_HEAD` is ended.
constexpr size_t HEAD = 16 << 10;
constexpr size_t ENDLESS_HEAD = 128 << 10;
constexpr int CONTINUATIONS = 8;
// Messages of a stream that are handed over before the first of them was taken.
constexpr size_t AHEAD = 32;
// Bytes and frames for a peer that does not read; then it is not read from either.
constexpr size_t OUTPUT = 64 << 10;
constexpr size_t FRAMES = 1000;
// What a buffer keeps once it is empty.
constexpr size_t KEPT = 4 << 10;
// What a connection may take of the thread's time before others have their turn, in bytes.
constexpr size_t TURN = 1 << 20;
// Frames that ask for an answer (PING, SETTINGS) without a call that goes on, and those that only take time: so many at once,
// and so many a second.
constexpr double PINGS = 100, PINGS_A_SECOND = 1;
constexpr double RESETS = 1000, RESETS_A_SECOND = 100;
// Seconds between the looks for what takes too long, and between telling a client to reconnect and taking no more calls; and
// how long a peer may take to close its side once this one is closed.
constexpr double LOOK_SECONDS = 0.1;
constexpr double NOTICE_SECONDS = 1.0;
constexpr double HANG_UP_SECONDS = 2.0;

// See birnn_front_settings.
struct Limits {
    size_t message;
    double head_seconds, reply_seconds, age_seconds;
};

using Time = double;

inline Time now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace birnn::front
