// Drives the gRPC front end with good and hostile clients over real sockets, to be built with sanitizers; see run.sh.
//
//   front SEED CASES   so many connections: some keep to HTTP/2 and gRPC, and all of their calls must end; others send
//                            frames in any order, damaged and cut anywhere, do not read, or go. Another thread answers as the
//                            service would. In the end each call was told once as opened and once as closed, and nothing is
//                            held any more.
// Built with -fno-access-control, as what is held is the front end's own affair.

#include "../src/front/front.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <set>

namespace {

using Random = std::mt19937_64;
using birnn::front::Front;

int64_t between(Random& random, int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random);
}

bool one_in(Random& random, int64_t count) { return between(random, 1, count) == 1; }

void check(bool holds, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "FAILED: %s\n", what.c_str());
    std::_Exit(1);
}

// ---- The service behind the front end.

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
            const size_t count = front_.take(events, static_cast<size_t>(between(random_, 1, 64)));
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

// ---- A client.

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

// A front end with so many connections, one after another and a few at once.
void drive(uint64_t seed, int64_t cases) {
    Random random(seed);
    const bool is_timed = one_in(random, 3);  // limits of time end connections, also good ones
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 && ::listen(listener, 64) == 0, "listen");
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    const char* const paths[] = {"/a/Ask", "/a/Feed", "/a/Chat", nullptr};
    const uint8_t streams[] = {0, 0, 1};
    const double seconds = is_timed ? 0.3 : 600;
    Front front(listener, {paths, streams, 200000, between(random, 1, 20) << 16, 64, between(random, 4, 200), seconds, seconds,
                           2 * seconds});
    Service service(front, seed);
    std::vector<std::unique_ptr<Client>> clients;
    while (cases > 0 || !clients.empty()) {
        if (cases > 0 && clients.size() < 12) {
            clients.push_back(std::make_unique<Client>(random, address, one_in(random, 2), is_timed));
            cases--;
        }
        for (auto& client : clients) {
            if (!client->step()) client.reset();
        }
        clients.erase(std::remove(clients.begin(), clients.end(), nullptr), clients.end());
    }
    service.hurry();
    service.join();
    front.mailbox_.send(std::string("\0\0\0\0\0\0\0\0\xff\xff\xff\xff", 12) +
                        std::string(sizeof(birnn_front_command) - 12, '\0'));
    front.thread_.join();
    front.thread_ = std::thread([] {});
    const auto& held = front.hub_.ledger.all_;
    check(!held.connections && !held.calls && !held.bytes, "still held: " + std::to_string(held.connections) + " connections, " +
                                                               std::to_string(held.calls) + " calls, " +
                                                               std::to_string(held.bytes) + " bytes");
    check(front.hub_.ledger.peers_.size() <= 1, "peers are not forgotten");
}

}  // namespace

int main(int count, char** words) {
    if (count != 3) return std::fprintf(stderr, "usage: front_check SEED CASES\n"), 2;
    const uint64_t seed = std::strtoull(words[1], nullptr, 10);
    const int64_t cases = std::strtoll(words[2], nullptr, 10);
    for (int64_t done = 0; done < cases; done += 200)
        drive(seed * 1000003 + static_cast<uint64_t>(done), std::min<int64_t>(200, cases - done));
    std::printf("front: %lld connections of seed %llu are over\n", static_cast<long long>(cases),
                static_cast<unsigned long long>(seed));
}
