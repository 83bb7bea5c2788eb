// Clients of the front end: those that keep to HTTP/2 and gRPC, and those that do not.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "../src/front/front.hpp"
#include "chance.hpp"

namespace birnn_check {

class Client {
   public:
    Client(Random& random, const sockaddr_in& address, bool is_good, bool is_timed)
        : random_(random), is_good_(is_good), is_timed_(is_timed), reads_(is_good || !one_in(random, 4)),
          descriptor_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), steps_(between(random, 1, 40)) {
        check(connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "connect");
        fcntl(descriptor_, F_SETFL, O_NONBLOCK);
        out_ = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        frame(4, 0, 0, std::string("\0\4\0\x10\0\0", 6));
        if (!is_good && one_in(random, 20)) out_.clear();
    }
    ~Client() { close(descriptor_); }
    Client(const Client&) = delete;

    // Whether it goes on.
    bool step() {
        if (steps_ > 0 && out_.size() < 1 << 20) {
            steps_--;
            is_good_ ? call() : mischief();
        }
        for (auto& [id, body] : bodies_) give(id, body);
        if (reads_) read();
        const size_t part = std::min(out_.size(), static_cast<size_t>(one_in(random_, 2) ? between(random_, 1, 50) : 1 << 16));
        const ssize_t sent = send(descriptor_, out_.data(), part, MSG_NOSIGNAL);
        if (sent > 0) out_.erase(0, static_cast<size_t>(sent));
        if (sent < 0 && errno != EAGAIN) gone_ = true;
        if (is_good_) check(!gone_ || is_timed_, "the connection of a good client was ended");
        return !gone_ && (is_good_ ? steps_ > 0 || !bodies_.empty() : steps_ > 0 || (!out_.empty() && !one_in(random_, 20)));
    }

   private:
    void frame(int type, int flags, uint32_t id, const std::string& payload) {
        const auto size = payload.size();
        for (const size_t byte : {size >> 16, size >> 8, size}) out_ += static_cast<char>(byte);
        out_ += static_cast<char>(type);
        out_ += static_cast<char>(flags);
        number(id);
        out_ += payload;
    }

    void number(uint32_t value) {
        value = htonl(value);
        out_.append(reinterpret_cast<const char*>(&value), 4);
    }

    void update(uint32_t id, uint32_t size) {
        size = htonl(size);
        frame(8, 0, id, std::string(reinterpret_cast<const char*>(&size), 4));
    }

    std::string field(const std::string& name, const std::string& value) {
        std::string found(1, one_in(random_, 3) ? '\x40' : '\0');
        for (const std::string& text : {name, value}) {
            size_t size = text.size();
            found += static_cast<char>(std::min<size_t>(size, 127));
            if (size >= 127) {
                for (size -= 127; size >= 128; size >>= 7) found += static_cast<char>(size % 128 + 128);
                found += static_cast<char>(size);
            }
            found += text;
        }
        return found;
    }

    void head(uint32_t id, int flags) {
        static const char* const PATHS[] = {"/a/Ask", "/a/Feed", "/a/Chat", "/a/Chat", "/a/None"};
        std::string block = field(":method", one_in(random_, 20) ? "GET" : "POST") + field(":scheme", "http") +
                            field(":path", PATHS[between(random_, 0, 4)]) + field(":authority", "a");
        block += field("content-type", one_in(random_, 20) ? "text/html" : "application/grpc") + field("te", "trailers");
        if (one_in(random_, 10)) block += field("grpc-timeout", one_in(random_, 3) ? "x" : one_in(random_, 2) ? "20m" : "9S");
        if (one_in(random_, 3)) block += field("x", std::string(static_cast<size_t>(between(random_, 0, 9000)), 'x'));
        if (one_in(random_, 3)) block += field("grpc-encoding", one_in(random_, 2) ? "gzip" : "identity");
        const size_t part = std::min(block.size(), static_cast<size_t>(between(random_, 50, 16384)));
        frame(1, flags | (part == block.size() ? 4 : 0), id, block.substr(0, part));
        const size_t next = block.size() / 2 + 1;  // in at most three
        for (size_t at = part; at < block.size(); at += next) {
            frame(9, at + next >= block.size() ? 4 : 0, id, block.substr(at, next));
        }
    }

    std::string messages() {
        std::string found;
        for (int64_t count = between(random_, 0, one_in(random_, 5) ? 80 : 2); count > 0; count--) {
            const int64_t size = one_in(random_, 20) ? between(random_, 65000, 300000) : between(random_, 0, 60);
            const uint32_t prefix = htonl(static_cast<uint32_t>(size));
            found += static_cast<char>(one_in(random_, 30));
            found.append(reinterpret_cast<const char*>(&prefix), 4).append(static_cast<size_t>(size), 'm');
        }
        return found;
    }

