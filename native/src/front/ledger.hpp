// What all peers hold together, and each of them.

#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>

namespace birnn::front {

struct Held {
    size_t connections = 0;
    size_t calls = 0;
    size_t bytes = 0;  // that have come, heads included, and were not admitted
};

using Kind = size_t Held::*;

// In the order of birnn_front_room.
constexpr std::array<Kind, 3> KINDS{&Held::connections, &Held::calls, &Held::bytes};

inline bool any(const Held& held) { return held.connections || held.calls || held.bytes; }

// A peer by its name, and what it holds. All ports of one address, or all addresses of a network of IPv6, are one.
using Owner = std::pair<const std::string, Held>;

// Bounds what is held. A peer may have at most three quarters of it, but one that holds nothing may take all that is left.
class Ledger {
   public:
    explicit Ledger(const Held& most) : most_(most) {}

    // Takes a connection for the peer of a name, who is known until it holds nothing; null where there is no room.
    Owner* enter(const std::string& name) {
        Owner& owner = *peers_.try_emplace(name).first;
        if (take(owner, &Held::connections, 1)) return &owner;
        give(owner, {});
        return nullptr;
    }

    // Whether there is room for so much more; if so, it is taken.
    bool take(Owner& owner, Kind kind, size_t count) {
        const size_t most = most_.*kind;
        size_t& own = owner.second.*kind;
        if (all_.*kind + count > most || (own && own + count > most / 4 * 3)) return false;
        all_.*kind += count;
        own += count;
        return true;
    }

    void give(Owner& owner, const Held& held) {
        size_t left = 0;
        for (const Kind kind : {&Held::connections, &Held::calls, &Held::bytes}) {
            all_.*kind -= held.*kind;
            left += owner.second.*kind -= held.*kind;
        }
        if (!left) peers_.erase(peers_.find(owner.first));
    }

   private:
    Held all_, most_;
    std::unordered_map<std::string, Held> peers_;
};

}  // namespace birnn::front
