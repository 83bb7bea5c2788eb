// The front end: its thread, all connections, and what passes to and from the thread behind it.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "birnn_front.h"
#include "connection.hpp"
#include "mailbox.hpp"

namespace birnn::front {

// A descriptor that is closed at the end.
class Descriptor {
   public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor() { close(); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    void close();
    void release() { number_ = -1; }  // somebody else owns it
    operator int() const { return number_; }

   private:
    int number_;
};

class Front {
   public:
    Front(int listener, const birnn_front_settings& settings);
    ~Front();
    Front(const Front&) = delete;
    Front& operator=(const Front&) = delete;

    // Of the thread behind it; see birnn_front.h.
    int descriptor() const { return mailbox_.ready.descriptor; }
    size_t take(birnn_front_event* events, size_t most, bool again);
    const std::string& bytes() const { return bytes_; }
    void send(std::string&& commands) { mailbox_.send(std::move(commands)); }

   private:
    void run();
    void turn();
    int wait_milliseconds();
    bool watch(int descriptor, uint64_t key, uint32_t events, bool is_known);
    void tell_failed(const std::string& reason);
    void listen(bool wanted);
    void accept_all();
    void take_in(int descriptor);
    void carry_out(const std::string& commands);
    void order_all(int32_t order);
    void flush();
    void settle(Connection& connection);
    void look();
    uint64_t next_number();
    Connection* find(uint64_t number);

    Descriptor listener_;
    Descriptor poll_;
    std::vector<char> buffer_;  // what is received next
    Mailbox mailbox_;
    Hub hub_;
    std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;
    uint64_t last_number_ = 0;
    bool listens_ = false, leaves_ = false, finishes_ = false, stops_ = false, failed_ = false;
    Time looked_ = 0;
    // Of the thread behind it.
    Events taken_;
    std::string bytes_;
    std::thread thread_;
};

}  // namespace birnn::front
