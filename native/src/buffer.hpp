// Memory for vectors: aligned, kept from run to run, never copied when it grows.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace birnn {

class Buffer {
   public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
        other.data_ = nullptr;
        other.bytes_ = 0;
    }
    ~Buffer() { std::free(data_); }

    // Room for `count` values, whose content is undefined; std::bad_alloc where there is none.
    template <class T>
    T* room(size_t count) {
        if (count > SIZE_MAX / 2 / sizeof(T)) throw std::bad_alloc();
        const size_t needed = (count * sizeof(T) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        if (needed > bytes_) {
            std::free(data_);
            bytes_ = 0;
            data_ = std::aligned_alloc(ALIGNMENT, needed);
            if (!data_) throw std::bad_alloc();
            bytes_ = needed;
        }
        return static_cast<T*>(data_);
    }

    template <class T>
    const T* values() const {
        return static_cast<const T*>(data_);
    }

    size_t bytes() const { return bytes_; }

   private:
    static constexpr size_t ALIGNMENT = 64;
    void* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace birnn
