// Who is at the other end of a connection.

#pragma once

#include <string>

namespace birnn::front {

struct Peer {
    std::string name;   // as gRPC writes it: ipv4:192.0.2.1:40000
    std::string owner;  // without what one host can choose for itself
    static Peer of(int descriptor);
};

}  // namespace birnn::front
