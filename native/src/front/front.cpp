// See front.hpp.

#include "front.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <new>
#include <system_error>

namespace birnn::front {

namespace {

// What epoll says woke it: a connection by its number, or one of these.
constexpr uint64_t LISTENER = 0, WAKE = ~0ull;
// Ends the thread; no order of birnn_front.h.
constexpr int32_t STOP = -1;
constexpr size_t TAKE_BYTES = 1 << 20;

std::string order_of(int32_t order) {
    const birnn_front_command command{0, order, 0, 0, 0, 0};
    return std::string(reinterpret_cast<const char*>(&command), sizeof command);
}

Held most_of(const birnn_front_settings& settings) {
    return {static_cast<size_t>(settings.connections), static_cast<size_t>(settings.calls), static_cast<size_t>(settings.unread)};
}

// What stands before an empty name.
std::string fields_of(const char* text) {
    const char* end = text;
    while (*end) {
        for (int part = 0; part < 2; part++) end += std::strlen(end) + 1;
    }
    return {text, end};
}

// Does what belongs to one connection, and ends that where memory is short.
template <class Body>
void attempt(Connection& connection, Body body) {
    try {
        body(connection);
    } catch (const std::bad_alloc&) {
        connection.abort();
    }
}

void set(int descriptor, int level, int option, int value) { setsockopt(descriptor, level, option, &value, sizeof value); }

}  // namespace

void Descriptor::close() {
    if (number_ >= 0) ::close(number_);
    number_ = -1;
}

Front::Front(int listener, const birnn_front_settings& settings)
    : listener_(listener), poll_(epoll_create1(EPOLL_CLOEXEC)), buffer_(256 << 10),
      hub_{{static_cast<size_t>(settings.message), settings.head_seconds, settings.reply_seconds, settings.age_seconds},
           Ledger(most_of(settings)),
           {},
           {},
           {},
           fields_of(settings.no_call),
           fields_of(settings.no_memory)} {
    if (poll_ < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
    for (int32_t number = 0; settings.paths[number]; number++) {
        hub_.methods[settings.paths[number]] = {number, settings.streams[number] != 0};
    }
    listen(true);
    if (!watch(mailbox_.wake.descriptor, WAKE, EPOLLIN, false) || !listens_) {
        throw std::system_error(errno, std::generic_category(), "epoll_ctl");
    }
    // Signals are for the thread of Python.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        thread_ = std::thread([this] { run(); });
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Front::~Front() {
    mailbox_.send(order_of(STOP));
    thread_.join();
}

size_t Front::take(birnn_front_event* events, size_t most, bool again) {
    if (!again) taken_.clear();
    if (taken_.empty()) mailbox_.take(taken_, most, TAKE_BYTES);
    bytes_.clear();
    birnn_front_event* to = events;
    const auto pack = [this](const std::string& bytes) {
        bytes_ += bytes;
        return bytes_.size() - bytes.size();
    };
    for (const Event& from : taken_) {
        const bool is_large = from.message.size() > BIRNN_FRONT_INLINE;
        const uint64_t message = is_large ? reinterpret_cast<uint64_t>(from.message.data()) : pack(from.message);
        *to++ = {from.id, from.news,           from.method,         from.timeout,        from.length,
                 message, from.message.size(), pack(from.metadata), from.metadata.size()};
    }
    return taken_.size();
}

// ---- What follows is the front end's thread.

void Front::run() {
    while (!stops_) {
        try {
            turn();
            continue;
        } catch (const std::bad_alloc&) {  // it goes on where there is memory
        } catch (const std::system_error& error) {
            tell_failed(error.what());
        }
        // What fails again and again must not take all of a core.
        std::this_thread::sleep_for(std::chrono::duration<double>(LOOK_SECONDS));
    }
    listener_.close();
    connections_.clear();
    hub_.events.clear();
}

void Front::turn() {
    epoll_event woken[128];
    const int count = epoll_wait(poll_, woken, 128, mailbox_.sleep() ? wait_milliseconds() : 0);
    const int error = count < 0 && errno != EINTR ? errno : 0;
    std::vector<std::string> commands;
    Mailbox::Given given;
    mailbox_.collect(commands, given);
    for (const auto& [owner, held] : given) hub_.ledger.give(*owner, held);
    for (const std::string& some : commands) carry_out(some);
    for (int at = 0; at < count; at++) {
        const uint64_t key = woken[at].data.u64;
        if (key == LISTENER) {
            accept_all();
        } else if (key == WAKE) {
            mailbox_.wake.lower();
        } else if (Connection* connection = find(key)) {
            hub_.unflushed.push_back(key);
            attempt(*connection, [&](Connection& one) {
                if (woken[at].events & ~static_cast<uint32_t>(EPOLLOUT)) one.receive(buffer_);
                one.tell_opened();
            });
        }
    }
    look();
    flush();
    mailbox_.publish(hub_.events, hub_.refused);
    if (error) throw std::system_error(error, std::generic_category(), "epoll_wait");
}

// Tells once that the front end may not do what it should.
void Front::tell_failed(const std::string& reason) {
    if (failed_) return;
    failed_ = true;
    try {
        hub_.events.emplace_back(0, BIRNN_FAILED);
        hub_.events.back().metadata = reason;
    } catch (const std::bad_alloc&) {
        failed_ = false;  // said when there is memory
    }
    mailbox_.publish(hub_.events, hub_.refused);
}

int Front::wait_milliseconds() {
    if (!hub_.unflushed.empty()) return 0;
    return connections_.empty() && listens_ ? -1 : static_cast<int>(LOOK_SECONDS * 1000);
}

bool Front::watch(int descriptor, uint64_t key, uint32_t events, bool is_known) {
    epoll_event event{events, {}};
    event.data.u64 = key;
    return epoll_ctl(poll_, is_known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, descriptor, &event) == 0;
}

void Front::listen(bool wanted) {
    if (listener_ < 0 || listens_ == wanted) return;
    listens_ = wanted;
    if (wanted) {
        listens_ = watch(listener_, LISTENER, EPOLLIN, false);
    } else {
        epoll_ctl(poll_, EPOLL_CTL_DEL, listener_, nullptr);
    }
}

void Front::accept_all() {
    // So many at a time, that others have their turn.
    for (int count = 0; count < 64 && listener_ >= 0; count++) {
        const int descriptor = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (descriptor < 0) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            // No descriptors or memory, most likely: it would be tried over and over. The next look tries again.
            if (errno != EAGAIN) listen(false);
            return;
        }
        try {
            take_in(descriptor);
        } catch (const std::bad_alloc&) {  // it is closed
        }
    }
}

void Front::take_in(int descriptor) {
    Descriptor owned(descriptor);
    Peer peer = Peer::of(descriptor);
    set(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
    // Finds out within two minutes that a silent peer is gone.
    set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    set(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, 20);
    set(descriptor, IPPROTO_TCP, TCP_KEEPCNT, 3);
    const uint64_t number = next_number();
    if (!watch(descriptor, number, EPOLLIN, false)) return;
    Owner* owner = hub_.ledger.enter(peer.owner);
    // It is closed without a word: clients take that for a server that cannot be reached, and wait before they try again. After
    // SETTINGS and GOAWAY they would try again at once.
    if (!owner) return void(hub_.refused.connections++);
    std::unique_ptr<Connection> connection;
    try {
        connection = std::make_unique<Connection>(hub_, number, descriptor, std::move(peer), *owner);
    } catch (...) {
        hub_.ledger.give(*owner, {1, 0, 0});
        throw;
    }
    owned.release();
    connection->interest = EPOLLIN;
    connections_[number] = std::move(connection);
}

void Front::carry_out(const std::string& commands) {
    birnn_front_command command;
    for (size_t at = 0; at + sizeof command <= commands.size();) {
        std::memcpy(&command, commands.data() + at, sizeof command);
        at += sizeof command;
        const size_t size = (command.message ? 0 : size_t{command.size}) + command.trailers;
        if (size > commands.size() - at) return;
        if (!command.id) {
            order_all(command.order);
        } else if (Connection* connection = find(command.id >> 32)) {
            if (Call* call = connection->find(static_cast<int32_t>(command.id))) {
                attempt(*connection, [&](Connection& one) { one.command(*call, command, commands.data() + at); });
            }
        }
        at += size;
    }
}

void Front::order_all(int32_t order) {
    stops_ |= order == STOP;
    leaves_ |= order == BIRNN_GOAWAY || order == BIRNN_FINISH;
    finishes_ |= order == BIRNN_FINISH;
    if (leaves_) {
        listen(false);
        listener_.close();
    }
    for (auto& [number, connection] : connections_) {
        attempt(*connection, [this](Connection& one) {
            if (finishes_) {
                one.finish();
            } else if (leaves_) {
                one.go_away();
            }
        });
    }
}

void Front::flush() {
    std::vector<uint64_t> unflushed;
    unflushed.swap(hub_.unflushed);
    std::sort(unflushed.begin(), unflushed.end());
    unflushed.erase(std::unique(unflushed.begin(), unflushed.end()), unflushed.end());
    for (const uint64_t number : unflushed) {
        Connection* connection = find(number);
        if (!connection) continue;
        attempt(*connection, [](Connection& one) { one.flush(); });
        settle(*connection);
        if (connection->is_dead()) connections_.erase(number);
    }
}

// Has epoll look for what the connection waits for.
void Front::settle(Connection& connection) {
    const uint32_t interest = (connection.reads() ? EPOLLIN : 0u) | (connection.writes() ? EPOLLOUT : 0u);
    if (interest == connection.interest || connection.is_dead()) return;
    connection.interest = interest;
    if (!watch(connection.descriptor(), connection.number(), interest, true)) connection.abort();
}

void Front::look() {
    const Time time = now();
    if (time - looked_ < LOOK_SECONDS) return;
    looked_ = time;
    listen(true);
    for (auto& [number, connection] : connections_) {
        attempt(*connection, [time](Connection& one) { one.look(time); });
    }
}

// Numbers have 32 bits: those that are in use are left out when they begin anew.
uint64_t Front::next_number() {
    do {
        last_number_ = last_number_ % UINT32_MAX + 1;
    } while (find(last_number_));
    return last_number_;
}

Connection* Front::find(uint64_t number) {
    const auto found = connections_.find(number);
    return found == connections_.end() ? nullptr : found->second.get();
}

}  // namespace birnn::front
