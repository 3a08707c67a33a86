/*
 * Takes from the game what differs from process to process without anybody having asked for it.
 *
 * - Random bytes of the system. LuaJIT seeds the hash of its strings with them, and with it the order in which Lua's
 *   pairs() goes through a table: the order in which the game's own scripts do things.
 * - Addresses. Tables with keys that are no strings, and the engine's sets of pointers, are gone through in their order.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int game;

/* The same bytes at every call: threads may ask in any order. */
static ssize_t fill(void *buffer, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((unsigned char *)buffer)[i] = (unsigned char)(167 * i + 91);
    return (ssize_t)bytes;
}

long syscall(long number, ...) {
    static long (*real)(long, ...);
    va_list given;
    long with[6];
    va_start(given, number);
    for (int i = 0; i < 6; i++) with[i] = va_arg(given, long);
    va_end(given);
    if (game && number == SYS_getrandom) return fill((void *)with[0], (size_t)with[1]);
    if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real(number, with[0], with[1], with[2], with[3], with[4], with[5]);
}

ssize_t getrandom(void *buffer, size_t bytes, unsigned flags) {
    static ssize_t (*real)(void *, size_t, unsigned);
    if (game) return fill(buffer, bytes);
    if (!real) real = (ssize_t (*)(void *, size_t, unsigned))dlsym(RTLD_NEXT, "getrandom");
    return real(buffer, bytes, flags);
}

/* Before all else, for it begins the program anew. Where a container's rules forbid it, addresses go on differing. */
__attribute__((constructor(101))) static void begin(int count, char **words, char **environment) {
    (void)count;
    if (!getenv("ONEIROS_LUANTI_MEMORY")) return;
    game = 1;
    int now = personality(0xffffffff);
    if (now == -1 || now & ADDR_NO_RANDOMIZE || personality((unsigned long)now | ADDR_NO_RANDOMIZE) == -1) return;
    execve("/proc/self/exe", words, environment);
}
