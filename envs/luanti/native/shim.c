/*
 * Preloaded into Luanti's client (with its server inside): makes it step when told, and the same way every time.
 *
 * One step is one frame: the client reads its input, moves the player, draws; the server then takes what the client
 * sent, runs one step of its own and answers; maps are generated and meshed. Each of these has its turn, and the next
 * one begins when the last has nothing left to do:
 *
 *   client (main thread) -> network threads -> server -> network threads, map generator, mesh builder -> client ...
 *
 * - Time of the game's threads is a counter that each step advances by STEP_NS.
 * - UDP between client and server is a queue in this process: no port is opened, nothing is lost, nothing is late.
 * - Keys, buttons and the pointer are put into the client's event queue; the X server's own input is not used.
 * - The picture is read before it would be shown, into the memory that the driver shares with this process.
 * - When the driver ends, however it ends, this process ends too and removes its folder.
 *
 * The driver's half is oneiros.envs.luanti.instance; the layout of the memory is in oneiros.envs.luanti.memory.
 */
#define _GNU_SOURCE
#include <X11/Xlib.h>
#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STEP_NS 50000000LL
#define EPOCH 1600000000LL    /* what time() says at the start: random seeds come from it */
#define CALLS_PER_TICK 100000 /* readings of the clock in one step after which it moves, so that no loop waits forever */
#define MOST_LOADING_STEPS 20000
#define SETTLED_STEPS 20 /* steps without a map block on its way, before the first picture is given out */
#define MOST_SETTLING_STEPS 1200
#define BLOCK_BYTES 300 /* datagrams of the server larger than this carry the map */
#define FRAME_OFFSET 65536

enum { LOADING = 0, READY = 1, PLAYING = 2 };

/* The first 64 bytes of the shared memory; what the game's Lua writes lies between here and FRAME_OFFSET. */
struct shared {
    volatile int32_t keys, turn_x, turn_y, command, phase, width, height, frames;
    volatile int32_t request, request_bytes, answer, answer_bytes, settling, map_packets, capacity, seed;
};

enum role { NONE, SENDER, RECEIVER, SERVER, EMERGE, MESH, ROLES };

struct worker {
    enum role role;
    int idle;
    int sent;            /* datagrams since it last went to sleep */
    int woken;           /* it has been woken and has not yet waited for its turn */
    const void *waiting; /* the semaphore, condition or socket that it sleeps on */
};

struct datagram {
    struct datagram *next;
    uint16_t from;
    size_t size;
    unsigned char data[];
};

