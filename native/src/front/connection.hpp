// One connection of HTTP/2 and its calls.

#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "birnn_front.h"
#include "call.hpp"
#include "ledger.hpp"
#include "limits.hpp"
#include "mailbox.hpp"
#include "peer.hpp"

namespace birnn::front {

struct Method {
    int32_t number;
    bool is_stream;
};

// What connections share.
struct Hub {
    Limits limits;
    Ledger ledger;
    std::unordered_map<std::string, Method> methods;
    Events events;                    // for the other thread
    std::vector<uint64_t> unflushed;  // connections with something to write, or to end
    // Trailers of calls that are refused because there are too many, or too many bytes.
    std::string no_call, no_memory;
    Held refused;       // connections, calls for their number, and calls for bytes
    size_t unpaid = 0;  // calls that count no bytes of CALL, as there was no room
};

// Of google.rpc, those with which a call is refused here.
enum Status { INVALID_ARGUMENT = 3, DEADLINE_EXCEEDED = 4, RESOURCE_EXHAUSTED = 8, UNIMPLEMENTED = 12, INTERNAL = 13 };

class Connection {
   public:
    Connection(Hub& hub, uint64_t number, int descriptor, Peer&& peer, Owner& owner);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    int descriptor() const { return descriptor_; }
    uint64_t number() const { return number_; }
    bool is_dead() const { return dead_; }
    bool reads() const;                               // whether its peer is to be read from
    bool writes() const { return !output_.empty(); }  // whether it waits for its peer to read
    void abort() { dead_ = true; }                    // for want of memory: it is dropped when it is flushed, or looked at, next
    uint32_t interest = 0;                            // what epoll was told

    // Each leaves a connection that must end as dead, and none of them deletes it.
    void receive(std::vector<char>& buffer);
    void flush();
    void tell_opened();  // those that came since the last time
    void look(Time time);
    void command(Call& call, const birnn_front_command& command, const char* bytes);
    void go_away();
    void finish();
    Call* find(int32_t id);

   private:
    friend struct Callbacks;

    static nghttp2_session* session_of(Connection& connection);
    static ssize_t read_callback(nghttp2_session* session, int32_t id, uint8_t* to, size_t room, uint32_t* flags,
                                 nghttp2_data_source* source, void* user);
    void begin_head(int32_t id);
    void field(Call& call, const char* name, size_t name_size, const char* value, size_t value_size);
    void end_head(Call& call);
    bool count(Call& call, size_t size);
    void uncount(Call& call, size_t size);
    void data(Call& call, const char* bytes, size_t size);
    size_t parse(Call& call, const char* bytes, size_t size);
    bool begin_message(Call& call);
    void deliver(Call& call);
    void open(Call& call, Event&& event);
    void half_close(Call& call);
    void top_up(Call& call);
    void admit(Call& call);
    void took(Call& call);
    void send(Call& call, std::string&& own, const char* elsewhere, size_t size);
    void end(Call& call, int32_t status, std::string&& trailers);
    void respond(Call& call, const char* http_status, nghttp2_data_provider* provider);
    void refuse(Call& call, int32_t status, const std::string& message);
    void refuse_for_now(Call& call, Kind kind);
    void refuse_with(Call& call, int32_t status, std::string&& trailers);
    void refuse_http(Call& call, const char* http_status);
    ssize_t read_reply(Call& call, uint8_t* to, size_t room, uint32_t* flags);
    void closed(int32_t id, uint32_t code);
    void release(Call& call);
    void drop(Call& call);
    void begin_frame(const nghttp2_frame_hd& head);
    void tell(Event&& event);
    void tell(Call& call, uint32_t news, uint64_t length = 0);
    Events close(Call& call, uint64_t code);
    void tell_closed(Call& call, uint64_t code);
    void mark();
    void hang_up();
    void fail() { dead_ = true, mark(); }
    uint64_t id_of(const Call& call) const { return number_ << 32 | static_cast<uint32_t>(call.id); }

    Hub& hub_;
    const uint64_t number_;
    const int descriptor_;
    const Peer peer_;
    Owner& owner_;
    nghttp2_session* session_ = nullptr;
    std::unordered_map<int32_t, std::unique_ptr<Call>> calls_;
    std::vector<int32_t> opened_;
    std::deque<std::pair<uint64_t, Events>> sent_;  // calls that are over as soon as so much has been flushed
    Events parting_;                                // DISCONNECTED, once CONNECTED was told
    uint64_t written_ = 0, flushed_ = 0;            // bytes that went into `output_`, and out of it
    std::string output_;
    bool dead_ = false, marked_ = false, greeted_ = false, finished_ = false;
    const Time born_;
    const Time age_;
    Time stalled_since_ = 0, noticed_ = 0, hung_up_ = 0, looked_;
    int continuations_ = 0;
    double pings_ = 0, resets_ = 0;
};

}  // namespace birnn::front
