/*
 * A library that is preloaded into the daemon under test: it lets system calls on certain files fail, kills the process
 * before or after a certain call, and keeps a journal from which a test knows what a power cut would have left.
 * tests/it/harness/shim.rs compiles it, writes its rules, and reads its journal.
 *
 * SHIM_DIR has "rules" (replaced by rename whenever the test changes its mind), "fired" (a line for each rule that took
 * effect), "journal", and "graveyard" (hard links to what was unlinked or renamed over). SHIM_STORE is the directory of
 * the store, SHIM_EVENTS that of the event files.
 *
 * A rule is a line "CLASS CALL NTH ACTION [armed]".
 *   CLASS   wal, table, manifest, store-dir, events, events-dir, reply, peer; "store" is the first three
 *   CALL    write, fsync, create, rename, unlink, truncate, allocate, send, recv; "*" is every one of these
 *   NTH     counts matching calls since the rule was read; 0 is every one
 *   ACTION  kill-before, kill-after; eio, enospc (the call is not made); short (half is written); full (half is written,
 *           then ENOSPC, and statvfs shows no room as long as there is such a rule); arm (nothing, but rules with "armed"
 *           count from here)
 * A reply is a 250 to the final dot of a client; a peer's reply that of a mail host.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum class { NONE, WAL, TABLE, MANIFEST, STORE_DIR, EVENTS, EVENTS_DIR, REPLY, PEER };
static const char *const class_names[] = { "-", "wal", "table", "manifest", "store-dir", "events", "events-dir", "reply", "peer" };

enum action { GO_ON, KILL_BEFORE, KILL_AFTER, EIO_, ENOSPC_, SHORT, FULL, ARM };
static const char *const action_names[] = { "-", "kill-before", "kill-after", "eio", "enospc", "short", "full", "arm" };

#define FDS_MAX 65536
#define RULES_MAX 16
#define TEXT_MAX 1024

struct rule {
    char class[16], call[16];
    long nth, seen;
    enum action action;
    int armed;
};

static unsigned char classes[FDS_MAX];
static unsigned char halved[FDS_MAX];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES_MAX];
static int rules_len, is_armed;
static char rules_text[TEXT_MAX];
static char shim_dir[512], store_dir[512], events_dir[512];
static int journal_fd = -1, fired_fd = -1;
static unsigned long graves;

#define REAL(name, ...) ((__typeof__(&name))real(#name))(__VA_ARGS__)

static void *real(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

static int raw_open(const char *path, int flags, int mode) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode);
}

static void put(int fd, const char *format, ...) {
    char line[2048];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (fd >= 0 && len > 0)
        syscall(SYS_write, fd, line, (size_t)len);
}

__attribute__((constructor)) static void start(void) {
    const char *dir = getenv("SHIM_DIR"), *store = getenv("SHIM_STORE"), *events = getenv("SHIM_EVENTS");
    if (!dir || !store || !events)
        return;
    char path[600];
    snprintf(shim_dir, sizeof shim_dir, "%s", dir);
    snprintf(store_dir, sizeof store_dir, "%s", store);
    snprintf(events_dir, sizeof events_dir, "%s", events);
    snprintf(path, sizeof path, "%s/journal", dir);
    journal_fd = raw_open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    snprintf(path, sizeof path, "%s/fired", dir);
    fired_fd = raw_open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    /* The commands that the daemon may start are none of the test's business. */
    unsetenv("LD_PRELOAD");
}

static int ends_with(const char *text, const char *end) {
    size_t text_len = strlen(text), end_len = strlen(end);
    return text_len >= end_len && strcmp(text + text_len - end_len, end) == 0;
}

/* The part of a path behind a directory; "" for the directory itself, NULL for what is not in it. */
static const char *within(const char *path, const char *dir) {
    size_t len = strlen(dir);
    if (!len || strncmp(path, dir, len) != 0)
        return NULL;
    if (path[len] == 0)
        return "";
    if (path[len] != '/')
        return NULL;
    while (path[len] == '/')
        len++;
    return path + len;
}

