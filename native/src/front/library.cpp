// What include/birnn_front.h declares.

#include <cstdio>
#include <exception>
#include <new>

#include "front.hpp"

struct birnn_front {
    birnn::front::Front front;
    birnn_front(int listener, const birnn_front_settings& settings) : front(listener, settings) {}
};

birnn_front* birnn_front_open(int32_t listener, const birnn_front_settings* settings, char* error, size_t error_size) {
    try {
        return new birnn_front(listener, *settings);
    } catch (const std::exception& caught) {
        std::snprintf(error, error_size, "%s", caught.what());
        return nullptr;
    }
}

int32_t birnn_front_descriptor(const birnn_front* front) { return front->front.descriptor(); }

int64_t birnn_front_take(birnn_front* front, birnn_front_event* events, int64_t most, int32_t again) {
    try {
        return static_cast<int64_t>(front->front.take(events, static_cast<size_t>(most), again != 0));
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

const char* birnn_front_bytes(const birnn_front* front, int64_t* size) {
    *size = static_cast<int64_t>(front->front.bytes().size());
    return front->front.bytes().data();
}

int32_t birnn_front_send(birnn_front* front, const char* commands, int64_t size) {
    try {
        front->front.send(std::string(commands, static_cast<size_t>(size)));
        return 0;
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

void birnn_front_close(birnn_front* front) { delete front; }
