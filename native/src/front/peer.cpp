// See peer.hpp.

#include "peer.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace birnn::front {

Peer Peer::of(int descriptor) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    char text[INET6_ADDRSTRLEN] = "";
    if (getpeername(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
        if (address.ss_family == AF_INET) {
            const auto& four = reinterpret_cast<const sockaddr_in&>(address);
            inet_ntop(AF_INET, &four.sin_addr, text, sizeof text);
            return {"ipv4:" + std::string(text) + ":" + std::to_string(ntohs(four.sin_port)), std::string("ipv4:") + text};
        }
        if (address.ss_family == AF_INET6) {
            const auto& six = reinterpret_cast<const sockaddr_in6&>(address);
            const auto* bytes = reinterpret_cast<const char*>(&six.sin6_addr);
            inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof text);
            const std::string port = std::to_string(ntohs(six.sin6_port));
            // An address of IPv4 within IPv6 is that host; of others the network of 64 bits is.
            if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) {
                const std::string host = std::string(text).substr(std::string(text).rfind(':') + 1);
                return {"ipv4:" + host + ":" + port, "ipv4:" + host};
            }
            return {"ipv6:%5B" + std::string(text) + "%5D:" + port, "ipv6:" + std::string(bytes, 8)};
        }
    }
    return {"unix:", "unix"};
}

}  // namespace birnn::front