    void call() {
        if (bodies_.size() > 30) return;
        head(next_, 0);
        windows_[next_] = 65535;
        bodies_[next_] = messages();
        next_ += 2;
        if (one_in(random_, 10)) frame(6, 0, 0, "12345678");
    }

    // Sends more of a body, as far as the windows let it.
    void give(uint32_t id, std::string& body) {
        if (halves_.count(id) || (body.empty() && !one_in(random_, 3))) return;
        const int64_t room = std::min<int64_t>({windows_[0], windows_[id], 16384, between(random_, 1, 40000)});
        const std::string part = body.substr(0, static_cast<size_t>(std::max<int64_t>(room, 0)));
        body.erase(0, part.size());
        windows_[0] -= static_cast<int64_t>(part.size()), windows_[id] -= static_cast<int64_t>(part.size());
        const bool is_last = body.empty() && !one_in(random_, 3), has_trailers = is_last && one_in(random_, 3);
        if (!part.empty() || is_last) frame(0, is_last && !has_trailers, id, part);
        if (has_trailers) frame(1, 5, id, field("x-checksum", "some trailer"));
        if (is_last) halves_.insert(id);
    }

    void mischief() {
        const size_t from = out_.size();
        for (int64_t count = between(random_, 1, 8); count > 0; count--) {
            const auto id = static_cast<uint32_t>(one_in(random_, 2) ? next_ : between(random_, 0, next_));
            const std::string junk(static_cast<size_t>(between(random_, 0, 40)), static_cast<char>(between(random_, 0, 255)));
            switch (between(random_, 0, 9)) {
                case 0:
                case 1:
                case 2: head(next_, one_in(random_, 9)), next_ += 2; break;
                case 3:
                case 4: frame(0, static_cast<int>(one_in(random_, 4)), next_ - 2, messages().substr(0, 16384)); break;
                case 5: frame(3, 0, id, std::string("\0\0\0\x8", 4)); break;
                case 6:
                    for (int64_t more = between(random_, 1, 300); more > 0; more--) frame(6, 0, 0, "12345678");
                    break;
                case 7: update(id, static_cast<uint32_t>(between(random_, 1, one_in(random_, 9) ? 0x7fffffff : 4000))); break;
                case 8: frame(1, 5, id, field("x-checksum", junk)); break;
                default: frame(static_cast<int>(between(random_, 0, 12)), static_cast<int>(between(random_, 0, 63)), id, junk);
            }
        }
        if (!one_in(random_, 4)) return;
        for (int64_t count = between(random_, 1, 4); count > 0 && out_.size() > from; count--) {
            const auto at =
                static_cast<size_t>(between(random_, static_cast<int64_t>(from), static_cast<int64_t>(out_.size()) - 1));
            one_in(random_, 4) ? out_.erase(at, 1) : (out_[at] ^= static_cast<char>(1 << between(random_, 0, 7)), out_);
        }
    }

    // Takes in what the server sends, and lets it send more.
    void read() {
        char bytes[1 << 14];
        const ssize_t size = recv(descriptor_, bytes, sizeof bytes, 0);
        if (size == 0 || (size < 0 && errno != EAGAIN)) gone_ = true;
        if (size > 0) in_.append(bytes, static_cast<size_t>(size));
        while (in_.size() >= 9) {
            const auto byte = [this](size_t at) { return static_cast<uint32_t>(static_cast<uint8_t>(in_[at])); };
            const size_t length = byte(0) << 16 | byte(1) << 8 | byte(2);
            if (in_.size() < 9 + length) return;
            const uint32_t type = byte(3), id = byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8);
            if (type == 8) windows_[id] += byte(9) << 24 | byte(10) << 16 | byte(11) << 8 | byte(12);
            if (type == 4 && !(byte(4) & 1)) frame(4, 1, 0, "");
            if (type == 0 && length && is_good_) update(0, static_cast<uint32_t>(length));
            if (type == 7 && is_good_) check(is_timed_, "a good client was told to go away");
            if (type == 3 || (type <= 1 && byte(4) & 1))
                bodies_.erase(id);
            else if (type == 0 && length && is_good_)
                update(id, static_cast<uint32_t>(length));
            in_.erase(0, 9 + length);
        }
    }

    Random& random_;
    const bool is_good_, is_timed_, reads_;
    const int descriptor_;
    int64_t steps_;
    bool gone_ = false;
    uint32_t next_ = 1;
    std::string out_, in_;
    std::map<uint32_t, std::string> bodies_;
    std::map<uint32_t, int64_t> windows_{{0, 65535}};
    std::set<uint32_t> halves_;
};

}  // namespace birnn_check
