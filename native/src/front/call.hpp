// One call: a stream of HTTP/2.

#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "ledger.hpp"
#include "limits.hpp"
#include "mailbox.hpp"

namespace birnn::front {

// A message on its way to the peer, behind its prefix of five bytes.
class Piece {
   public:
    Piece(std::string&& own, const char* elsewhere, size_t size)
        : own_(std::move(own)), elsewhere_(elsewhere), size_(size), prefix_(prefix_of(size)) {}

    size_t size() const { return size_; }
    bool is_sent() const { return sent_ == size_ + prefix_.size(); }

    // Writes what comes next; returns how many bytes.
    size_t write(uint8_t* to, size_t room) {
        size_t written = 0;
        if (sent_ < prefix_.size()) written = copy(to, room, prefix_.data() + sent_, prefix_.size() - sent_);
        if (sent_ >= prefix_.size()) {
            const size_t at = sent_ - prefix_.size();
            written += copy(to + written, room - written, (elsewhere_ ? elsewhere_ : own_.data()) + at, size_ - at);
        }
        return written;
    }

   private:
    static std::string prefix_of(size_t size) {
        const auto byte = [size](int shift) { return static_cast<char>(size >> shift & 0xff); };
        return {'\0', byte(24), byte(16), byte(8), byte(0)};
    }

    size_t copy(uint8_t* to, size_t room, const char* from, size_t size) {
        size = size < room ? size : room;
        if (size) std::memcpy(to, from, size);
        sent_ += size;
        return size;
    }

    std::string own_;
    const char* elsewhere_;
    size_t size_;
    std::string prefix_;
    size_t sent_ = 0;
};

// Gives back the memory of a text, which an assignment would keep.
inline void clear(std::string& text) { std::string().swap(text); }

struct Call {
    explicit Call(int32_t id) : id(id), head_since(now()) {}

    const int32_t id;
    Events closing;     // CLOSED, between OPENED and then, so that there is memory to tell it
    bool paid = false;  // counts the bytes of CALL
    Held held;          // besides, of its peer's
    bool over = false;  // refused here: whatever comes for it is dropped

    // Its head, and since when that has been coming. One that HTTP/2 refuses ends with its stream.
    Time head_since;
    size_t head = 0;
    bool is_post = false, is_grpc = false, has_bad_timeout = false;
    int32_t method = -1;
    bool is_stream = false;
    double timeout = -1;
    Time deadline = 0;
    std::string path, encoding, metadata;

    // What comes: the message that is being received, what came behind those that were not taken yet, and what of both counts.
    char prefix[5];
    size_t prefix_size = 0;
    size_t length = 0;
    std::string message;
    bool is_packed = false;
    bool is_announced = false, is_awaited = false;
    bool has_message = false, half_closed = false, told_half_closed = false;
    std::string backlog;
    std::vector<size_t> ahead;  // of messages that were handed over, what counts of each
    size_t counted = 0;
    int64_t window = WINDOW;  // what the peer may still send

    // What goes.
    std::vector<Piece> pieces;
    bool begun = false, ended = false, complete = false;
    int32_t status = 0;
    std::string trailers;
    Time reply_since = 0;
};

}  // namespace birnn::front
