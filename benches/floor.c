/* floor - the time that the kernel alone takes for a container with ctr's default spec on cgroup v1: the same
 * namespaces, mounts, nodes, cgroups and privileges, and nothing else. No JSON, protocol, records or checks.
 *
 *   floor CGROUP      reads lines from stdin and answers each with one line once it is done:
 *     create BUNDLE LOWER    cgroups, clone, mounts; the process waits before its execve
 *     start                  the execve of "sleep"
 *     exec                   "true" in its namespaces, to the exit
 *     kill                   SIGKILL, to the exit
 *     delete                 removes the cgroups
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void need(int ok, const char *what) {
    if (!ok) { fprintf(stderr, "floor: %s: %s\n", what, strerror(errno)); _exit(1); }
}

static const char *hierarchies[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
                                    "net_cls", "net_prio", "perf_event", "hugetlb", "systemd", "rdma", "misc"};
enum { HIERARCHIES = sizeof hierarchies / sizeof *hierarchies };
static char cgroup[HIERARCHIES][256];
static int tasks[HIERARCHIES], count;

static void put(const char *dir, const char *file, const char *value) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    need(fd >= 0 && write(fd, value, strlen(value)) >= 0, path);
    close(fd);
}

static void copy(const char *from, const char *to, const char *file) {
    char path[512], value[256] = "";
    snprintf(path, sizeof path, "%s/%s", from, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    need(fd >= 0 && read(fd, value, sizeof value - 1) > 0, path);
    close(fd);
    put(to, file, value);
}

static void make_cgroups(const char *below) {
    static const char *rules[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:8 rwm", "c 1:7 rwm", "c 5:0 rwm",
                                  "c 1:5 rwm", "c 1:9 rwm", "c 5:1 rwm", "c 136:* rwm", "c 5:2 rwm"};
    count = 0;
    for (int i = 0; i < HIERARCHIES; i++) {
        char parent[200], path[512];
        snprintf(parent, sizeof parent, "/sys/fs/cgroup/%s", hierarchies[i]);
        struct stat stat;
        if (lstat(parent, &stat) || !S_ISDIR(stat.st_mode)) continue;
        strcat(strcat(parent, "/"), below);
        snprintf(cgroup[count], sizeof *cgroup, "%s/floor", parent);
        need(!mkdir(parent, 0755) || errno == EEXIST, parent);
        need(!mkdir(cgroup[count], 0755), cgroup[count]);
        if (!strcmp(hierarchies[i], "cpuset")) {
            char root[] = "/sys/fs/cgroup/cpuset";
            for (const char **file = (const char *[]){"cpuset.cpus", "cpuset.mems", 0}; *file; file++) {
                copy(root, parent, *file);
                copy(parent, cgroup[count], *file);
            }
        }
        if (!strcmp(hierarchies[i], "devices")) {
            put(cgroup[count], "devices.deny", "a");
            for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) put(cgroup[count], "devices.allow", rules[r]);
        }
        snprintf(path, sizeof path, "%s/tasks", cgroup[count]);
        tasks[count] = open(path, O_WRONLY | O_CLOEXEC);
        need(tasks[count++] >= 0, path);
    }
}

static int cloned(unsigned long flags, int *pidfd) {
    struct clone_args args = {.flags = flags | CLONE_PIDFD, .pidfd = (unsigned long)pidfd, .exit_signal = SIGCHLD};
    int pid = syscall(SYS_clone3, &args, sizeof args);
    need(pid >= 0, "clone3");
    return pid;
}

static void join_cgroups(void) {
    for (int i = 0; i < count; i++) need(write(tasks[i], "0", 1) == 1, "tasks");
}

static void drop_privileges(void) {
    static const unsigned keep = 0xa80425fb; /* the 14 capabilities of the default */
    need(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    for (int cap = 0; cap <= 40; cap++)
        if (cap > 31 || !(keep >> cap & 1)) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    need(!setgroups(1, (gid_t[]){0}) && !setresgid(0, 0, 0) && !setresuid(0, 0, 0), "ids");
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{keep, keep, 0}, {0}};
    need(!syscall(SYS_capset, &header, data), "capset");
}

static void on(const char *type, const char *to, unsigned long flags, const char *data) {
    mkdir(to, 0755);
    need(!mount(type, to, type, flags, data), to);
}

static void mask(const char *path, const char *with) {
    need(!mount(with, path, 0, MS_BIND, 0) || errno == ENOENT || errno == ENOTDIR, path);
}

