// Runs a program some of whose system calls on files fail.
//
// usage: faulty ORDERS LOG FOLDER... -- PROGRAM ARGUMENT...
//
// Whatever the program and its descendants do to files below one of FOLDERS goes through here (seccomp user
// notification: unmodified code, whichever way it calls). ORDERS holds "FROM COUNT ERRNO KINDS": calls number FROM to
// FROM + COUNT - 1 of one of these KINDS since ORDERS was written fail with ERRNO. A kind is a letter: o(pen to write or
// create), r(ead: any other open), w(rite), s(ync), n(ame: rename, link, unlink), d(irectory made). LOG gets a line for
// each call: number, kind, whether it failed, path. Linux on x86-64 and arm64.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// How the path of a call is found: an argument that is a descriptor, or a path relative to one (or to nothing).
enum where { DESCRIPTOR, PATH, AT };
static const struct { int number; char kind; enum where where; int argument; int flags; } CALLS[] = {
    {SYS_openat, 'r', AT, 0, 2},
    {SYS_write, 'w', DESCRIPTOR, 0, -1},
    {SYS_pwrite64, 'w', DESCRIPTOR, 0, -1},
    {SYS_writev, 'w', DESCRIPTOR, 0, -1},
    {SYS_ftruncate, 'w', DESCRIPTOR, 0, -1},
    {SYS_copy_file_range, 'w', DESCRIPTOR, 2, -1},
    {SYS_fsync, 's', DESCRIPTOR, 0, -1},
    {SYS_fdatasync, 's', DESCRIPTOR, 0, -1},
    {SYS_renameat2, 'n', AT, 2, -1},
    {SYS_renameat, 'n', AT, 2, -1},
    {SYS_linkat, 'n', AT, 2, -1},
    {SYS_unlinkat, 'n', AT, 0, -1},
    {SYS_mkdirat, 'd', AT, 0, -1},
#ifdef SYS_open
    {SYS_open, 'r', PATH, 0, 1},
    {SYS_rename, 'n', PATH, 1, -1},
    {SYS_link, 'n', PATH, 1, -1},
    {SYS_unlink, 'n', PATH, 0, -1},
    {SYS_mkdir, 'd', PATH, 0, -1},
#endif
};
enum { NUMBER = sizeof CALLS / sizeof *CALLS };

static void die(const char *what) {
    perror(what);
    _exit(127);
}

static int install(void) {
    struct sock_filter filter[NUMBER + 3];
    filter[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < NUMBER; i++)
        filter[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, NUMBER - i, 0);
    filter[NUMBER + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[NUMBER + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {NUMBER + 3, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

// The path that a call is about; empty if it cannot be told.
static void path_of(const struct seccomp_notif *call, int i, char *path, size_t size) {
    char link[64], name[4096] = "";
    const unsigned long long *arguments = call->data.args;
    int argument = CALLS[i].argument;
    *path = 0;
    if (CALLS[i].where == DESCRIPTOR) {
        snprintf(link, sizeof link, "/proc/%d/fd/%d", call->pid, (int)arguments[argument]);
        ssize_t length = readlink(link, path, size - 1);
        path[length < 0 ? 0 : length] = 0;
        return;
    }
    int text = argument + (CALLS[i].where == AT);
    struct iovec ours = {name, sizeof name - 1}, theirs = {(void *)(unsigned long)arguments[text], sizeof name - 1};
    // Up to the end of a page at first: what lies behind may not be there.
    size_t page = 4096 - (arguments[text] & 4095);
    theirs.iov_len = page < theirs.iov_len ? page : theirs.iov_len;
    ssize_t got = process_vm_readv(call->pid, &ours, 1, &theirs, 1, 0);
    if (got > 0 && !memchr(name, 0, got)) {
        struct iovec more = {name + got, sizeof name - 1 - got}, rest = {(char *)theirs.iov_base + got, sizeof name - 1 - got};
        process_vm_readv(call->pid, &more, 1, &rest, 1, 0);
    }
    if (*name == '/') {
        snprintf(path, size, "%s", name);
        return;
    }
    int folder = CALLS[i].where == AT ? (int)arguments[argument] : AT_FDCWD;
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/%d/cwd", call->pid);
    else snprintf(link, sizeof link, "/proc/%d/fd/%d", call->pid, folder);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) { *path = 0; return; }
    snprintf(path + length, size - length, "/%s", name);
}

static void supervise(int listener, const char *orders, const char *log, char **folders) {
    int order = open(orders, O_RDONLY), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (order < 0 || out < 0) die("orders or log");
    char current[128] = "", path[8192], line[8400];
    long from = 0, count = 0, number = 0;
    int error = 0;
    char kinds[16] = "";
    struct pollfd ready = {listener, POLLIN, 0};
    for (;;) {
        if (poll(&ready, 1, -1) < 0) continue;
        if (!(ready.revents & POLLIN)) _exit(0);
        struct seccomp_notif call;
        memset(&call, 0, sizeof call);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call)) continue;
        struct seccomp_notif_resp answer = {.id = call.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        int i = 0;
        while (CALLS[i].number != call.data.nr) i++;
        path_of(&call, i, path, sizeof path);
        int ours = 0;
        for (char **folder = folders; *folder && !ours; folder++) ours = !strncmp(path, *folder, strlen(*folder));
        if (ours) {
            char kind = CALLS[i].kind, now[128] = "";
            if (CALLS[i].flags >= 0 && (call.data.args[CALLS[i].flags] & (O_WRONLY | O_RDWR | O_CREAT))) kind = 'o';
            if (pread(order, now, sizeof now - 1, 0) >= 0 && strcmp(now, current)) {
                strcpy(current, now);
                number = 0;
                if (sscanf(now, "%ld %ld %d %15s", &from, &count, &error, kinds) != 4) count = 0, *kinds = 0;
            }
            int counts = !!strchr(kinds, kind), fails = 0;
            if (counts) {
                number++;
                fails = number >= from && number < from + count;
            }
            if (fails) {
                answer.flags = 0;
                answer.error = -error;
            }
            int length = snprintf(line, sizeof line, "%ld %c %s %s\n", counts ? number : 0, kind, fails ? "failed" : "passed", path);
            if (write(out, line, length) < 0) die("log");
        }
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

int main(int count, char **words) {
    int program = 1;
    while (program < count && strcmp(words[program], "--")) program++;
    if (program + 1 >= count || program < 4) return 2;
    words[program++] = NULL;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) die("socketpair");
    // The program keeps our process id, and whoever supervises it is our child, so it lets itself be read.
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        char byte;
        struct iovec data = {&byte, 1};
        union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr aligned; } control;
        struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        close(pair[0]);
        if (recvmsg(pair[1], &message, 0) != 1) _exit(127);
        int listener = *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message));
        close(pair[1]);
        setsid();
        // Who waits for the program's output to end does not wait for us.
        int nothing = open("/dev/null", O_RDWR);
        for (int i = 0; i < 3; i++) dup2(nothing, i);
        supervise(listener, words[1], words[2], words + 3);
    }
    close(pair[1]);
    prctl(PR_SET_PTRACER, child, 0, 0, 0);
    int listener = install();
    if (listener < 0) die("seccomp");
    char byte = 0;
    struct iovec data = {&byte, 1};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr aligned; } control;
    memset(&control, 0, sizeof control);
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &listener, sizeof(int));
    if (sendmsg(pair[0], &message, 0) != 1) die("sendmsg");
    close(listener);
    close(pair[0]);
    execvp(words[program], words + program);
    die(words[program]);
}