static enum class classify(const char *path) {
    const char *name = within(path, store_dir);
    if (name) {
        if (!*name)
            return STORE_DIR;
        if (ends_with(name, ".log"))
            return WAL;
        if (ends_with(name, ".sst"))
            return TABLE;
        if (!strncmp(name, "MANIFEST-", 9) || !strcmp(name, "CURRENT") || ends_with(name, ".dbtmp"))
            return MANIFEST;
        return NONE;
    }
    name = within(path, events_dir);
    if (name)
        return *name ? EVENTS : EVENTS_DIR;
    return NONE;
}

static enum class class_of(int fd) {
    return fd >= 0 && fd < FDS_MAX ? (enum class)classes[fd] : NONE;
}

/* With the mutex held. */
static void read_rules(void) {
    char path[600], text[TEXT_MAX];
    snprintf(path, sizeof path, "%s/rules", shim_dir);
    int fd = raw_open(path, O_RDONLY, 0);
    ssize_t len = fd >= 0 ? syscall(SYS_read, fd, text, sizeof text - 1) : 0;
    if (fd >= 0)
        syscall(SYS_close, fd);
    text[len > 0 ? len : 0] = 0;
    if (!strcmp(text, rules_text))
        return;
    strcpy(rules_text, text);
    rules_len = is_armed = 0;
    char *place;
    for (char *line = strtok_r(text, "\n", &place); line && rules_len < RULES_MAX; line = strtok_r(NULL, "\n", &place)) {
        struct rule rule = { .seen = 0 };
        char action[16], armed[16] = "";
        if (sscanf(line, "%15s %15s %ld %15s %15s", rule.class, rule.call, &rule.nth, action, armed) < 4)
            continue;
        for (size_t at = 0; at < sizeof action_names / sizeof *action_names; at++)
            if (!strcmp(action, action_names[at]))
                rule.action = (enum action)at;
        rule.armed = !strcmp(armed, "armed");
        rules[rules_len++] = rule;
    }
}