static void dress(const char *bundle, const char *lower) {
    enum { NS = MS_NOSUID, ND = MS_NODEV, NX = MS_NOEXEC };
    char options[2048], root[600], out[600];
    join_cgroups();
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int net = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    need(!ioctl(net, SIOCSIFFLAGS, &lo), "lo");
    close(net);
    need(!mount("", "/", 0, MS_SLAVE | MS_REC, 0), "slave");
    snprintf(root, sizeof root, "%s/rootfs", bundle);
    snprintf(options, sizeof options, "index=off,workdir=%s/work,upperdir=%s/upper,lowerdir=%s", bundle, bundle, lower);
    need(!mount("overlay", root, "overlay", 0, options), "overlay");
    snprintf(out, sizeof out, "%s/out", bundle);
    int fifo = open(out, O_RDWR | O_CLOEXEC), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    need(!chdir(root), root);
    on("proc", "proc", NS | ND | NX, 0);
    on("tmpfs", "dev", NS | MS_STRICTATIME, "mode=755,size=65536k");
    on("devpts", "dev/pts", NS | NX, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    on("tmpfs", "dev/shm", NS | ND | NX, "mode=1777,size=65536k");
    on("mqueue", "dev/mqueue", NS | ND | NX, 0);
    on("sysfs", "sys", NS | ND | NX | MS_RDONLY, 0);
    on("tmpfs", "run", NS | MS_STRICTATIME, "mode=755,size=65536k");
    static const struct { const char *name; int major, minor; } nodes[] = {
        {"dev/null", 1, 3}, {"dev/random", 1, 8}, {"dev/full", 1, 7},
        {"dev/tty", 5, 0}, {"dev/zero", 1, 5}, {"dev/urandom", 1, 9}};
    for (int i = 0; i < 6; i++)
        need(!mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].name);
    need(!symlink("pts/ptmx", "dev/ptmx") && !symlink("/proc/self/fd", "dev/fd") &&
             !symlink("/proc/self/fd/0", "dev/stdin") && !symlink("/proc/self/fd/1", "dev/stdout") &&
             !symlink("/proc/self/fd/2", "dev/stderr"), "symlinks");
    for (const char **p = (const char *[]){"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger", 0}; *p; p++)
        need((!mount(*p, *p, 0, MS_BIND | MS_REC, 0) &&
              !mount(0, *p, 0, MS_BIND | MS_REMOUNT | MS_RDONLY | NS | ND | NX, 0)) || errno == ENOENT, *p);
    for (const char **p = (const char *[]){"proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list",
                                           "proc/timer_stats", "proc/sched_debug", 0}; *p; p++) mask(*p, "dev/null");
    for (const char **p = (const char *[]){"proc/acpi", "proc/asound", "sys/firmware", "sys/devices/virtual/powercap",
                                           "proc/scsi", 0}; *p; p++)
        if (!access(*p, F_OK)) need(!mount("tmpfs", *p, "tmpfs", MS_RDONLY, 0), *p);
    need(!syscall(SYS_pivot_root, ".", "."), "pivot_root");
    need(!umount2(".", MNT_DETACH) && !chdir("/"), "umount2");
    setsid();
    dup2(null, 0), dup2(fifo, 1), dup2(fifo, 2);
    syscall(SYS_keyctl, 1, "_ses.floor");
    umask(022);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, 1024});
    drop_privileges();
}

int main(int argc, char **argv) {
    char line[1024], bundle[512], lower[512];
    int pid = 0, pidfd = -1, gate[2] = {-1, -1};
    need(argc == 2, "floor CGROUP");
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "create %511s %511s", bundle, lower) == 2) {
            make_cgroups(argv[1]);
            need(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, gate), "socketpair");
            pid = cloned(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET, &pidfd);
            if (!pid) {
                char go;
                close(gate[0]);
                dress(bundle, lower);
                need(write(gate[1], "r", 1) == 1 && read(gate[1], &go, 1) == 1, "gate");
                execve("/bin/sleep", (char *[]){"sleep", "1000", 0}, (char *[]){"PATH=/bin", 0});
                need(0, "execve");
            }
            close(gate[1]);
            need(read(gate[0], line, 1) == 1, "the child");
        } else if (!strcmp(line, "start\n")) {
            need(write(gate[0], "g", 1) == 1 && read(gate[0], line, 1) == 0, "start");
            close(gate[0]);
        } else if (!strcmp(line, "exec\n")) {
            int fd, init = pidfd, ns = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
            need(!setns(init, CLONE_NEWPID), "setns");
            int child = cloned(0, &fd);
            if (!child) {
                join_cgroups();
                need(!setns(init, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET), "setns");
                drop_privileges();
                execve("/bin/true", (char *[]){"true", 0}, (char *[]){"PATH=/bin", 0});
                need(0, "execve");
            }
            need(!setns(ns, CLONE_NEWPID) && waitpid(child, 0, 0) == child, "exec");
            close(fd), close(ns);
        } else if (!strcmp(line, "kill\n")) {
            need(!kill(pid, SIGKILL) && waitpid(pid, 0, 0) == pid, "kill");
            close(pidfd);
        } else if (!strcmp(line, "delete\n")) {
            for (int i = 0; i < count; i++) {
                close(tasks[i]);
                need(!rmdir(cgroup[i]), cgroup[i]);
            }
        } else need(0, line);
        need(write(1, "ok\n", 3) == 3, "answer");
    }
}
