// Drives the gRPC front end with HTTP/2 that is good, mutated or random, from several threads at once; built with sanitizers
// by run.sh. Every call that was told must be told as over, once, and a good client must be answered after each round.
//   front SEED ROUNDS

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "birnn_front.h"

namespace {

using Random = std::mt19937_64;

void check(bool good, const char* what) {
    if (good) return;
    std::fprintf(stderr, "front: %s\n", what);
    std::abort();
}

std::string frame(int type, int flags, uint32_t stream, const std::string& payload) {
    const auto size = static_cast<uint32_t>(payload.size());
    std::string all{char(size >> 16), char(size >> 8), char(size), char(type), char(flags)};
    const uint32_t id = htonl(stream);
    return all.append(reinterpret_cast<const char*>(&id), 4) + payload;
}

std::string literal(const std::string& name, const std::string& value) {
    return std::string("\0", 1) + char(name.size()) + name + char(value.size()) + value;
}

std::string head(const char* path) {
    return std::string("\x83\x86", 2) + literal(":authority", "x") + literal(":path", path) +
           literal("content-type", "application/grpc") + literal("x-request-id", "an id");
}

std::string message(const std::string& content) {
    const uint32_t size = htonl(static_cast<uint32_t>(content.size()));
    return std::string(1, '\0').append(reinterpret_cast<const char*>(&size), 4) + content;
}

const std::string GREETING = std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + frame(4, 0, 0, "");

// What a client sends: calls of both methods, long messages, flow control, cancellations, and frames of no use.
std::string session(Random& random) {
    std::string all = GREETING;
    uint32_t last = 0;
    for (int count = random() % 40; count; count--) {
        const uint32_t stream = last && random() % 2 ? 1 + 2 * (random() % (last / 2 + 1)) : last += last ? 2 : 1;
        switch (random() % 12) {
            case 0:
            case 1:
            case 2:
                all += frame(1, 4, stream, head(random() % 2 ? "/unary" : "/stream"));
                all += frame(0, random() % 2, stream, message(std::string(random() % 300, 'x')));
                break;
            case 3: all += frame(1, 4 | (random() % 2), stream, head(random() % 4 ? "/stream" : "/none")); break;
            case 4: all += frame(0, random() % 2, stream, message(std::string(random() % 16000, 'x'))); break;
            case 5: all += frame(0, 0, stream, message(std::string(100000, 'x')).substr(0, 16000)); break;
            case 6: all += frame(0, random() % 2, stream, std::string(random() % 300, 'x')); break;
            case 7: all += frame(3, 0, stream, std::string(3, '\0') + '\x08'); break;
            case 8: all += frame(8, 0, random() % 2 ? stream : 0, std::string("\0\1\0\0", 4)); break;
            case 9: all += frame(4, 0, 0, std::string("\0\4\0\0\0", 5) + char(random() % 100)); break;
            case 10: all += frame(6, 0, 0, "12345678"); break;
            default: all += frame(random() % 12, random() % 256, random() % 3, std::string(random() % 20, char(random() % 256)));
        }
    }
    for (int count = random() % 3 ? random() % 6 : 0; count; count--) {
        const size_t at = GREETING.size() + random() % (all.size() - GREETING.size() + 1);
        switch (random() % 3) {
            case 0:
                if (at < all.size()) all[at] ^= char(1 << random() % 8);
                break;
            case 1: all.resize(at); break;
            default: all.insert(at, std::string(random() % 9, char(random() % 256)));
        }
    }
    return all;
}

int connect_to(uint16_t port) {
    const int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(!connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address), "no connection");
    return descriptor;
}

// Sends it in pieces, reads some of what comes, and leaves.
void attack(uint16_t port, Random& random) {
    const int descriptor = connect_to(port);
    const std::string all = session(random);
    for (size_t at = 0; at < all.size();) {
        const size_t part = std::min(all.size() - at, 1 + random() % (random() % 2 ? 5000 : 50));
        if (send(descriptor, all.data() + at, part, MSG_NOSIGNAL) < 0) break;
        at += part;
    }
    char buffer[4096];
    pollfd wait{descriptor, POLLIN, 0};
    for (int reads = random() % 8; reads && poll(&wait, 1, 5) > 0; reads--) {
        if (recv(descriptor, buffer, sizeof buffer, 0) <= 0) break;
    }
    close(descriptor);
}