struct wire { /* one UDP socket of the game */
    int used;
    uint16_t port;
    pthread_cond_t arrived;
    struct datagram *first, *last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Each is for one kind of waiting, so that nobody is woken in vain: every wake-up costs as much as a small mesh. */
static pthread_cond_t quiet = PTHREAD_COND_INITIALIZER; /* the client: a role is idle */
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;  /* the map generator and the mesh builder */
static pthread_cond_t serve = PTHREAD_COND_INITIALIZER; /* the server */
static struct worker workers[64];
static int worker_count, busy[ROLES];
static int server_may_run, client_waits; /* whose turn it is */
static __thread struct worker *self;
static __thread int game_thread; /* 1: its clock is the game's; -1: it is not; 0: not known yet */

static struct shared *shared;
static int channel = -1, owner, game;
static char *scratch;
static int64_t now_ns = 1000000000000LL, calls;
static struct wire wires[1024];
static uint16_t next_port = 20000;
static int server_bytes;

/* ---- whose turn it is ------------------------------------------------------------------------------------------- */

static void set_idle(struct worker *worker, int idle) {
    if (worker->idle == idle) return;
    worker->idle = idle;
    busy[worker->role] += idle ? -1 : 1;
    if (busy[worker->role]) return;
    pthread_cond_signal(&quiet);
    if (worker->role == SERVER) pthread_cond_broadcast(&turn);
}

static void wake(const void *what) {
    for (int i = 0; i < worker_count; i++)
        if (workers[i].waiting == what) set_idle(&workers[i], 0);
}

static void enlist(const char *name) {
    enum role role = !strcmp(name, "ConnectionSend")            ? SENDER
                     : !strncmp(name, "ConnectionReceive", 15)  ? RECEIVER
                     : !strcmp(name, "Server")                  ? SERVER
                     : !strncmp(name, "Emerge-", 7)             ? EMERGE
                     : !strncmp(name, "Mesh", 4)               ? MESH
                                                                : NONE;
    /* The network's too: by real time, on a busy machine, it would send again what has not been acknowledged yet. */
    game_thread = role == NONE ? -1 : 1;
    if (role == NONE || self) return;
    pthread_mutex_lock(&lock);
    if (worker_count == (int)(sizeof workers / sizeof *workers)) abort();
    self = &workers[worker_count++];
    self->role = role;
    busy[role]++;
    pthread_mutex_unlock(&lock);
}

int prctl(int option, ...) {
    unsigned long words[4];
    va_list list;
    va_start(list, option);
    for (int i = 0; i < 4; i++) words[i] = va_arg(list, unsigned long);
    va_end(list);
    if (game && option == PR_SET_NAME) enlist((const char *)words[0]);
    return (int)syscall(SYS_prctl, option, words[0], words[1], words[2], words[3]);
}

static void wait_until_idle(enum role first, enum role last) {
    for (;;) {
        int any = 0;
        for (enum role role = first; role <= last; role++) any += busy[role];
        if (!any) return;
        pthread_cond_wait(&quiet, &lock);
    }
}

/* The map generator and the mesh builder work while the others wait, so that nobody sees half of what they do. */
static void wait_for_turn(void) {
    if (self->role == EMERGE)
        while (busy[SERVER]) pthread_cond_wait(&turn, &lock);
    if (self->role == MESH)
        while (!client_waits) pthread_cond_wait(&turn, &lock);
}

static int real_wait(sem_t *semaphore, const struct timespec *until) {
    static int (*forever)(sem_t *);
    static int (*timed)(sem_t *, const struct timespec *);
    if (!forever) forever = (int (*)(sem_t *))dlsym(RTLD_NEXT, "sem_wait");
    if (!timed) timed = (int (*)(sem_t *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
    return until ? timed(semaphore, until) : forever(semaphore);
}

static int wait_in_turn(sem_t *semaphore, const struct timespec *until) {
    if (!self) return real_wait(semaphore, until);
    pthread_mutex_lock(&lock);
    if (self->role == SERVER && until) {
        /* The server sleeps here between two steps: until its turn, and not for as long as it asks. */
        if (!server_may_run) set_idle(self, 1);
        while (!server_may_run) pthread_cond_wait(&serve, &lock);
        server_may_run = 0;
        set_idle(self, 0);
        pthread_mutex_unlock(&lock);
        if (!sem_trywait(semaphore)) return 0;
        errno = ETIMEDOUT;
        return -1;
    }
    if (self->role == SENDER && until && self->sent) {
        /* It sends a part of what is queued each time that it looks, and would look again in 50 ms of real time. */
        self->sent = 0;
        pthread_mutex_unlock(&lock);
        if (!sem_trywait(semaphore)) return 0;
        errno = ETIMEDOUT;
        return -1;
    }
    if (sem_trywait(semaphore)) {
        self->waiting = semaphore;
        set_idle(self, 1);
        pthread_mutex_unlock(&lock);
        int result = real_wait(semaphore, until), error = errno;
        pthread_mutex_lock(&lock);
        self->waiting = NULL;
        set_idle(self, 0);
        wait_for_turn();
        pthread_mutex_unlock(&lock);
        errno = error;
        return result;
    }
    wait_for_turn();
    pthread_mutex_unlock(&lock);
    return 0;
}

int sem_wait(sem_t *semaphore) { return wait_in_turn(semaphore, NULL); }

int sem_timedwait(sem_t *semaphore, const struct timespec *until) { return wait_in_turn(semaphore, until); }

int sem_post(sem_t *semaphore) {
    static int (*post)(sem_t *);
    if (!post) post = (int (*)(sem_t *))dlsym(RTLD_NEXT, "sem_post");
    if (!worker_count) return post(semaphore);
    /* Both under the lock: one who looked in between would go to sleep as if it had nothing to do, and count as idle
     * until the system lets it run again, which on a busy machine is after the step has ended without what it does. */
    pthread_mutex_lock(&lock);
    wake(semaphore);
    int result = post(semaphore), error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

/* std::condition_variable::wait and notify_one, which the map generator's event is made of. */
void condition_wait(void *condition, void *guard) __asm__("_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE");
void condition_notify(void *condition) __asm__("_ZNSt18condition_variable10notify_oneEv");

void condition_wait(void *condition, void *guard) {
    static void (*next)(void *, void *);
    if (!next)
        next = (void (*)(void *, void *))dlsym(RTLD_NEXT, "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE");
    if (!self) {
        next(condition, guard);
        return;
    }
    pthread_mutex_lock(&lock);
    self->waiting = condition;
    set_idle(self, 1);
    pthread_mutex_unlock(&lock);
    next(condition, guard);
    pthread_mutex_lock(&lock);
    self->waiting = NULL;
    set_idle(self, 0);
    /* The caller holds the mutex of the condition, so that it waits for its turn where it takes the next mutex. */
    self->woken = 1;
    pthread_mutex_unlock(&lock);
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    static int (*next)(pthread_mutex_t *);
    if (!next) next = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    if (self && self->woken) {
        self->woken = 0;
        next(&lock);
        wait_for_turn();
        pthread_mutex_unlock(&lock);
    }
    return next(mutex);
}

void condition_notify(void *condition) {
    static void (*next)(void *);
    if (!next) next = (void (*)(void *))dlsym(RTLD_NEXT, "_ZNSt18condition_variable10notify_oneEv");
    if (worker_count) {
        pthread_mutex_lock(&lock);
        wake(condition);
        pthread_mutex_unlock(&lock);
    }
    next(condition);
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static int in_game(void) {
    if (!game_thread) game_thread = game && syscall(SYS_gettid) == getpid() ? 1 : -1;
    return game_thread > 0;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!in_game() || (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_RAW))
        return (int)syscall(SYS_clock_gettime, clock, time);
    if (__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) > CALLS_PER_TICK) {
        __atomic_store_n(&calls, 0, __ATOMIC_RELAXED);
        __atomic_add_fetch(&now_ns, 1000000, __ATOMIC_RELAXED);
    }
    int64_t now = __atomic_load_n(&now_ns, __ATOMIC_RELAXED);
    time->tv_sec = now / 1000000000;
    time->tv_nsec = now % 1000000000;
    return 0;
}

time_t time(time_t *result) {
    time_t now = EPOCH + (game ? (time_t)(now_ns / 1000000000) : 0);
    if (!game) {
        struct timespec real;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &real);
        now = real.tv_sec;
    }
    if (result) *result = now;
    return now;
}

/* ---- the network inside this process --------------------------------------------------------------------------- */

static struct wire *wire_of(int file) {
    return file >= 0 && file < (int)(sizeof wires / sizeof *wires) && wires[file].used ? &wires[file] : NULL;
}

int socket(int domain, int type, int protocol) {
    int file = (int)syscall(SYS_socket, domain, type, protocol);
    if (game && domain == AF_INET && (type & 0xf) == SOCK_DGRAM && file >= 0 && file < 1024) {
        pthread_mutex_lock(&lock);
        wires[file] = (struct wire){.used = 1, .arrived = PTHREAD_COND_INITIALIZER};
        pthread_mutex_unlock(&lock);
    }
    return file;
}

int bind(int file, const struct sockaddr *address, socklen_t size) {
    struct wire *wire = wire_of(file);
    if (!wire) return (int)syscall(SYS_bind, file, address, size);
    pthread_mutex_lock(&lock);
    uint16_t port = ntohs(((const struct sockaddr_in *)address)->sin_port);
    wire->port = port ? port : next_port++;
    pthread_mutex_unlock(&lock);
    return 0;
}

ssize_t sendto(int file, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t to_size) {
    struct wire *wire = wire_of(file);
    if (!wire) return syscall(SYS_sendto, file, data, size, flags, to, to_size);
    struct datagram *datagram = malloc(sizeof *datagram + size);
    if (!datagram) abort();
    datagram->next = NULL;
    datagram->size = size;
    memcpy(datagram->data, data, size);
    uint16_t port = ntohs(((const struct sockaddr_in *)to)->sin_port);
    pthread_mutex_lock(&lock);
    if (!wire->port) wire->port = next_port++;
    datagram->from = wire->port;
    struct wire *target = NULL;
    for (size_t i = 0; i < sizeof wires / sizeof *wires && !target; i++)
        if (wires[i].used && wires[i].port == port) target = &wires[i];
    if (target) {
        if (target->last) target->last->next = datagram;
        else target->first = datagram;
        target->last = datagram;
        if (self) self->sent++;
        if (port < 20000 || port > 40000) { /* to the client, which has a port of ours */
        } else if (size > BLOCK_BYTES) server_bytes += (int)size;
        wake(target);
        pthread_cond_signal(&target->arrived);
    } else {
        free(datagram);
    }
    pthread_mutex_unlock(&lock);
    return (ssize_t)size;
}

int select(int count, fd_set *reads, fd_set *writes, fd_set *errors, struct timeval *timeout) {
    struct wire *wire = count > 0 && reads ? wire_of(count - 1) : NULL;
    if (!wire || !FD_ISSET(count - 1, reads)) return (int)syscall(SYS_select, count, reads, writes, errors, timeout);
    struct timespec until;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &until);
    if (timeout) {
        until.tv_sec += timeout->tv_sec;
        until.tv_nsec += timeout->tv_usec * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
    }
    int late = 0;
    pthread_mutex_lock(&lock);
    while (!wire->first && !late) {
        if (self) {
            self->waiting = wire;
            set_idle(self, 1);
        }
        late = pthread_cond_timedwait(&wire->arrived, &lock, &until) == ETIMEDOUT;
    }
    if (self) {
        self->waiting = NULL;
        set_idle(self, 0);
    }
    int found = wire->first != NULL;
    pthread_mutex_unlock(&lock);
    if (!found) FD_ZERO(reads);
    return found;
}

ssize_t recvfrom(int file, void *data, size_t size, int flags, struct sockaddr *from, socklen_t *from_size) {
    struct wire *wire = wire_of(file);
    if (!wire) return syscall(SYS_recvfrom, file, data, size, flags, from, from_size);
    pthread_mutex_lock(&lock);
    struct datagram *datagram = wire->first;
    if (datagram) {
        wire->first = datagram->next;
        if (!wire->first) wire->last = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (!datagram) {
        errno = EAGAIN;
        return -1;
    }
    if (datagram->size < size) size = datagram->size;
    memcpy(data, datagram->data, size);
    if (from && from_size && *from_size >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in *address = (struct sockaddr_in *)from;
        memset(address, 0, sizeof *address);
        address->sin_family = AF_INET;
        address->sin_port = htons(datagram->from);
        address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        *from_size = sizeof *address;
    }
    free(datagram);
    return (ssize_t)size;
}

int close(int file) {
    if (wire_of(file)) {
        pthread_mutex_lock(&lock);
        wires[file].used = 0;
        pthread_mutex_unlock(&lock);
    }
    return (int)syscall(SYS_close, file);
}

/* ---- input ------------------------------------------------------------------------------------------------------ */

static Window window;
static int focused, held, offset_x, offset_y;

Window XCreateWindow(Display *display, Window parent, int x, int y, unsigned width, unsigned height, unsigned border,
                     int depth, unsigned class, Visual *visual, unsigned long mask, XSetWindowAttributes *attributes) {
    static Window (*next)(Display *, Window, int, int, unsigned, unsigned, unsigned, int, unsigned, Visual *,
                          unsigned long, XSetWindowAttributes *);
    if (!next) next = (__typeof__(next))dlsym(RTLD_NEXT, "XCreateWindow");
    Window made =
        next(display, parent, x, y, width, height, border, depth, class, visual, mask, attributes);
    if (game && (!window || width > 1)) window = made;
    return made;
}

/* The pointer is in the middle of the window, displaced by how far the camera shall turn. */
Bool XQueryPointer(Display *display, Window where, Window *root, Window *child, int *root_x, int *root_y, int *x, int *y,
                   unsigned *mask) {
    (void)display;
    *root = *child = where;
    *root_x = *x = shared->width / 2 + offset_x;
    *root_y = *y = shared->height / 2 + offset_y;
    *mask = 0;
    return True;
}

int XWarpPointer(Display *display, Window from, Window to, int from_x, int from_y, unsigned width, unsigned height,
                 int x, int y) {
    (void)display, (void)from, (void)to, (void)from_x, (void)from_y, (void)width, (void)height, (void)x, (void)y;
    offset_x = offset_y = 0;
    return 1;
}

int XIWarpPointer(Display *display, int device, Window from, Window to, double from_x, double from_y, unsigned width,
                  unsigned height, double x, double y) {
    (void)display, (void)device, (void)from, (void)to, (void)from_x, (void)from_y, (void)width, (void)height;
    (void)x, (void)y;
    offset_x = offset_y = 0;
    return 0;
}

static void put_back(Display *display, XEvent *event, int type) {
    event->type = type;
    event->xany.display = display;
    event->xany.window = window;
    XPutBackEvent(display, event);
}

/* Bits of `keys`: forward, back, left, right, jump, sneak, attack. */
static void put_input(Display *display) {
    static const KeySym symbols[] = {'w', 's', 'a', 'd', ' ', 0xffe1};
    const int attack = sizeof symbols / sizeof *symbols;
    int keys = shared->keys, differ = keys ^ held;
    for (int pressed = 1; pressed >= 0; pressed--) /* what is put back last is read first: releases, then presses */
        for (int i = 0; i <= attack; i++) {
            if (!(differ >> i & 1) || (keys >> i & 1) != pressed) continue;
            XEvent event;
            memset(&event, 0, sizeof event);
            if (i == attack) {
                event.xbutton.root = DefaultRootWindow(display);
                event.xbutton.time = (Time)(now_ns / 1000000);
                event.xbutton.x = shared->width / 2;
                event.xbutton.y = shared->height / 2;
                event.xbutton.button = Button1;
                event.xbutton.state = pressed ? 0 : Button1Mask;
                event.xbutton.same_screen = True;
                put_back(display, &event, pressed ? ButtonPress : ButtonRelease);
            } else {
                event.xkey.root = DefaultRootWindow(display);
                event.xkey.time = (Time)(now_ns / 1000000);
                event.xkey.keycode = XKeysymToKeycode(display, symbols[i]);
                event.xkey.same_screen = True;
                put_back(display, &event, pressed ? KeyPress : KeyRelease);
            }
        }
    held = keys;
    offset_x = shared->turn_x;
    offset_y = shared->turn_y;
    if (!focused) {
        XEvent event;
        memset(&event, 0, sizeof event);
        put_back(display, &event, FocusIn);
        focused = 1;
    }
}

/* ---- the end of the game --------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *state, int kind, struct FTW *place) {
    (void)state, (void)kind, (void)place;
    remove(path);
    return 0;
}

/* Nothing of the game outlives its driver; whichever thread sees that first does it. */
static void end_game(void) {
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&once);
    /* Threads that still run may write while their folder goes. */
    for (int i = 0; scratch && i < 100 && !access(scratch, F_OK); i++)
        nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    for (;;) kill(getpid(), SIGKILL);
}

/* ---- one frame -------------------------------------------------------------------------------------------------- */

static void run_turns(void) {
    pthread_mutex_lock(&lock);
    client_waits = 1;
    server_bytes = 0;
    pthread_cond_broadcast(&turn);
    wait_until_idle(SENDER, RECEIVER);
    for (int i = 0; i < worker_count; i++)
        if (workers[i].role == SERVER) {
            wait_until_idle(SERVER, SERVER);
            server_may_run = 1;
            set_idle(&workers[i], 0);
            pthread_cond_signal(&serve);
            break;
        }
    wait_until_idle(SENDER, MESH);
    client_waits = 0;
    pthread_mutex_unlock(&lock);
    shared->map_packets = server_bytes;
}

static void read_picture(void) {
    static void (*get)(unsigned, int *);
    static void (*store)(unsigned, int);
    static void (*read)(int, int, int, int, unsigned, unsigned, void *);
    if (!get) {
        void *library = dlopen("libGL.so.1", RTLD_LAZY);
        get = (void (*)(unsigned, int *))dlsym(library, "glGetIntegerv");
        store = (void (*)(unsigned, int))dlsym(library, "glPixelStorei");
        read = (void (*)(int, int, int, int, unsigned, unsigned, void *))dlsym(library, "glReadPixels");
    }
    int viewport[4];
    get(0x0BA2 /* GL_VIEWPORT */, viewport);
    shared->width = viewport[2];
    shared->height = viewport[3];
    if (viewport[2] * viewport[3] * 3 + FRAME_OFFSET > shared->capacity) {
        fprintf(stderr, "oneiros: the window is %d x %d\n", viewport[2], viewport[3]);
        _exit(3);
    }
    store(0x0D05 /* GL_PACK_ALIGNMENT */, 1);
    read(0, 0, viewport[2], viewport[3], 0x1907 /* GL_RGB */, 0x1401 /* GL_UNSIGNED_BYTE */,
         (unsigned char *)shared + FRAME_OFFSET);
}

static void hand_over(void) {
    char byte = 'F';
    if (send(channel, &byte, 1, MSG_NOSIGNAL) != 1) end_game();
    for (;;) {
        ssize_t got = read(channel, &byte, 1);
        if (got == 1) return;
        if (got == 0 || errno != EINTR) end_game();
    }
}

void glXSwapBuffers(Display *display, unsigned long drawable) {
    (void)drawable;
    static int loading, settled;
    if (!game) return;
    run_turns();
    shared->frames++;
    if (shared->phase == READY) {
        settled = server_bytes ? 0 : settled + 1;
        if (settled >= SETTLED_STEPS || ++shared->settling >= MOST_SETTLING_STEPS) shared->phase = PLAYING;
    } else if (shared->phase == LOADING && ++loading > MOST_LOADING_STEPS) {
        fprintf(stderr, "oneiros: the world did not begin\n");
        _exit(3);
    }
    if (!shared->width) read_picture();
    if (shared->phase == PLAYING) {
        read_picture();
        hand_over();
    }
    put_input(display);
    __atomic_add_fetch(&now_ns, STEP_NS, __ATOMIC_RELAXED);
    __atomic_store_n(&calls, 0, __ATOMIC_RELAXED);
}

/* For the game's Lua, through LuaJIT's FFI. */
void *oneiros_luanti_memory(void) { return shared; }

/* ---- the end of the driver --------------------------------------------------------------------------------------  */

static void *end_with_owner(void *unused) {
    (void)unused;
    for (;;) {
        struct pollfd hangup = {.fd = channel, .events = 0};
        int found = channel >= 0 ? poll(&hangup, 1, 500) : poll(NULL, 0, 500);
        if (getppid() == owner && !(found > 0 && hangup.revents & (POLLHUP | POLLERR))) continue;
        if (game) end_game();
        kill(getpid(), SIGTERM); /* the X server removes its socket and lock */
        sleep(2);
        kill(getpid(), SIGKILL);
    }
    return NULL;
}

static int number(const char *name, int missing) {
    const char *text = getenv(name);
    return text ? atoi(text) : missing;
}

__attribute__((constructor)) static void begin(void) {
    owner = number("ONEIROS_LUANTI_OWNER", -1);
    if (owner < 0) return;
    channel = number("ONEIROS_LUANTI_CHANNEL", -1);
    int memory = number("ONEIROS_LUANTI_MEMORY", -1);
    if (memory >= 0) {
        struct stat state;
        if (fstat(memory, &state)) _exit(3);
        shared = mmap(NULL, (size_t)state.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
        if (shared == MAP_FAILED) _exit(3);
        shared->capacity = (int32_t)state.st_size;
        const char *folder = getenv("ONEIROS_LUANTI_SCRATCH");
        scratch = folder ? strdup(folder) : NULL;
        game = 1;
    }
    /* What this process starts is not the game. */
    unsetenv("LD_PRELOAD");
    unsetenv("ONEIROS_LUANTI_OWNER");
    pthread_t thread;
    if (pthread_create(&thread, NULL, end_with_owner, NULL)) _exit(3);
    pthread_detach(thread);
}
