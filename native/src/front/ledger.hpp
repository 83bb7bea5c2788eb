// What all peers hold together, and each of them.

#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <unordered_map>

namespace birnn::front {

struct Held {
    size_t connections = 0;
    size_t calls = 0;
    size_t bytes = 0;  // that have come, heads included, and were not admitted
};

using Kind = size_t Held::*;

// Bounds what is held. One peer has three quarters of it at most, but whoever holds nothing may take what there is.
class Ledger {
   public:
    explicit Ledger(const Held& most) : most_(most) {}

    // What the peer of a name holds: all ports of one address, or all addresses of a network of IPv6, are one.
    std::shared_ptr<Held> of(const std::string& name) {
        std::weak_ptr<Held>& known = peers_[name];
        std::shared_ptr<Held> held = known.lock();
        if (!held) known = held = std::make_shared<Held>();
        return held;
    }

    // Whether there is room for so much more; if so, it is taken.
    bool take(Held& own, Kind kind, size_t count) {
        const size_t most = most_.*kind;
        if (all_.*kind + count > most || (own.*kind && own.*kind + count > most / 4 * 3)) return false;
        all_.*kind += count;
        own.*kind += count;
        return true;
    }

    void give(Held& own, Kind kind, size_t count) {
        all_.*kind -= count;
        own.*kind -= count;
    }

    // Forgets a name once its last connection is gone.
    void forget(const std::string& name) {
        auto found = peers_.find(name);
        if (found != peers_.end() && found->second.expired()) peers_.erase(found);
    }

   private:
    Held all_, most_;
    std::unordered_map<std::string, std::weak_ptr<Held>> peers_;
};

}  // namespace birnn::front
