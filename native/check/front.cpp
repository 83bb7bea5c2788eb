// Drives the gRPC front end with good and hostile clients over real sockets, to be built with sanitizers; see run.sh.
//
//   front SEED CASES   so many connections: some keep to HTTP/2 and gRPC, and all of their calls must end; others send
//                      frames in any order, damaged and cut anywhere, do not read, or go. Another thread answers as the
//                      service would. In the end each call was told once as opened and once as closed, and nothing is
//                      held any more.
// Built with -fno-access-control, as what is held is the front end's own affair.

#include <cstdio>
#include <cstdlib>

#include "chance.hpp"
#include "front_client.hpp"
#include "front_service.hpp"

namespace {

using namespace birnn_check;

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
                           2 * seconds, "grpc-message\0no call\0", "grpc-message\0no memory\0"});
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
    check(front.hub_.ledger.peers_.empty() && !front.hub_.unpaid, "peers are not forgotten");
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
