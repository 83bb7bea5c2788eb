/* The gRPC front end of birnn-serving: HTTP/2 by nghttp2 in a thread of its own, calls and replies handed over many at once.
 *
 * One thread of the caller's takes events and sends commands; all else happens in the front end's thread. Each call is told
 * once as OPENED and once as CLOSED, and nothing of it comes after CLOSED. Calls, connections and bytes count for the limits
 * until the events that tell of their end, or bring them, were taken. */
#ifndef BIRNN_FRONT_H
#define BIRNN_FRONT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define BIRNN_FRONT_PUBLIC __attribute__((visibility("default")))
#else
#define BIRNN_FRONT_PUBLIC
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct birnn_front birnn_front;

/* What happened; an event may say several. */
enum birnn_front_news {
    BIRNN_OPENED = 1,         /* a call came: `method`, `timeout` (seconds, below 0 for none), `metadata` */
    BIRNN_MESSAGE = 2,        /* `message` */
    BIRNN_HALF_CLOSED = 4,    /* the caller sends no more messages */
    BIRNN_ANNOUNCED = 8,      /* a message of `length` bytes begins, which comes once it is admitted */
    BIRNN_TAKEN = 16,         /* `length` bytes of messages of a stream have been handed to the network */
    BIRNN_CLOSED = 32,        /* the call is over; `length` is HTTP/2's error code, 0 where its reply was sent */
    BIRNN_CONNECTED = 64,     /* `metadata` is the peer of the connection id >> 32 */
    BIRNN_DISCONNECTED = 128, /* that connection is over */
    BIRNN_LATE = 256,         /* it was ended, because its peer took too long to take a reply */
    BIRNN_PACKED = 512,       /* `message` is gzip */
    BIRNN_REFUSED = 1024,     /* id 0: `length` connections or calls were refused, and not told, for want of room `method` */
    BIRNN_FAILED = 2048       /* id 0, told once: `metadata` is why calls may not be taken any more */
};

/* For want of what something is refused. */
enum birnn_front_room {
    BIRNN_CONNECTIONS = 0, /* a connection: there may be no more */
    BIRNN_CALLS = 1,       /* a call: there may be no more */
    BIRNN_UNREAD = 2       /* a call: no more bytes may wait to be admitted */
};

/* Messages above this size are where `message` points; others at that offset in the bytes of birnn_front_bytes. */
#define BIRNN_FRONT_INLINE 65536

typedef struct birnn_front_event {
    uint64_t id; /* connection << 32 | stream */
    uint32_t news;
    int32_t method;
    double timeout;
    uint64_t length;
    uint64_t message, message_size;
    uint64_t metadata, metadata_size; /* an offset; name NUL value NUL ... */
} birnn_front_event;

enum birnn_front_order {
    BIRNN_SEND = 1,   /* a message of a stream */
    BIRNN_REPLY = 2,  /* the only message of a call, and its end */
    BIRNN_END = 3,    /* the end of a call: its status and trailers */
    BIRNN_ADMIT = 4,  /* the message that was announced may come */
    BIRNN_TOOK = 5,   /* a message of a stream was taken: the next ones may come */
    BIRNN_GOAWAY = 6, /* id 0: accept no connections, and tell clients to reconnect elsewhere */
    BIRNN_FINISH = 7  /* id 0: take no calls, and close connections as soon as those under way have ended */
};

/* Before the bytes of each command: `size` bytes of message unless `message` points to them, then `trailers` bytes, name NUL
 * value NUL ... A message that is pointed to must stay where it is until the call is CLOSED, or that much was TAKEN. */
typedef struct birnn_front_command {
    uint64_t id;
    int32_t order;
    int32_t status;
    uint64_t message;
    uint32_t size;
    uint32_t trailers;
} birnn_front_command;

typedef struct birnn_front_settings {
    const char* const* paths; /* of the methods, ended by NULL */
    const uint8_t* streams;   /* of each method, whether calls hold many messages */
    int64_t message;          /* largest one, in bytes */
    int64_t unread;           /* most bytes of what has come and was not admitted, heads included */
    int64_t connections;      /* most of them */
    int64_t calls;            /* most of them */
    double head_seconds;      /* how long a head, and the first frame of a connection, may take */
    double reply_seconds;     /* how long a peer may take to take a reply */
    double age_seconds;       /* when a connection is asked to end, and as long again until it is ended */
    const char* no_call;      /* trailers of calls beyond `calls`, besides RESOURCE_EXHAUSTED: name NUL value NUL ... NUL */
    const char* no_memory;    /* of those beyond `unread` */
} birnn_front_settings;

/* Begins to take calls from the descriptor of a socket that listens, and owns it from then on; NULL where that fails. */
BIRNN_FRONT_PUBLIC birnn_front* birnn_front_open(int32_t listener, const birnn_front_settings* settings, char* error,
                                                 size_t error_size);

/* An eventfd that can be read while there are events. */
BIRNN_FRONT_PUBLIC int32_t birnn_front_descriptor(const birnn_front* front);

/* Writes at most `most` events and returns how many; what they point to is valid until the next call. -1 for want of memory.
 * With `again`, and `most` as before, they are those of the call before, if it had any: so nothing is lost where memory is
 * short, here or in the caller. */
BIRNN_FRONT_PUBLIC int64_t birnn_front_take(birnn_front* front, birnn_front_event* events, int64_t most, int32_t again);

/* The bytes that the offsets of the last birnn_front_take are in; `size` is how many. */
BIRNN_FRONT_PUBLIC const char* birnn_front_bytes(const birnn_front* front, int64_t* size);

/* Carries out commands: each a birnn_front_command and its bytes. Those for calls that have ended are left out. Returns 0, or
 * -1 for want of memory. */
BIRNN_FRONT_PUBLIC int32_t birnn_front_send(birnn_front* front, const char* commands, int64_t size);

/* Ends all connections and the thread. */
BIRNN_FRONT_PUBLIC void birnn_front_close(birnn_front* front);

#ifdef __cplusplus
}
#endif

#endif