void call_well(uint16_t port) {
    const int descriptor = connect_to(port);
    const std::string all = GREETING + frame(1, 4, 1, head("/unary")) + frame(0, 1, 1, message("good"));
    check(send(descriptor, all.data(), all.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(all.size()), "not sent");
    std::string got;
    char buffer[4096];
    while (got.find("reply to good") == got.npos) {
        const ssize_t size = recv(descriptor, buffer, sizeof buffer, 0);
        check(size > 0, "a good client got no reply");
        got.append(buffer, size);
    }
    close(descriptor);
}

// The thread behind the front end: answers in every way there is, and some calls never.
class Answers {
   public:
    Answers(birnn_front* front, uint64_t seed) : front_(front), random_(seed), large_(200000, 'l') {}

    void run(const std::atomic<bool>& stop) {
        std::vector<birnn_front_event> events(64);
        while (!stop || !calls_.empty()) {
            pollfd wait{birnn_front_descriptor(front_), POLLIN, 0};
            poll(&wait, 1, 20);
            const int64_t count = birnn_front_take(front_, events.data(), events.size());
            int64_t size;
            const char* bytes = birnn_front_bytes(front_, &size);
            for (int64_t at = 0; at < count; at++) note(events[at], bytes, size);
            if (!commands_.empty()) birnn_front_send(front_, commands_.data(), commands_.size());
            commands_.clear();
        }
    }

    size_t told = 0;

   private:
    void order(uint64_t id, int32_t order, const std::string& content = "", bool elsewhere = false) {
        const std::string trailers("a\0b\0", 4);
        const birnn_front_command command{id,
                                          order,
                                          0,
                                          elsewhere ? reinterpret_cast<uint64_t>(large_.data()) : 0,
                                          static_cast<uint32_t>(elsewhere ? large_.size() : content.size()),
                                          static_cast<uint32_t>(trailers.size())};
        commands_.append(reinterpret_cast<const char*>(&command), sizeof command);
        if (!elsewhere) commands_ += content;
        commands_ += trailers;
    }

    void note(const birnn_front_event& event, const char* bytes, int64_t size) {
        if (event.news & BIRNN_OPENED) {
            told++;
            check(calls_.insert(event.id).second, "a call was told twice");
            check(event.metadata + event.metadata_size <= static_cast<uint64_t>(size), "metadata beyond the bytes");
        } else if (!(event.news & (BIRNN_CONNECTED | BIRNN_DISCONNECTED | BIRNN_LATE))) {
            check(calls_.count(event.id), "news of a call that is over");
        }
        std::string content;
        if (event.news & BIRNN_MESSAGE) {
            content.assign(
                event.message_size > BIRNN_FRONT_INLINE ? reinterpret_cast<const char*>(event.message) : bytes + event.message,
                event.message_size);
        }
        if (event.news & BIRNN_CLOSED) calls_.erase(event.id);
        const bool is_good = content == "good";
        const auto choice = is_good ? 0 : random_() % 8;
        if (event.news & BIRNN_ANNOUNCED && choice) order(event.id, BIRNN_ADMIT);
        if (!(event.news & BIRNN_MESSAGE)) return;
        switch (choice) {
            case 0:
            case 1: order(event.id, BIRNN_REPLY, "reply to " + content); break;
            case 2: order(event.id, BIRNN_REPLY, "", true); break;
            case 3: order(event.id, BIRNN_SEND, "", true), order(event.id, BIRNN_SEND, content); break;
            case 4: order(event.id, BIRNN_SEND, content), order(event.id, BIRNN_END); break;
            case 5: order(event.id, BIRNN_END); break;
            case 6: order(event.id, 1 + random_() % 5, content); break;
            default: break;
        }
        if (random_() % 2) order(event.id, BIRNN_TOOK);
    }

    birnn_front* front_;
    Random random_;
    const std::string large_;
    std::string commands_;
    std::set<uint64_t> calls_;
};

}  // namespace

int main(int, char** arguments) {
    const uint64_t seed = std::strtoull(arguments[1], nullptr, 10);
    const int rounds = std::atoi(arguments[2]);
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    check(!bind(listener, reinterpret_cast<sockaddr*>(&address), size) && !listen(listener, 128), "no port");
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    const uint16_t port = ntohs(address.sin_port);
    const char* paths[] = {"/unary", "/stream", nullptr};
    const uint8_t streams[] = {0, 1};
    const birnn_front_settings settings{paths, streams, 1 << 20, 1 << 20, 200, 500, 1, 1, 1};
    char error[256] = "";
    birnn_front* front = birnn_front_open(listener, &settings, error, sizeof error);
    check(front, error);
    std::atomic<bool> stop{false};
    Answers answers(front, seed);
    std::thread behind([&] { answers.run(stop); });
    std::vector<std::thread> clients;
    for (uint64_t number = 0; number < 3; number++) {
        clients.emplace_back([=] {
            Random random(seed * 100 + number);
            for (int round = 0; round < rounds; round++) {
                attack(port, random);
                if (round % 10 == 0) call_well(port);
            }
        });
    }
    for (std::thread& client : clients) client.join();
    stop = true;
    behind.join();
    birnn_front_close(front);
    std::printf("front: seed %llu, %d sessions, %zu calls\n", static_cast<unsigned long long>(seed), 3 * rounds, answers.told);
}