static int matches(const struct rule *rule, enum class class, const char *call) {
    int is_class = !strcmp(rule->class, class_names[class]) || (!strcmp(rule->class, "store") && class >= WAL && class <= MANIFEST);
    return is_class && (!strcmp(rule->call, call) || !strcmp(rule->call, "*")) && (!rule->armed || is_armed);
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* What to do with a call; kills where that comes before it. */
static enum action judge(enum class class, const char *call) {
    if (class == NONE || !*shim_dir)
        return GO_ON;
    enum action action = GO_ON;
    int saved = errno;
    pthread_mutex_lock(&mutex);
    read_rules();
    for (int at = 0; at < rules_len && action == GO_ON; at++) {
        struct rule *rule = &rules[at];
        if (!matches(rule, class, call))
            continue;
        rule->seen++;
        if (rule->nth && rule->seen != rule->nth)
            continue;
        put(fired_fd, "%s %s %ld %s\n", class_names[class], call, rule->seen, action_names[rule->action]);
        if (rule->action == ARM)
            is_armed = 1;
        else
            action = rule->action;
    }
    if (action == KILL_BEFORE)
        die();
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return action;
}

/* Whether the call must not be made; sets errno. */
static int is_refused(enum action action) {
    if (action == EIO_ || action == ENOSPC_ || action == FULL) {
        errno = action == EIO_ ? EIO : ENOSPC;
        return 1;
    }
    return 0;
}

/* How much of a write is done; -1: none, with errno. */
static ssize_t allowed(enum action action, int fd, size_t len) {
    if (action == FULL && len > 1 && !halved[fd]) {
        halved[fd] = 1;
        return (ssize_t)(len / 2);
    }
    if (action == FULL)
        halved[fd] = 0;
    if (is_refused(action))
        return -1;
    return (ssize_t)(action == SHORT && len > 1 ? len / 2 : len);
}

static void after(enum action action) {
    if (action == KILL_AFTER)
        die();
}

static unsigned long inode(int fd, unsigned long *len) {
    struct stat stat;
    if (fstat(fd, &stat))
        return 0;
    if (len)
        *len = (unsigned long)stat.st_size;
    return (unsigned long)stat.st_ino;
}

static unsigned long inode_at(const char *path) {
    struct stat status;
    return stat(path, &status) ? 0 : (unsigned long)status.st_ino;
}

/* Keeps what is about to lose its name, so that a test can undo that. With the mutex held. */
static void bury(const char *path) {
    char grave[600];
    snprintf(grave, sizeof grave, "%s/graveyard/%d-%lu", shim_dir, getpid(), graves++);
    REAL(link, path, grave);
}

static int opened(int fd, const char *path, enum class class, int is_new, enum action action) {
    int saved = errno;
    if (fd >= 0 && fd < FDS_MAX) {
        classes[fd] = (unsigned char)class;
        halved[fd] = 0;
        if (is_new && class != NONE)
            put(journal_fd, "create %lu %s\n", inode(fd, NULL), path);
    }
    after(action);
    errno = saved;
    return fd;
}

static int open_any(const char *name, const char *path, int flags, mode_t mode) {
    int (*open_real)(const char *, int, ...) = (int (*)(const char *, int, ...))real(name);
    enum class class = classify(path);
    int is_new = class != NONE && (flags & O_CREAT) && access(path, F_OK);
    enum action action = is_new ? judge(class, "create") : GO_ON;
    if (is_refused(action))
        return -1;
    if (!is_new)
        return opened(open_real(path, flags, mode), path, class, 0, action);
    pthread_mutex_lock(&mutex);
    int fd = open_real(path, flags, mode);
    fd = opened(fd, path, class, 1, GO_ON);
    pthread_mutex_unlock(&mutex);
    after(action);
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_any("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return open_any("open64", path, flags, mode);
}

int close(int fd) {
    if (fd >= 0 && fd < FDS_MAX)
        classes[fd] = NONE;
    return REAL(close, fd);
}

static int is_reply(const void *bytes, size_t len) {
    return len >= 12 && memmem(bytes, len < 512 ? len : 512, "250 2.0.0 Ok", 12) != NULL;
}

static enum class class_of_output(int fd, const void *bytes, size_t len) {
    enum class class = class_of(fd);
    return class == NONE && is_reply(bytes, len) ? REPLY : class;
}

static const char *call_of(enum class class) {
    return class == REPLY ? "send" : "write";
}

ssize_t write(int fd, const void *bytes, size_t len) {
    enum class class = class_of_output(fd, bytes, len);
    enum action action = judge(class, call_of(class));
    ssize_t part = action == GO_ON ? (ssize_t)len : allowed(action, fd, len);
    ssize_t done = part < 0 ? -1 : REAL(write, fd, bytes, (size_t)part);
    after(action);
    return done;
}

static ssize_t pwrite_any(const char *name, int fd, const void *bytes, size_t len, off_t at) {
    ssize_t (*pwrite_real)(int, const void *, size_t, off_t) = (ssize_t(*)(int, const void *, size_t, off_t))real(name);
    enum action action = judge(class_of(fd), "write");
    ssize_t part = action == GO_ON ? (ssize_t)len : allowed(action, fd, len);
    ssize_t done = part < 0 ? -1 : pwrite_real(fd, bytes, (size_t)part, at);
    after(action);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    return pwrite_any("pwrite", fd, bytes, len, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    return pwrite_any("pwrite64", fd, bytes, len, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    enum class class = count > 0 ? class_of_output(fd, parts[0].iov_base, parts[0].iov_len) : NONE;
    enum action action = judge(class, call_of(class));
    if (is_refused(action))
        return -1;
    ssize_t done = REAL(writev, fd, parts, action == SHORT ? 1 : count);
    after(action);
    return done;
}

ssize_t send(int fd, const void *bytes, size_t len, int flags) {
    enum action action = is_reply(bytes, len) ? judge(REPLY, "send") : GO_ON;
    ssize_t done = REAL(send, fd, bytes, len, flags);
    after(action);
    return done;
}

static ssize_t received(const void *bytes, ssize_t len) {
    if (len > 0 && memmem(bytes, (size_t)len, "2.0.0 Taken", 11))
        after(judge(PEER, "recv"));
    return len;
}

ssize_t recv(int fd, void *bytes, size_t len, int flags) {
    return received(bytes, REAL(recv, fd, bytes, len, flags));
}

ssize_t read(int fd, void *bytes, size_t len) {
    ssize_t done = REAL(read, fd, bytes, len);
    return class_of(fd) == NONE ? received(bytes, done) : done;
}

static int sync_any(const char *name, int fd) {
    int (*sync_real)(int) = (int (*)(int))real(name);
    enum class class = class_of(fd);
    enum action action = judge(class, "fsync");
    if (is_refused(action))
        return -1;
    unsigned long len = 0, number = class == NONE ? 0 : inode(fd, &len);
    int is_dir = class == STORE_DIR || class == EVENTS_DIR;
    if (is_dir)
        pthread_mutex_lock(&mutex);
    int failed = sync_real(fd);
    int saved = errno;
    if (!failed && class != NONE) {
        if (is_dir)
            put(journal_fd, "syncdir 0 %s\n", class == STORE_DIR ? store_dir : events_dir);
        else
            put(journal_fd, "sync %lu %lu\n", number, len);
    }
    if (is_dir)
        pthread_mutex_unlock(&mutex);
    after(action);
    errno = saved;
    return failed;
}

int fsync(int fd) {
    return sync_any("fsync", fd);
}

int fdatasync(int fd) {
    return sync_any("fdatasync", fd);
}

static int truncate_any(const char *name, int fd, off_t len) {
    int (*truncate_real)(int, off_t) = (int (*)(int, off_t))real(name);
    enum action action = judge(class_of(fd), "truncate");
    if (is_refused(action))
        return -1;
    int failed = truncate_real(fd, len);
    after(action);
    return failed;
}

int ftruncate(int fd, off_t len) {
    return truncate_any("ftruncate", fd, len);
}

int ftruncate64(int fd, off64_t len) {
    return truncate_any("ftruncate64", fd, len);
}

int fallocate(int fd, int mode, off_t at, off_t len) {
    enum action action = judge(class_of(fd), "allocate");
    if (is_refused(action))
        return -1;
    int failed = REAL(fallocate, fd, mode, at, len);
    after(action);
    return failed;
}

static int is_full(void) {
    int full = 0;
    if (!*shim_dir)
        return 0;
    pthread_mutex_lock(&mutex);
    read_rules();
    for (int at = 0; at < rules_len; at++)
        full |= rules[at].action == FULL;
    pthread_mutex_unlock(&mutex);
    return full;
}

/* RocksDB asks it before it tries again. */
int statvfs(const char *path, struct statvfs *status) {
    int failed = REAL(statvfs, path, status);
    if (!failed && is_full())
        status->f_bfree = status->f_bavail = 0;
    return failed;
}

int rename(const char *from, const char *to) {
    enum class class = classify(from);
    enum action action = judge(class, "rename");
    if (is_refused(action))
        return -1;
    if (class == NONE)
        return REAL(rename, from, to);
    pthread_mutex_lock(&mutex);
    unsigned long number = inode_at(from);
    bury(to);
    int failed = REAL(rename, from, to);
    if (!failed)
        put(journal_fd, "rename %lu %s\t%s\n", number, from, to);
    pthread_mutex_unlock(&mutex);
    after(action);
    return failed;
}

int unlink(const char *path) {
    enum class class = classify(path);
    enum action action = judge(class, "unlink");
    if (is_refused(action))
        return -1;
    if (class == NONE)
        return REAL(unlink, path);
    pthread_mutex_lock(&mutex);
    bury(path);
    int failed = REAL(unlink, path);
    if (!failed)
        put(journal_fd, "unlink 0 %s\n", path);
    pthread_mutex_unlock(&mutex);
    after(action);
    return failed;
}

/* What is written through a shared map is seen by no call above. */
static void mapped(int protection, int flags, int fd) {
    if ((flags & MAP_SHARED) && (protection & PROT_WRITE) && class_of(fd) != NONE)
        put(fired_fd, "%s mmap 0 seen\n", class_names[class_of(fd)]);
}

void *mmap(void *place, size_t len, int protection, int flags, int fd, off_t at) {
    mapped(protection, flags, fd);
    return (void *)syscall(SYS_mmap, place, len, protection, flags, fd, at);
}

void *mmap64(void *place, size_t len, int protection, int flags, int fd, off64_t at) {
    mapped(protection, flags, fd);
    return (void *)syscall(SYS_mmap, place, len, protection, flags, fd, at);
}
